"""Applying a topic's events to a snapshot gives what fetching again gives, for each thing that can happen to a job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.events.models import Event
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.operators import services as operators
from marketplace.settlement.models import Batch
from marketplace.settlement.services import batches, finality
from marketplace.training import tasks
from marketplace.training.models import Assignment, Audit, Contribution, Round
from marketplace.training.services import audits, leases, recording, rounds
from tests.marketplace.training.conftest import job, nodes, open_round  # noqa: F401
from tests.marketplace.training.work import commit, contribute, lease, train
from tests.marketplace.world import TestNode, attest, begin_epoch
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.rounds import AuditVerdict

pytestmark = pytest.mark.django_db
TX = "0x" + "ab" * 32
LISTS = ("rounds", "assignments", "contributions", "nodes", "payments", "audits")
GAUGES = {"last_seen", "measured"}
"""Values that travel as gauges: newest wins, none is replayed."""


def fetch(job_id: int) -> dict[str, Any]:
    return dict(Client().get(f"/api/v1/jobs/{job_id}").json())


def apply(snapshot: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The page's one rule: replace rows by id."""
    after = dict(snapshot)
    if "job" in changes:
        after["job"] = changes["job"]
    for name in LISTS:
        rows = {row["id"]: row for row in after[name]} | {row["id"]: row for row in changes.get(name, [])}
        after[name] = list(rows.values())
    return after


def comparable(snapshot: dict[str, Any]) -> dict[str, Any]:
    lists = {
        name: sorted(({k: v for k, v in row.items() if k not in GAUGES} for row in snapshot[name]), key=lambda row: row["id"])
        for name in LISTS
    }
    return {"job": snapshot["job"], **lists}


def log(name: str, **args: Any) -> LogEntry:
    return LogEntry(name=name, args=args, block=9, block_hash="", tx_hash=TX, log_index=0, timestamp=0)


@pytest.fixture
def watching(job: Job) -> Callable[[], set[str]]:  # noqa: F811
    """Snapshot now; calling the fixture applies what has happened since, compares, and returns the types of the events."""
    before = fetch(job.pk)

    def compare() -> set[str]:
        after = before
        events = list(Event.objects.filter(stream__topic=f"job.{job.pk}", seq__gt=before["stream"]["seq"]).order_by("seq"))
        for event in events:
            after = apply(after, event.changes)
        now = fetch(job.pk)
        assert comparable(after) == comparable(now)
        assert events[-1].seq == now["stream"]["seq"]
        return {event.type for event in events}

    return compare


def test_a_round_from_opening_to_the_last_payment(
    watching: Callable[[], set[str]],
    job: Job,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
) -> None:
    begin_epoch()
    rounds.open_round(job_id=job.pk)
    round_ = Round.objects.get(job=job)
    jobs.note_first_step(job_id=job.pk)
    for node in nodes:
        contribute(node)
    for pk in Contribution.objects.values_list("pk", flat=True):
        tasks.check_contribution(pk)
    rounds.close_round_if_complete(round_id=round_.pk)
    tasks.aggregate_round(round_.pk)
    tasks.evaluate_round(round_.pk)
    (batch,) = batches.build_batches(round_id=round_.pk)
    recorded = Contribution.objects.first()
    said = {"job_id": 1, "round": 0, "node_id": recorded.node_id, "artifact": "0x" + recorded.artifact}
    for record in (recording.record_recording, finality.show_recording):
        record(log("ContributionRecorded", **said))
    attest(batch)
    for state in ("sent", "included"):
        finality.record_intent(Intent(key=batch.intent_key, state=state, tx_hash=TX, block=7))
    for payment in batch.payments.all():
        said = {"units": payment.units, "quality": payment.quality, "amount": int(payment.amount)}
        operators.record_earning(node_id=payment.node_id, **said)
        finality.record_payment(log("ContributionSettled", job_id=1, round=0, node_id=payment.node_id, **said))
    operators.announce_earnings()
    jobs.record_spending(chain_id=1, amount=5)
    finality.record_settlement(log("RoundSettled", job_id=1, round=0, batch=0, last=True))
    rounds.record_acceptance(chain_id=1, round=0)
    operators.record_award(node_id=1, amount=3)
    operators.record_slashing(node_id=1, from_credit=2, from_stake=1)
    jobs.record_restitution(chain_id=1, amount=9)
    assert {
        "round.opened", "assignment.leased", "assignment.committed", "contribution.received", "contribution.checked",
        "round.closed", "round.aggregated", "round.evaluated", "payment.attesting", "payment.queued", "payment.sent",
        "payment.included", "payment.final", "payment.recorded", "contribution.recorded", "batch.committed",
        "round.attested", "round.settled", "round.accepted", "node.changed", "job.changed",
    } <= watching()  # fmt: skip


