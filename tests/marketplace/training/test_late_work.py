"""Work that misses its round's close counts in the next one: leased once, trained once, uploaded once, and weighed less."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from marketplace.artifacts import pieces, store
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.operators.models import Node
from marketplace.training import engine, selectors, tasks
from marketplace.training.models import Assignment, Audit, Checkpoint, Contribution, Round
from marketplace.training.services import audits, late, leases, planning, rounds
from tests.marketplace.training.test_pieces import held, piece_of, send
from tests.marketplace.training.work import commit, contribute, hand_in, lease, overdue, path, started, train, upload, worked
from tests.marketplace.world import TestNode, fund
from trainer.diloco.evidence import check_chain, check_outcome, round_work
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.scoring.evidence import gather_evidence, write_evidence

pytestmark = pytest.mark.django_db
LONGER = {"rounds": {"rounds": 6, "nodes": 2, "quorum": 1, "deadline_seconds": 60}}


@pytest.fixture
def job(nodes: list[TestNode]) -> Job:
    return started(fund(spec=LONGER))


def close_without(late: TestNode, others: list[TestNode], job: Job) -> Round:
    """The round ends at its deadline with the others' work; the next one has opened. The round that ended."""
    round_ = Round.objects.filter(job=job).latest("number")
    for node in others:
        contribute(node)
    for pk in Contribution.objects.filter(round=round_).values_list("pk", flat=True):
        tasks.check_contribution(pk)
    overdue()
    assert rounds.close_round_if_complete(round_id=round_.pk)
    tasks.aggregate_round(round_.pk)
    rounds.open_round(job_id=job.pk)
    round_.refresh_from_db()
    return round_


def finish(job: Job) -> Round:
    round_ = Round.objects.filter(job=job).latest("number")
    for pk in Contribution.objects.filter(round=round_).values_list("pk", flat=True):
        tasks.check_contribution(pk)
    assert rounds.close_round_if_complete(round_id=round_.pk)
    tasks.aggregate_round(round_.pk)
    round_.refresh_from_db()
    return round_


def beat(node: TestNode, leased: dict[str, Any]) -> Any:
    return node.call("POST", path(leased, "heartbeat"), {"fence": leased["fence"], "step": 2, "steps": 4})


def document(round_: Round) -> dict[str, Any]:
    return json.loads(store.read(round_.evidence))  # type: ignore[no-any-return]


