"""Leases of assignments. Only the database's clock counts; a fence makes every earlier holder powerless."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from marketplace.chain.services import domain
from marketplace.chain.signer import private_key
from marketplace.common.tasks import each
from marketplace.events.services import emit, gauge
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.training.models import Assignment, Checkpoint, Round
from marketplace.training.serializers import assignment_json
from marketplace.training.services.late import REFUSALS, newest
from marketplace.training.services.rounds import topic_of
from marketplace.training.services.timing import lease_end
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import Origin, SignedOrder, WorkOrder, order_seed, sign_order
from trainer.protocol.spec import EncodingSpec

MAX_ATTEMPTS = 5
"""A slot that was leased this often without a result is given up."""
MAX_LOSSES = 64
"""Points of a training loss curve that are kept for one assignment."""


AT_WORK = (Job.State.RUNNING, Job.State.STOPPED)
"""A stopped job finishes the round that it is in."""


def lease_next(*, node_id: int) -> tuple[Assignment, SignedOrder] | None:
    """The node's next slot under a new fence, or None when there is nothing to do.

    A node that comes back after a crash gets the slot that it held again; its former self holds a stale fence. Its time counts
    from its first lease: asking again just before it commits does not make it fast.
    """
    mine = Assignment.objects.filter(node_id=node_id, round__state=Round.State.OPEN, round__job__state__in=AT_WORK)
    waiting = mine.filter(Q(state=Assignment.State.OPEN) | Q(state__in=Assignment.LIVE), attempt__lt=MAX_ATTEMPTS).order_by(
        "round_id"
    )
    assignment = waiting.select_related("round__job").first()
    if assignment is None:
        return None
    with transaction.atomic():
        taken = Assignment.objects.filter(pk=assignment.pk, fence=assignment.fence, state=assignment.state).update(
            state=Assignment.State.LEASED, fence=F("fence") + 1, attempt=F("attempt") + 1, step=0, losses=[],
            leased_at=Coalesce(F("leased_at"), Now()), lease_until=lease_end(), uploaded=False, committed_sha256="",
        )  # fmt: skip
        if not taken:
            return None
        announce(assignment, "assignment.leased")
    return assignment, signed_order(assignment)


def signed_order(assignment: Assignment) -> SignedOrder:
    """The coordinator's word on what is to be done."""
    return sign_order(domain(), work_order(assignment), private_key(settings.HYPERGPU.coordinator_key))


def work_order(assignment: Assignment) -> WorkOrder:
    """What the node of this slot is to do, or was."""
    round_, began = assignment.round, assignment.began.round
    spec = round_.job.parsed_spec
    return WorkOrder(
        job_id=round_.job.chain_id or 0, node_id=assignment.node_id, fence=assignment.fence,
        deadline=int(round_.deadline.timestamp()), **place_of(round_).model_dump(), shard=assignment.shard,
        shards=spec.rounds.nodes, seed=order_seed(spec, began.number, assignment.shard), steps=assignment.steps,
        encoding=EncodingSpec.model_validate(assignment.encoding), origin=None if began == round_ else place_of(began), spec=spec,
    )  # fmt: skip


def place_of(round_: Round) -> Origin:
    """The round, the model that it starts from and the ways to get there."""
    checkpoint = Checkpoint.objects.get(job=round_.job, number=round_.number)
    before = Checkpoint.objects.filter(job=round_.job, number=round_.number - 1).first() if checkpoint.delta else None
    return Origin(
        round=round_.number, base=round_.base, checkpoint=checkpoint.params, parent=before.version if before else None,
        delta=checkpoint.delta if before else None,
    )  # fmt: skip


def held(*, assignment_id: int, node_id: int, fence: int) -> Assignment:
    """The assignment, if `node_id` holds its lease under `fence`; of work that was carried, the slot where it is now.

    Raises HyperGPUError `assignment.unknown`, `assignment.not_yours`, `lease.stale_fence`, `lease.expired`, or
    for late work that no round takes `lease.too_stale`, `lease.no_round` or `lease.no_budget`.
    """
    assignment = Assignment.objects.select_related("round__job").filter(pk=assignment_id).first()
    if assignment is None:
        raise HyperGPUError("assignment.unknown", f"There is no assignment {assignment_id}.")
    if assignment.node_id != node_id:
        raise HyperGPUError("assignment.not_yours", f"Assignment {assignment_id} belongs to another node.")
    assignment = newest(assignment)
    if assignment.fence != fence:
        raise HyperGPUError("lease.stale_fence", "This slot was leased again since; drop the work and ask for a lease.")
    if not Assignment.objects.filter(pk=assignment.pk, state__in=Assignment.HELD, lease_until__gte=Now()).exists():
        if refused := next((reason for reason in assignment.reasons if reason["code"] in REFUSALS), None):
            raise HyperGPUError(refused["code"], refused["text"])
        raise HyperGPUError("lease.expired", "The lease has ended; drop the work and ask for a lease.")
    return assignment


