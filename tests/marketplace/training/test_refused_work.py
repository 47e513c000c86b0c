"""What one node hands in costs it its place, not the job its round."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.events.models import Event
from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Node
from marketplace.training import tasks
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.services import rounds
from tests.marketplace.training.work import contribute, lease, overdue, started
from tests.marketplace.world import TestNode, fund, register

pytestmark = pytest.mark.django_db


def hand_in(*nodes: TestNode, data: bytes | None = None) -> None:
    for node in nodes:
        contribute(node, data)
        tasks.check_contribution(Contribution.objects.get(node_id=node.id, round__state=Round.State.OPEN).pk)


@pytest.fixture
def refused(nodes: list[TestNode]) -> Round:
    """A round whose quorum of two lacks one: the second node's work was refused."""
    job = started(fund(spec={"rounds": {"rounds": 2, "nodes": 2, "quorum": 2, "deadline_seconds": 600}}))
    rounds.open_round(job_id=job.pk)
    hand_in(nodes[0])
    hand_in(nodes[1], data=b"garbage")
    assert Contribution.objects.get(node_id=2).state == Contribution.State.REJECTED
    return Round.objects.get()


def look(round_: Round) -> Job:
    rounds.close_round_if_complete(round_id=round_.pk)
    round_.refresh_from_db()
    return Job.objects.get(pk=round_.job_id)


def test_the_place_of_refused_work_is_given_to_another_node_in_the_same_round(refused: Round) -> None:
    third = register(3)
    third.bid()
    job = look(refused)
    assert (job.state, refused.state, refused.extensions) == (Job.State.RUNNING, Round.State.OPEN, 0)
    given, lost = Assignment.objects.get(node_id=3), Assignment.objects.get(node_id=2)
    assert (given.round, given.shard, given.steps, given.encoding) == (refused, lost.shard, lost.steps, lost.encoding)
    assert given.reasons[0]["code"] == "place.handed_on"
    assert Event.objects.filter(type="round.extended", refs={"round_id": refused.pk}).count() == 1
    look(refused)
    assert Assignment.objects.count() == 3, "it is given on once"
    hand_in(third)
    assert look(refused).reason == ""
    assert refused.state == Round.State.AGGREGATING
    tasks.aggregate_round(refused.pk)
    accepted = Contribution.objects.filter(state=Contribution.State.ACCEPTED)
    assert set(accepted.values_list("node_id", flat=True)) == {1, 3}


def test_a_round_waits_for_a_stand_in(refused: Round) -> None:
    for _ in range(3):
        job = look(refused)
    assert (job.state, refused.extensions) == (Job.State.RUNNING, 0), "its deadline is yet to come"
    assert "work of round 0 was refused" in job.reason
    register(3).bid()
    assert look(refused).reason == ""
    assert Assignment.objects.filter(node_id=3).exists()


def test_a_stand_in_may_be_refused_too(refused: Round) -> None:
    third, fourth = register(3), register(4)
    third.bid()
    look(refused)
    hand_in(third, data=b"more garbage")
    fourth.bid()
    look(refused)
    hand_in(fourth)
    look(refused)
    assert refused.state == Round.State.AGGREGATING
    assert Assignment.objects.get(node_id=4).shard == Assignment.objects.get(node_id=2).shard


def test_a_quorum_for_which_nobody_comes_fails_after_all_extensions_and_good_work_is_paid(refused: Round) -> None:
    for extension in range(rounds.MAX_EXTENSIONS):
        overdue()
        assert look(refused).state == Job.State.RUNNING
        assert refused.extensions == extension + 1 and refused.deadline > timezone.now()
    overdue()
    assert look(refused).state == Job.State.FAILED
    look(refused)
    assert refused.state == Round.State.AGGREGATING
    tasks.aggregate_round(refused.pk)
    assert Contribution.objects.get(node_id=1).state == Contribution.State.ACCEPTED


def test_nobody_is_asked_in_addition_where_the_quorum_stands_all_the_same(nodes: list[TestNode]) -> None:
    job = started(fund(spec={"rounds": {"rounds": 2, "nodes": 2, "quorum": 1, "deadline_seconds": 600}}))
    rounds.open_round(job_id=job.pk)
    register(3).bid()
    hand_in(nodes[1], data=b"garbage")
    look(Round.objects.get())
    assert not Assignment.objects.filter(node_id=3).exists()
    assert lease(nodes[0])["order"]["steps"] > 0


def test_a_stopped_job_asks_nobody_for_more(refused: Round) -> None:
    Job.objects.update(state=Job.State.STOPPED)
    register(3).bid()
    look(refused)
    assert refused.state == Round.State.AGGREGATING
    assert not Assignment.objects.filter(node_id=3).exists()


def test_no_two_nodes_of_a_round_train_on_one_shard(refused: Round) -> None:
    """A seat's number says its shard, but not when nodes before it are out: the third of two would have the first one's."""
    third = register(3)
    third.bid()
    look(refused)
    hand_in(third)
    look(refused)
    tasks.aggregate_round(refused.pk)
    Node.objects.filter(pk=2).update(suspended_until=timezone.now() + timedelta(days=1))
    following = Round.objects.filter(number=1).first() or rounds.open_round(job_id=refused.job_id)
    slots = Assignment.objects.filter(round=following)
    assert [seat.node_id for seat in Seat.objects.order_by("id")] == [1, 2, 3]
    assert dict(slots.values_list("node_id", "shard")) == {1: 0, 3: 1}