def test_late_work_counts_in_the_next_round_and_weighs_less(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    data = train(leased)
    close_without(slow, [punctual], job)
    answer = beat(slow, leased).json()
    assert not answer["cancel"]
    carried, order = answer["lease"], WorkOrder.model_validate(answer["lease"]["order"])
    assert (order.round, order.origin.round, order.steps) == (1, 0, leased["order"]["steps"])
    assert order.as_trained == WorkOrder.model_validate(leased["order"]).model_copy(update={"deadline": order.deadline})
    assert order.base != leased["order"]["base"], "the receipt names the new round's base"
    # Commitment and upload may go to the slot that the agent knows; only the receipt must be for the new one.
    assert commit(slow, leased, data).status_code == upload(slow, leased, data).status_code == 200
    refused = hand_in(slow, leased, data)
    assert (refused.status_code, refused.json()["code"]) == (409, "order.late")
    assert hand_in(slow, carried, data).status_code == 200
    contribute(punctual)
    ended = finish(job)
    late, usual = (Contribution.objects.get(round=ended, node_id=node.id) for node in (slow, punctual))
    assert late.state == usual.state == Contribution.State.ACCEPTED
    assert (late.units, late.assignment.origin.round.number) == (usual.units, 0)
    assert late.weight == pytest.approx(usual.weight / (1 + job.parsed_spec.network.stale_discount))


def test_an_attestor_and_a_stranger_compute_the_round_with_late_work_again(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    before = close_without(slow, [punctual], job)
    carried = beat(slow, leased).json()["lease"]
    data = train(leased)
    commit(slow, carried, data)
    upload(slow, carried, data)
    hand_in(slow, carried, data)
    contribute(punctual)
    ended = finish(job)
    work = selectors.job_work(job)
    said = document(ended)
    assert [entry["origin"] for entry in said["contributions"]] == [0, None]
    check_chain(said, document(before), work)
    again = round_work(said, work, store.read)
    check_outcome(again, said)
    assert again.submissions == selectors.round_work(ended).submissions
    points = {verdict.node_id: verdict.quality for verdict in engine.judge_round(again)}
    assert points == dict(Contribution.objects.filter(round=ended).values_list("node_id", "quality"))


def test_who_was_late_is_told_the_outer_steps_that_it_has_missed_and_is_planned_to_fetch_them(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    data = train(leased)
    close_without(slow, [punctual], job)
    carried = beat(slow, leased).json()["lease"]
    assert "steps" not in carried, "it has its base already"
    for verb in (commit, upload, hand_in):
        assert verb(slow, carried, data).status_code == 200
    contribute(punctual)
    finish(job)
    rounds.open_round(job_id=job.pk)
    first, second = Checkpoint.objects.filter(job=job, number__in=(1, 2)).order_by("number")
    job.refresh_from_db()
    fetched = planning.to_fetch(job, planning.histories(job, [punctual.id, slow.id]))
    assert fetched == {punctual.id: second.delta_size, slow.id: first.delta_size + second.delta_size}
    told = lease(slow)
    assert told["steps"] == [
        {"parent": leased["order"]["base"], "delta": first.delta}, {"parent": first.version, "delta": second.delta},
    ]  # fmt: skip
    assert "steps" not in lease(punctual)
    Checkpoint.objects.filter(job=job).update(delta_size=10**6)  # more than the checkpoint
    whole = planning.to_fetch(job, planning.histories(job, [slow.id]))[slow.id]
    assert whole == len(store.read(second.params)) < 10**6
    assert "steps" not in lease(slow)


def test_what_was_committed_and_uploaded_before_the_close_is_not_asked_for_again(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    data = train(leased)
    commit(slow, leased, data)
    upload(slow, leased, data)
    close_without(slow, [punctual], job)
    carried = beat(slow, leased).json()["lease"]
    assert hand_in(slow, carried, data).status_code == 200


def test_pieces_that_came_before_the_close_are_not_asked_for_again(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    """Nor do those that come in between, to the slot that the agent still knows, count for nothing."""
    punctual, slow = nodes
    leased = lease(slow)
    data = train(leased)
    commit(slow, leased, data)
    send(slow, leased, piece_of(data, 3, 0), 3, 0)
    close_without(slow, [punctual], job)
    send(slow, leased, piece_of(data, 3, 2), 3, 2)
    carried = beat(slow, leased).json()["lease"]
    assert held(slow, carried, 3) == {"held": [0, 2], "whole": False}
    assert send(slow, carried, piece_of(data, 3, 1), 3, 1).json() == {"whole": True}
    assert hand_in(slow, carried, data).status_code == 200


def test_a_piece_under_way_while_its_work_is_carried_and_made_whole_leaves_nothing(
    open_round: Round, nodes: list[TestNode], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    data = train(leased)
    commit(slow, leased, data)
    send(slow, leased, piece_of(data, 2, 0), 2, 0)
    store_piece = pieces.keep

    def overtaken(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(pieces, "keep", store_piece)
        close_without(slow, [punctual], job)
        assert send(slow, beat(slow, leased).json()["lease"], piece_of(data, 2, 1), 2, 1).json() == {"whole": True}
        store_piece(*args, **options)

    monkeypatch.setattr(pieces, "keep", overtaken)
    assert send(slow, leased, piece_of(data, 2, 1), 2, 1).json() == {"whole": True}
    assert not list((settings.HYPERGPU.state_dir / "artifacts" / "pieces").iterdir())
    assert hand_in(slow, beat(slow, leased).json()["lease"], data).status_code == 200


def test_between_two_rounds_late_work_goes_on_and_waits(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    contribute(punctual)
    tasks.check_contribution(Contribution.objects.get().pk)
    overdue()
    rounds.close_round_if_complete(round_id=open_round.pk)
    answer = beat(slow, leased).json()
    assert (answer["cancel"], answer["late"], "lease" in answer) == (False, True, False)
    data = train(leased)
    assert commit(slow, leased, data).status_code == upload(slow, leased, data).status_code == 200
    assert hand_in(slow, leased, data).json()["code"] == "order.late"
    tasks.aggregate_round(open_round.pk)
    rounds.open_round(job_id=job.pk)
    assert hand_in(slow, beat(slow, leased).json()["lease"], data).status_code == 200


def test_late_work_is_carried_on_until_it_is_too_stale_and_then_refused_by_name(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    most = job.parsed_spec.network.most_stale
    for number in range(1, most + 1):
        close_without(slow, [punctual], job)
        assert beat(slow, leased).json()["lease"]["order"]["round"] == number
    close_without(slow, [punctual], job)
    refused = beat(slow, leased)
    assert (refused.status_code, refused.json()["code"]) == (409, "lease.too_stale")
    slot = Assignment.objects.filter(node_id=slow.id, round__number=most).get()
    assert slot.state == Assignment.State.EXPIRED
    assert slot.reasons[-1]["code"] == "lease.too_stale"
    assert lease(slow)["order"]["round"] == most + 1, "the node has a place in the round that is open"


def suspend(node: TestNode, *, on: bool) -> None:
    Node.objects.filter(pk=node.id).update(suspended_until=timezone.now() + timedelta(hours=1) if on else None)


def test_late_work_waits_for_its_node_to_have_a_place_no_longer_than_it_counts(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    """Otherwise a round takes it whose evidence nobody accepts, and nobody in it is paid."""
    punctual, slow = nodes
    leased = lease(slow)
    suspend(slow, on=True)
    most = job.parsed_spec.network.most_stale
    for _ in range(most - 1):
        close_without(slow, [punctual], job)
        assert beat(slow, leased).json()["late"]
    before = close_without(slow, [punctual], job)
    refused = beat(slow, leased)
    assert (refused.status_code, refused.json()["code"]) == (409, "lease.too_stale")
    slot = Assignment.objects.get(pk=leased["assignment_id"])
    assert (slot.state, slot.reasons[-1]["code"]) == (Assignment.State.EXPIRED, "lease.too_stale")
    assert Node.objects.get(pk=slow.id).working_on is None
    suspend(slow, on=False)
    before = close_without(slow, [punctual], job)
    assert lease(slow)["order"]["origin"] is None
    contribute(slow)
    contribute(punctual)
    check_chain(document(finish(job)), document(before), selectors.job_work(job))


def test_late_work_is_carried_when_its_node_has_a_place_again_in_time(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    suspend(slow, on=True)
    close_without(slow, [punctual], job)
    suspend(slow, on=False)
    close_without(slow, [punctual], job)
    order = beat(slow, leased).json()["lease"]["order"]
    assert (order["round"], order["origin"]["round"]) == (2, 0)


def test_the_last_round_refuses_late_work_whose_node_has_no_place_in_it(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    leased = lease(nodes[1])
    slot = Assignment.objects.select_related("round__job").get(pk=leased["assignment_id"])
    last = job.parsed_spec.rounds.rounds - 1
    Round.objects.filter(pk=open_round.pk).update(number=last - 1)
    slot.round.refresh_from_db()
    assert [code for _, code, _ in late.hopeless([slot], number=last, nodes=[nodes[0].id])] == ["lease.no_round"]
    assert late.hopeless([slot], number=last, nodes=[nodes[1].id]) == []


def test_nothing_is_carried_that_would_be_too_stale(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    leased = lease(nodes[1])
    Assignment.objects.filter(pk=leased["assignment_id"]).update(state=Assignment.State.LATE)
    slot = Assignment.objects.select_related("round__job").get(pk=leased["assignment_id"])
    far = Round.objects.create(job=job, number=job.parsed_spec.network.most_stale + 1, base="0" * 64, deadline=timezone.now())
    with pytest.raises(HyperGPUError) as refused:
        late.carry(slot, into=far)
    assert refused.value.code == "lease.too_stale"
    slot.refresh_from_db()
    assert slot.state == Assignment.State.LATE


def test_a_node_that_fell_silent_is_not_carried(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    punctual, slow = nodes
    leased = lease(slow)
    Assignment.objects.filter(node_id=slow.id).update(lease_until=timezone.now() - timedelta(seconds=1))
    close_without(slow, [punctual], job)
    assert Assignment.objects.get(node_id=slow.id, round=open_round).state == Assignment.State.EXPIRED
    assert lease(slow)["order"]["origin"] is None
    assert beat(slow, leased).json()["code"] == "lease.expired"


def test_late_work_whose_node_falls_silent_between_rounds_expires(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    lease(nodes[1])
    contribute(nodes[0])
    tasks.check_contribution(Contribution.objects.get().pk)
    overdue()
    rounds.close_round_if_complete(round_id=open_round.pk)
    slot = Assignment.objects.get(node_id=nodes[1].id)
    assert slot.state == Assignment.State.LATE
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert leases.expire_leases() == 1
    slot.refresh_from_db()
    assert slot.state == Assignment.State.FAILED


def test_the_last_round_leaves_nothing_to_carry_into(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    leased = lease(nodes[1])
    Round.objects.filter(pk=open_round.pk).update(number=5)
    contribute_last(nodes[0], open_round)
    assert Assignment.objects.get(node_id=nodes[1].id).reasons[-1]["code"] == "lease.no_round"
    assert beat(nodes[1], leased).json()["code"] == "lease.no_round"


def contribute_last(node: TestNode, round_: Round) -> None:
    Checkpoint.objects.update(number=5)
    contribute(node)
    tasks.check_contribution(Contribution.objects.get().pk)
    overdue()
    assert rounds.close_round_if_complete(round_id=round_.pk)


def test_a_node_that_crashed_gets_its_late_work_again_as_it_was_first_ordered(
    open_round: Round, nodes: list[TestNode], job: Job
) -> None:
    punctual, slow = nodes
    first = lease(slow)
    close_without(slow, [punctual], job)
    again = lease(slow)
    ordered, known = WorkOrder.model_validate(again["order"]), WorkOrder.model_validate(first["order"])
    same = {"fence": known.fence, "deadline": known.deadline}
    assert ordered.origin is not None
    assert ordered.as_trained.model_copy(update=same) == known
    assert beat(slow, first).json()["code"] == "lease.stale_fence"


def test_an_audit_of_late_work_replays_the_order_as_it_was_trained(
    open_round: Round, nodes: list[TestNode], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "final_block_hash", lambda number: "0x" + "5e" * 32)
    monkeypatch.setattr(audits, "drawn_segments", lambda *_, **__: [0])
    punctual, slow = nodes
    leased = lease(slow)
    close_without(slow, [punctual], job)
    carried = beat(slow, leased).json()["lease"]
    data = train(leased)
    commit(slow, carried, data)
    upload(slow, carried, data)
    hand_in(slow, carried, data)
    contribute(punctual)
    ended = finish(job)
    Round.objects.filter(job=job).update(settled_block=7, state=Round.State.SETTLED)
    audits.draw_audits(round_id=ended.pk)
    asked = Audit.objects.get(node_id=slow.id)
    answer = write_evidence(gather_evidence(worked(leased).trace, 0, before=None))
    assert slow.call("PUT", f"/agent/v1/audits/{asked.pk}/evidence", raw=answer).status_code == 200
    tasks.replay_audit(asked.pk)
    asked.refresh_from_db()
    assert (asked.state, asked.code) == ("passed", "")


def test_a_stopped_job_does_not_keep_late_work(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    leased = lease(nodes[1])
    contribute(nodes[0])
    tasks.check_contribution(Contribution.objects.get().pk)
    jobs.end(job_id=job.pk, state=Job.State.STOPPED, reason="Stopped by its requester.")
    overdue()
    assert rounds.close_round_if_complete(round_id=open_round.pk)
    assert beat(nodes[1], leased).json()["code"] == "lease.no_round"
