"""Late work: what is still being done when its round closes is carried into the next round that opens.

LEASED or COMMITTED -> LATE at the close -> CARRIED when the next round opens, with a slot of its own there: the same lease goes
on under the same fence, so nothing that the node did, committed or uploaded is asked of it twice. Only its receipt waits for
the new round, whose number and base it names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from django.db.models.functions import Now

from marketplace.jobs.models import Job
from marketplace.training.models import Assignment, Round
from marketplace.training.services.timing import lease_end
from trainer.protocol.errors import HyperGPUError

TOO_STALE = "lease.too_stale"
NO_ROUND = "lease.no_round"
NO_BUDGET = "lease.no_budget"
REFUSALS = (TOO_STALE, NO_ROUND, NO_BUDGET)


def keep_late(round_: Round) -> None:
    """The slots that are being worked on while the round closes become LATE, or EXPIRED with a named reason if no later round
    can take them. Call inside the transaction of the close."""
    working = Assignment.objects.filter(round=round_, state__in=Assignment.LIVE, lease_until__gte=Now())
    for slot in working.select_related("round__job", "origin"):
        why_not = refusal(slot, into=round_.number + 1)
        if why_not is None:
            Assignment.objects.filter(pk=slot.pk).update(state=Assignment.State.LATE)
        else:
            expire(slot, *why_not)


def refusal(slot: Assignment, *, into: int) -> tuple[str, str] | None:
    """Code and text of why round number `into`, and so every later one, must not take this work; None when it may."""
    job = slot.round.job
    spec, began = job.parsed_spec, slot.began.round.number
    if job.state != Job.State.RUNNING or into >= spec.rounds.rounds:
        return NO_ROUND, f"Round {into - 1} does not take this work, and no round follows it."
    if into - began > (most := spec.network.most_stale):
        text = f"Round {into} would be the first to take this work of round {began}: at most {most} rounds late it counts."
        return TOO_STALE, text
    return None


def is_awaited(slot: Assignment) -> bool:
    """Whether its open round waits for it up to the deadline: for work that it was opened for, and for what no later round would
    take. Other late work is carried on, so that one slow node does not make every round as long as its own."""
    is_own = slot.origin is None and slot.rounds == 1
    return is_own or refusal(slot, into=slot.round.number + 1) is not None


def expire(slot: Assignment, code: str, text: str) -> None:
    reasons = [*slot.reasons, {"code": code, "text": text}]
    Assignment.objects.filter(pk=slot.pk, state__in=Assignment.HELD).update(
        state=Assignment.State.EXPIRED, reason=text[:300], reasons=reasons
    )


def waiting(job: Job) -> list[Assignment]:
    """Late slots whose leases are alive, whether or not their nodes have a place in the round that opens now."""
    late = Assignment.objects.filter(round__job=job, state=Assignment.State.LATE, lease_until__gte=Now())
    return list(late.select_related("round__job", "origin").order_by("id"))


def hopeless(slots: Sequence[Assignment], *, number: int, nodes: Collection[int]) -> list[tuple[Assignment, str, str]]:
    """Late slots, with code and text, that neither round `number`, which opens for `nodes`, nor a later one may take. Work whose
    node has no place now is judged by the round after: kept for longer, it would be refused with all that is in its round."""
    found = [(slot, refusal(slot, into=number if slot.node_id in nodes else number + 1)) for slot in slots]
    return [(slot, *why_not) for slot, why_not in found if why_not is not None]


def carry(slot: Assignment, *, into: Round) -> Assignment | None:
    """LATE -> CARRIED, and a slot in round `into` for the same work under the same lease; None when it has moved meanwhile. Call
    inside the transaction that opens the round.

    Raises HyperGPUError `lease.too_stale`, `lease.no_round`: no evidence with such work would be accepted.
    """
    if (why_not := refusal(slot, into=into.number)) is not None:
        raise HyperGPUError(*why_not)
    if not Assignment.objects.filter(pk=slot.pk, state=Assignment.State.LATE).update(state=Assignment.State.CARRIED):
        return None
    slot.refresh_from_db()
    spec, began = into.job.parsed_spec, slot.began.round.number
    late = into.number - began
    share = 100 / (1 + spec.network.stale_discount * late)
    text = f"Work of round {began} that came too late for it: it counts here, each sample for {share:.0f} % of one on time."
    state = Assignment.State.COMMITTED if slot.committed_sha256 else Assignment.State.LEASED
    kept: dict[str, Any] = {
        name: getattr(slot, name)
        for name in (
            "node_id", "shard", "steps", "encoding", "rounds", "fence", "attempt", "leased_at", "committed_sha256",
            "committed_size", "committed_at", "uploaded", "step", "losses", "predicted",
        )
    }  # fmt: skip
    carried = Assignment.objects.create(
        round=into, origin=slot, state=state, reasons=[*slot.reasons, {"code": "late.carried", "text": text}], **kept
    )
    Assignment.objects.filter(pk=carried.pk).update(lease_until=lease_end())
    carried.refresh_from_db()
    return carried


def newest(slot: Assignment) -> Assignment:
    """Where the work of this slot is now."""
    while slot.state == Assignment.State.CARRIED:
        slot = Assignment.objects.select_related("round__job").get(origin=slot)
    return slot
