"""Several jobs share the operators, each by price, fit and deadline, and each node learns why."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from marketplace.jobs.models import Job
from marketplace.operators.models import Bid, Measurement, Node
from marketplace.training.models import Round
from marketplace.training.serializers import round_json
from marketplace.training.services import rounds, seats, sharing
from tests.marketplace.training.work import lease, started
from tests.marketplace.world import TestNode, fund, register
from trainer.network.facts import architecture_of

pytestmark = pytest.mark.django_db


def running(chain_id: int, **beside: object) -> Job:
    return started(fund(chain_id=chain_id, spec={"seed": chain_id}, **beside))


def four(nodes: list[TestNode]) -> None:
    for node_id in (3, 4):
        register(node_id).bid(rate=6)


def members(job: Job) -> list[int]:
    return sorted(job.seats.values_list("node_id", flat=True))


def code(node_id: int, job: Job) -> str:
    return str(Node.objects.get(pk=node_id).choices[str(job.pk)]["code"])


def is_fast(node_id: int, job: Job, *, samples_per_second: float) -> None:
    Measurement.objects.create(
        node_id=node_id, quantity=Measurement.Quantity.SPEED, of=architecture_of(job.parsed_spec), claimed=False, source="work",
        value=samples_per_second, samples=9, at=timezone.now(),
    )  # fmt: skip


def test_a_second_job_takes_the_nodes_that_are_idle_though_they_ask_more(nodes: list[TestNode]) -> None:
    four(nodes)
    first, second = running(1), running(2)
    for job in (first, second):
        rounds.open_round(job_id=job.pk)
    assert (members(first), members(second)) == ([1, 2], [3, 4])
    assert [code(node, second) for node in (1, 2, 3, 4)] == ["assign.busy"] * 2 + ["assign.taken"] * 2


def test_with_too_few_nodes_jobs_share_them(nodes: list[TestNode]) -> None:
    first, second = running(1), running(2)
    for job in (first, second):
        rounds.open_round(job_id=job.pk)
    assert members(first) == members(second) == [1, 2]
    assert code(1, second) == "assign.shared"
    assert f"job {first.pk} already" in Node.objects.get(pk=1).choices[str(second.pk)]["text"]


def test_of_two_jobs_that_are_short_the_second_leaves_the_first_its_own(nodes: list[TestNode]) -> None:
    four(nodes)
    first, second = running(1), running(2)
    for job, own in ((first, [1, 2]), (second, [3, 4])):
        job.seats.all().delete()
        bids = sharing.open_bids(job)
        assert [choice.bid.node_id for choice in sharing.choose(job, bids, places=2) if choice.taken] == own
    first.seats.all().delete()
    left = {choice.bid.node_id: choice for choice in sharing.choose(second, sharing.open_bids(second), places=3)}
    assert left[1].taken and left[1].reason.code == "assign.place_left" and f"Job {first.pk}" in left[1].reason.text


def test_a_job_whose_deadline_the_cheapest_would_miss_gets_the_fastest(
    nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 rounds of 2 nodes with 32 samples each: at about 60 samples a second, transfers and all, the cheap ones need a second."""
    four(nodes)
    job = running(1)
    for node_id in (3, 4):
        is_fast(node_id, job, samples_per_second=1000.0)
    job.seats.all().delete()
    Round.objects.all().delete()

    def taken() -> list[int]:
        return sorted(one.bid.node_id for one in sharing.choose(job, sharing.open_bids(job), places=2) if one.taken)

    assert taken() == [1, 2]
    now = timezone.now()
    monkeypatch.setattr(sharing, "timezone", SimpleNamespace(now=lambda: now))
    job.finish_by = now + timedelta(hours=1)
    assert taken() == [1, 2]
    job.finish_by = now + timedelta(seconds=0.5)
    assert taken() == [3, 4]
    job.finish_by = now - timedelta(seconds=1)
    assert taken() == [1, 2], "what is too late already has no claim"
    job.goal = Job.Goal.TIME
    assert taken() == [3, 4], "its requester wants the fastest"


def test_who_carried_uploads_goes_before_who_asks_as_much_and_did_not(nodes: list[TestNode]) -> None:
    """For as long as that was faster than the direct way, as the coordinator measured both."""
    for node_id in (3, 4):
        register(node_id).bid()
    job = running(1)
    Node.objects.filter(pk=3).update(endpoint="http://203.0.113.3:7070")

    def choices() -> dict[int, sharing.Choice]:
        job.seats.all().delete()
        return {one.bid.node_id: one for one in sharing.choose(job, sharing.open_bids(job), places=2)}

    def way(of: str, bytes_per_second: float) -> None:
        Measurement.objects.update_or_create(
            node_id=4, quantity=Measurement.Quantity.UP, of=of, claimed=False,
            defaults={"source": "transfer", "value": bytes_per_second, "samples": 9, "at": timezone.now()},
        )  # fmt: skip

    assert [node for node, choice in choices().items() if choice.taken] == [1, 2]
    way("", 1e4)
    way("3", 1e6)
    found = choices()
    assert [node for node, choice in found.items() if choice.taken] == [1, 3]
    assert "more of others, whose uploads go by way of it" in found[3].reason.text
    way("3", 5e3)
    assert [node for node, choice in choices().items() if choice.taken] == [1, 2]


def test_of_jobs_that_pay_the_same_the_one_with_a_deadline_has_the_first_choice(nodes: list[TestNode]) -> None:
    later, sooner = running(1), running(2, finish_by=timezone.now() + timedelta(hours=1))
    for job in (later, sooner):
        job.seats.all().delete()
    found = sharing.choose(later, sharing.open_bids(later), places=2)
    assert {choice.reason.code for choice in found} == {"assign.place_left"}
    assert all("leaves them to the others" in choice.reason.text for choice in found)
    assert {choice.reason.code for choice in sharing.choose(sooner, sharing.open_bids(sooner), places=2)} == {"assign.taken"}


def test_a_job_with_a_deadline_gets_the_better_nodes_though_another_one_is_older_and_opens_first(nodes: list[TestNode]) -> None:
    """From the posting to the order in a node's hands: all ask the same, the third and the fourth are twice as fast."""
    fast = [register(node_id) for node_id in (3, 4)]
    for node in fast:
        node.bid()
    older, due = running(1), running(2, finish_by=timezone.now() + timedelta(hours=1))
    for node in fast:
        is_fast(node.id, older, samples_per_second=200.0)
    for job in (older, due):
        rounds.open_round(job_id=job.pk)
    assert (members(older), members(due)) == ([1, 2], [3, 4])
    assert code(3, older) == "assign.less_time" and code(3, due) == "assign.taken"
    assert f"Job {due.pk} has less time" in Node.objects.get(pk=3).choices[str(older.pk)]["text"]
    assert {lease(node)["order"]["job_id"] for node in fast} == {due.chain_id}


def test_reasons_are_in_the_rounds_plan_and_go_with_the_job(nodes: list[TestNode]) -> None:
    four(nodes)
    job = running(1)
    rounds.open_round(job_id=job.pk)
    plan = round_json(Round.objects.get(job=job, number=0))["plan"]
    assert {row["node_id"]: row["taken"] for row in plan["seating"]} == {1: True, 2: True, 3: False, 4: False}
    assert {row["code"] for row in plan["seating"]} == {"assign.taken", "assign.outbid"}
    Bid.objects.all().delete()
    seats.seat_bidders(job=job)
    assert code(3, job) == "assign.outbid"
    seats.release_seats(chain_id=1)
    assert [node.choices for node in Node.objects.all()] == [{}] * 4