def test_audits_from_the_draw_to_the_verdict(
    watching: Callable[[], set[str]],
    job: Job,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audits, "final_block_hash", lambda number: "0x" + "5e" * 32)
    monkeypatch.setattr(tasks.replay_audit, "delay", lambda **refs: None)
    monkeypatch.setattr(audits, "drawn_segments", lambda *_, **__: [0])
    rounds.open_round(job_id=job.pk)
    round_ = Round.objects.get(job=job)
    for node in nodes:
        contribute(node)
    for pk in Contribution.objects.values_list("pk", flat=True):
        tasks.check_contribution(pk)
    rounds.close_round_if_complete(round_id=round_.pk)
    tasks.aggregate_round(round_.pk)
    rounds.mark_settled(round_id=round_.pk, block=1)
    audits.draw_audits(round_id=round_.pk)
    answered, silent = Audit.objects.all()
    audits.accept_evidence(audit=answered, chunks=[b"states"], sha256=sha256_hex(b"states"), size=6)
    audits.record_verdict(audit_id=answered.pk, found=AuditVerdict(verdict="failed", auditor_class="cpu", error=0.5))
    Audit.objects.filter(pk=silent.pk).update(deadline=timezone.now())
    audits.expire()
    with transaction.atomic():
        audits.punish(answered, reason="it gave something else.")
    assert {"audit.requested", "audit.answered", "audit.judged", "audit.unanswered", "node.suspended"} <= watching()


def test_refusals_expiries_and_the_end(
    watching: Callable[[], set[str]],
    job: Job,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
) -> None:
    rounds.open_round(job_id=job.pk)
    round_ = Round.objects.get(job=job)
    contribute(nodes[0], b"not a tensor file at all")
    tasks.check_contribution(Contribution.objects.get().pk)
    held = lease(nodes[1])
    leases.release(assignment=Assignment.objects.get(pk=held["assignment_id"]), reason="no memory")
    lease(nodes[1])
    Assignment.objects.filter(node_id=2).update(lease_until=timezone.now())
    leases.expire_leases()
    again = lease(nodes[1])
    commit(nodes[1], again, train(again))
    Round.objects.filter(pk=round_.pk).update(deadline=timezone.now(), opened_at=timezone.now() - timedelta(days=1))
    rounds.close_round_if_complete(round_id=round_.pk)
    jobs.note_runway(job=job, runway=0, needed=2)
    jobs.pause(job_id=job.pk, shortfall=7)
    jobs.resume(job_id=job.pk)
    jobs.end(job_id=job.pk, state=Job.State.FAILED, reason="It cannot be paid.")
    rounds.close_round_if_complete(round_id=round_.pk)
    jobs.record_closing(chain_id=1, refund=7)
    assert {
        "contribution.rejected", "assignment.failed", "assignment.expired", "round.extended", "job.failed", "round.abandoned",
        "job.closed", "job.runway_low", "job.paused", "job.resumed",
    } <= watching()  # fmt: skip
    assert not Batch.objects.exists()
