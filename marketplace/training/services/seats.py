"""Who serves a job: bids are taken, seats follow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.operators import services as operators
from marketplace.operators.models import Bid, Node
from marketplace.operators.selectors import online_since
from marketplace.training.services import planning, sharing

SETTLING = timedelta(minutes=5)
"""What a settlement may take at the worst."""
SHOWN_PASSED = 64
"""Nodes that a round's plan says it has passed over; each node's own row says it too."""


def seat_bidders(*, job: Job, besides: Collection[int] = ()) -> tuple[list[Seat], dict[int, dict[str, Any]]]:
    """Seats for fitting bids of nodes that are online, until the job has as many as it wants (`sharing.choose`) besides some that
    cannot serve now, and by node why it was taken now or passed over."""
    seated = set(online_seats(job).values_list("node_id", flat=True))
    unseated = {node_id: bid for node_id, bid in sharing.open_bids(job).items() if node_id not in seated}
    serving = seated.difference(planning.left_out(job), besides)
    choices = sharing.choose(job, unseated, places=job.parsed_spec.rounds.nodes - len(serving))
    picks = [choice.bid for choice in choices if choice.taken]
    reasons = {choice.bid.node_id: {"taken": choice.taken, **asdict(choice.reason)} for choice in choices}
    with transaction.atomic():
        jobs.seat_nodes(job=job, bids=[as_message(bid) for bid in picks])
        operators.note_choices(job_id=job.pk, choices=reasons)
        for bid in picks:
            operators.join_job(node_id=bid.node_id, job_id=job.pk)
    return list(online_seats(job)), reasons


def release_seats(*, chain_id: int) -> None:
    """A closed job's page no longer follows the nodes, and theirs no longer say why they serve it. Call inside the indexer's
    transaction."""
    for seat in Seat.objects.filter(job__chain_id=chain_id):
        operators.leave_job(node_id=seat.node_id, job_id=seat.job_id)
    for job in Job.objects.filter(chain_id=chain_id):
        operators.forget_job(job_id=job.pk)


def as_message(bid: Bid) -> dict[str, object]:
    return {
        "job_id": bid.chain_job_id, "node_id": bid.node_id, "rate": int(bid.rate), "capacity": bid.capacity,
        "expires_at": int(bid.expires_at.timestamp()), "nonce": bid.nonce, "signature": bid.signature, "bid_id": bid.pk,
    }  # fmt: skip


def online_seats(job: Job):  # type: ignore[no-untyped-def]
    """Seats whose nodes could start now, in the order in which they were taken."""
    # The key must still be good when the round is settled, or the contract would refuse the receipt.
    needed = timezone.now() + timedelta(seconds=2 * job.parsed_spec.rounds.deadline_seconds) + SETTLING
    online = Node.objects.filter(last_seen__gte=online_since(), retired=False, key_expires_at__gt=needed)
    online = online.exclude(suspended_until__gt=timezone.now())
    return Seat.objects.filter(job=job, node_id__in=online.values("pk")).order_by("id")


def seating(choices: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """As the round's plan keeps it: who was taken for it, and the first of those that were passed over for a place."""
    rows = [{"node_id": node, **choice} for node, choice in choices.items() if choice["code"] != sharing.FULL.code]
    return [row for row in rows if row["taken"]] + [row for row in rows if not row["taken"]][:SHOWN_PASSED]


def record_failed_seat(intent: Intent) -> None:
    """A bid could not be taken on chain (cancelled, expired): its seat is free again, and the bid is not tried again."""
    if intent.kind != "takeBids" or intent.reason.startswith("AlreadySeated"):
        return
    _, chain_id, node_id, bid_id = intent.key.split(":")
    for seat in Seat.objects.filter(job__chain_id=int(chain_id), node_id=int(node_id), taken=False):
        operators.leave_job(node_id=seat.node_id, job_id=seat.job_id)
        seat.delete()
    operators.withdraw_bid(bid_id=int(bid_id))
