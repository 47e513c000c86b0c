"""Applying a topic's events to a snapshot gives what fetching again gives, for each thing that can happen to a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.events.models import Event
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.operators import services as operators
from marketplace.settlement import services as settlement
from marketplace.settlement import tasks as settlement_tasks
from marketplace.settlement.models import Batch
from marketplace.training import tasks
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.services import leases, rounds
from tests.marketplace.training.conftest import job, nodes, open_round  # noqa: F401
from tests.marketplace.training.work import commit, contribute, lease, train
from tests.marketplace.world import TestNode

pytestmark = pytest.mark.django_db
LISTS = ("rounds", "assignments", "contributions", "nodes", "payments")
GAUGES = {"last_seen", "rtt"}
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
    rounds.open_round(job_id=job.pk)
    round_ = Round.objects.get(job=job)
    jobs.note_first_step(job_id=job.pk)
    for node in nodes:
        contribute(node)
    for pk in Contribution.objects.values_list("pk", flat=True):
        tasks.check_contribution(pk)
    rounds.close_round_if_complete(round_id=round_.pk)
    tasks.aggregate_round(round_.pk)
    batch = settlement.build_batch(round_id=round_.pk)
    settlement_tasks.attest(batch.pk)
    for state in ("sent", "included"):
        settlement.record_intent(Intent(key=batch.intent_key, state=state, tx_hash="0x" + "ab" * 32, block=7))
    for payment in batch.payments.all():
        operators.record_earning(node_id=payment.node_id, units=payment.units, amount=int(payment.amount))
    jobs.record_spending(chain_id=1, amount=5)
    args = {"job_id": 1, "round": 0}
    settlement.record_settlement(
        LogEntry(name="RoundSettled", args=args, block=9, block_hash="", tx_hash="0x" + "ab" * 32, log_index=0, timestamp=0)
    )
    assert {
        "round.opened", "assignment.leased", "assignment.committed", "contribution.received", "contribution.checked",
        "round.closed", "round.aggregated", "payment.attesting", "payment.queued", "payment.sent", "payment.included",
        "payment.final", "round.settled", "node.changed", "job.changed",
    } <= watching()  # fmt: skip


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
    Round.objects.filter(pk=round_.pk).update(deadline=timezone.now())
    rounds.close_round_if_complete(round_id=round_.pk)
    jobs.end(job_id=job.pk, state=Job.State.FAILED, reason="It cannot be paid.")
    rounds.close_round_if_complete(round_id=round_.pk)
    jobs.record_closing(chain_id=1, refund=7)
    assert {
        "contribution.rejected", "assignment.failed", "assignment.expired", "round.extended", "job.failed", "round.abandoned",
        "job.closed",
    } <= watching()  # fmt: skip
    assert not Batch.objects.exists()
