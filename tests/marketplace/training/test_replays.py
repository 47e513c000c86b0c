"""A real audit end to end: work with a trace, handed in over HTTP, drawn, answered, computed again."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from marketplace.artifacts import store
from marketplace.jobs.models import Job
from marketplace.training import calibration, selectors, tasks
from marketplace.training.models import Audit, Contribution, Round
from marketplace.training.services import audits, rounds
from tests.marketplace.training.work import commit, hand_in, lease, started, upload, worked
from tests.marketplace.world import TestNode, fund
from trainer.diloco.checkpoint import load_checkpoint
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.round import bench
from trainer.diloco.trace import Contributed, Lead, contribute
from trainer.protocol.orders import WorkOrder, foreseen
from trainer.scoring.evidence import gather_evidence, write_evidence

pytestmark = pytest.mark.django_db


def lazy(leased: dict[str, Any], open_round: Round) -> Contributed:
    """It trains half as fast as it is told to, on purpose: other hyper-parameters than the order's."""
    order = WorkOrder.model_validate(leased["order"])
    changed = order.spec.model_copy(update={"inner": order.spec.inner.model_copy(update={"batch_size": 4})})
    at = bench(selectors.job_work(open_round.job))
    base = load_checkpoint(store.read(order.checkpoint), shapes=at.shapes)
    return contribute(NodeState(changed, at.dataset.info), order.model_copy(update={"spec": changed}), base, at.dataset)


def give(node: TestNode, leased: dict[str, Any], data: bytes) -> None:
    assert commit(node, leased, data).status_code == 200
    assert upload(node, leased, data).status_code == 200
    assert hand_in(node, leased, data).status_code == 200


def test_an_honest_node_passes_and_a_lazy_one_does_not(
    open_round: Round, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "final_block_hash", lambda number: "0x" + "5e" * 32)
    monkeypatch.setattr(audits, "drawn_segments", lambda *_, **__: [0])
    made = {}
    for node, work in zip(nodes, (worked, lambda leased: lazy(leased, open_round)), strict=True):
        leased = lease(node)
        made[node.id] = work(leased)
        give(node, leased, made[node.id].upload)
    for pk in Contribution.objects.values_list("pk", flat=True):
        tasks.check_contribution(pk)
    rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    rounds.mark_settled(round_id=open_round.pk, block=7)
    audits.draw_audits(round_id=open_round.pk)
    for node in nodes:
        asked = lease(node)["audits"][0]
        segment = asked["segment"]
        answer = write_evidence(gather_evidence(made[node.id].trace, segment, before=None))
        assert node.call("PUT", f"/agent/v1/audits/{asked['audit_id']}/evidence", raw=answer).status_code == 200
        tasks.replay_audit(asked["audit_id"])
    honest, cheat = Audit.objects.order_by("node_id")
    assert (honest.state, honest.code, honest.encoding_error) == ("passed", "", 0.0)
    assert honest.error < honest.tolerance / 10
    assert honest.auditor_class.startswith("cpu-")
    assert (cheat.state, cheat.code) == ("failed", "audit.diverged")
    assert cheat.error > 3 * cheat.tolerance
    assert calibration.of("fp32", "cpu").honest == 1


class Ahead:
    """A node of an eager job with what it keeps: it begins its next order from what it guesses of the next version."""

    def __init__(self, node: TestNode, job: Job) -> None:
        self.node, self.at, self.made = node, bench(selectors.job_work(job)), {}
        self.state = NodeState(job.parsed_spec, self.at.dataset.info)
        self.lead: Lead | None = None

    def work(self) -> WorkOrder:
        leased = lease(self.node)
        order = WorkOrder.model_validate(leased["order"])
        base = load_checkpoint(store.read(order.checkpoint), shapes=self.at.shapes)
        assert self.lead is None or self.lead.serves(order)
        made = self.made[order.round] = contribute(self.state, order, base, self.at.dataset, lead=self.lead)
        give(self.node, leased, made.upload)
        return order

    def go_ahead(self, order: WorkOrder, *, elsewhere: float = 0.0) -> None:
        base = load_checkpoint(store.read(order.checkpoint), shapes=self.at.shapes)
        following = foreseen(order)
        assert following is not None
        self.lead = Lead.behind(
            order, following, base=base, upload=self.made[order.round].upload, shapes=self.at.shapes, own=self.state.own
        )  # fmt: skip
        self.lead.trace.base = self.lead.trace.base * (1 + elsewhere)
        self.lead.go_on(partial(run_local_steps, self.state, dataset=self.at.dataset))


def close(round_: Round) -> None:
    for pk in Contribution.objects.filter(round=round_).values_list("pk", flat=True):
        tasks.check_contribution(pk)
    rounds.close_round_if_complete(round_id=round_.pk)
    tasks.aggregate_round(round_.pk)


@pytest.mark.parametrize("turns", [{}, {"fragments": 2, "most_stale": 0}])
def test_work_begun_ahead_passes_and_one_that_began_elsewhere_does_not(
    nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch, turns: dict[str, int]
) -> None:
    monkeypatch.setattr(audits, "final_block_hash", lambda number: "0x" + "5e" * 32)
    monkeypatch.setattr(audits, "drawn_segments", lambda *_, **__: [0])
    spec = {"inner": {"steps": 10, "batch_size": 8}, "rounds": {"rounds": 3, "nodes": 2}, "aggregation": {"gate": False}}
    job = started(fund(spec=spec | {"network": {"overlap": "eager", "policy": "equal", **turns}}))
    workers = [Ahead(node, job) for node in nodes]
    for number in range(2):
        rounds.open_round(job_id=job.pk)
        round_ = Round.objects.get(job=job, number=number)
        for worker, elsewhere in zip(workers, (0.0, 0.5), strict=True):
            order = worker.work()
            if number == 0:
                worker.go_ahead(order, elsewhere=elsewhere)
        close(round_)
    Contribution.objects.filter(round=round_).update(state=Contribution.State.ACCEPTED)
    rounds.mark_settled(round_id=round_.pk, block=7)
    audits.draw_audits(round_id=round_.pk)
    for worker in workers:
        asked = lease(worker.node)["audits"][0]
        answer = write_evidence(gather_evidence(worker.made[1].trace, asked["segment"], before=worker.made[0].trace))
        assert worker.node.call("PUT", f"/agent/v1/audits/{asked['audit_id']}/evidence", raw=answer).status_code == 200
        tasks.replay_audit(asked["audit_id"])
    honest, cheat = Audit.objects.order_by("node_id")
    assert (honest.state, honest.code) == ("passed", "") and honest.error < honest.tolerance / 10
    assert (cheat.state, cheat.code) == ("failed", "audit.diverged")


def test_evidence_that_is_none_fails(open_round: Round, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "final_block_hash", lambda number: "0x" + "5e" * 32)
    monkeypatch.setattr(audits, "drawn_segments", lambda *_, **__: [0])
    leased = lease(nodes[0])
    give(nodes[0], leased, worked(leased).upload)
    Contribution.objects.update(state=Contribution.State.ACCEPTED)
    Round.objects.update(settled_block=7)
    audits.draw_audits(round_id=open_round.pk)
    audit = Audit.objects.get()
    assert nodes[0].call("PUT", f"/agent/v1/audits/{audit.pk}/evidence", raw=b"no states").status_code == 200
    tasks.replay_audit(audit.pk)
    audit.refresh_from_db()
    assert (audit.state, audit.code, audit.shadow) == ("failed", "audit.malformed", True)