def renew(*, assignment: Assignment, step: int, losses: list[tuple[int, float]], known: int | None = None) -> dict[str, Any]:
    """A heartbeat: extends the lease, keeps the progress, and says whether to go on. Where the work was carried into another
    slot than the one that the node knows (`known`), the answer holds its lease; until it has been, `late` is true."""
    now = timezone.now()
    seconds = settings.HYPERGPU.lease_seconds
    kept = merge_losses(assignment.losses, losses)
    moved = Assignment.objects.filter(pk=assignment.pk, fence=assignment.fence, state__in=Assignment.HELD).update(
        lease_until=lease_end(), step=max(step, assignment.step), losses=kept
    )
    if step > 0 and assignment.round.job.first_step_at is None:
        jobs.note_first_step(job_id=assignment.round.job_id)
    assignment.refresh_from_db()
    progress = {"assignments": [assignment_json(assignment)]}
    gauge("assignment.progress", topics=[topic_of(assignment.round.job_id)], key=str(assignment.pk), changes=progress)
    round_, is_late = assignment.round, assignment.state == Assignment.State.LATE
    left = round_.job.parsed_spec.rounds.deadline_seconds if is_late else (round_.deadline - now).total_seconds()
    on = bool(moved) and (is_late or round_.state == Round.State.OPEN) and round_.job.state in AT_WORK
    carried = {"lease": lease_json(assignment, signed_order(assignment))} if on and known not in (None, assignment.pk) else {}
    return {
        **carried,
        "late": is_late,
        "cancel": not on,
        "reason": None if on else "round.closed",
        "lease_seconds": seconds,
        "deadline_seconds": max(left, 0.0),
    }


def lease_json(assignment: Assignment, order: SignedOrder) -> dict[str, Any]:
    """A lease as agents read it."""
    seconds = settings.HYPERGPU.lease_seconds
    return {
        "assignment_id": assignment.pk, "fence": assignment.fence, "lease_seconds": seconds,
        "reasons": [reason["text"] for reason in assignment.reasons], **order.as_json(),
    }  # fmt: skip


def merge_losses(known: list[list[float]], new: list[tuple[int, float]]) -> list[list[float]]:
    """Known and new points by step, thinned evenly when there are more than `MAX_LOSSES`."""
    points = sorted(({int(step): loss for step, loss in known} | dict(new)).items())
    while len(points) > MAX_LOSSES:
        points = points[:-1:2] + points[-1:]
    return [[step, loss] for step, loss in points]


def release(*, assignment: Assignment, reason: str) -> None:
    """The node gives its slot back: it could not do the work. Open again for it, until it has failed too often."""
    end_lease(assignment, reason=reason, event="assignment.failed")


def expire_leases() -> int:
    """Take back the slots whose holders fell silent; returns how many."""
    working = Q(state__in=Assignment.LIVE, round__state=Round.State.OPEN) | Q(state=Assignment.State.LATE)
    silent = Assignment.objects.filter(working, lease_until__lt=Now()).select_related("round__job")
    return each(silent, partial(end_lease, reason="The lease ran out without a heartbeat.", event="assignment.expired"))


def end_lease(assignment: Assignment, *, reason: str, event: str) -> bool:
    again = assignment.attempt < MAX_ATTEMPTS and assignment.state != Assignment.State.LATE
    with transaction.atomic():
        moved = Assignment.objects.filter(pk=assignment.pk, fence=assignment.fence, state=assignment.state).update(
            state=Assignment.State.OPEN if again else Assignment.State.FAILED, fence=F("fence") + 1, reason=reason[:300]
        )
        if moved:
            announce(assignment, event)
    return bool(moved)


def announce(assignment: Assignment, type: str) -> None:
    assignment.refresh_from_db()
    emit(
        type,
        topics=[topic_of(assignment.round.job_id)],
        changes={"assignments": [assignment_json(assignment)]},
        refs={"round_id": assignment.round_id},
    )
