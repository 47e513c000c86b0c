"""Contributions on chain as they arrive (mode `per-receipt`): one `submitContribution` for each, before anybody judged it."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.chain.services import domain, enqueue
from marketplace.events.services import emit
from marketplace.jobs.models import Seat
from marketplace.training.models import Contribution, Round
from marketplace.training.serializers import contribution_json
from trainer.protocol.packing import PackedReceipt, pack_receipt

WAIT = timedelta(seconds=15)
"""A settlement waits this long for the recordings of its round; later ones are refused by the contract, harmlessly."""
UNSETTLED = (Round.State.OPEN, Round.State.AGGREGATING, Round.State.AGGREGATED)
GOOD = (Contribution.State.RECEIVED, Contribution.State.CHECKED, Contribution.State.ACCEPTED)


def key_of(round_: Round, node: int | str = "") -> str:
    return f"submit:{domain().contract}:{round_.job.chain_id}:{round_.number}:{node}"


def record_on_chain(contribution: Contribution) -> None:
    """Promise the recording of a signed receipt, in the transaction that accepts it. They need no order, so they have no
    group. One that the seat has no place for yet is found later by `unrecorded_contributions`."""
    round_ = contribution.round
    if settings.HYPERGPU.settlement_mode != "per-receipt" or not has_place(contribution):
        return
    line = PackedReceipt(
        node_id=contribution.node_id, units=contribution.units, artifact="0x" + contribution.artifact,
        signature=contribution.signature,
    )  # fmt: skip
    args = [round_.job.chain_id, round_.number, "0x" + round_.base, "0x" + pack_receipt(line).hex()]
    enqueue(key=key_of(round_, contribution.node_id), function="submitContribution", args=args)


def has_place(contribution: Contribution) -> bool:
    """Whether the chain has the node's seat, with no record of an earlier round that is not settled: it holds one at a time."""
    round_, node = contribution.round, contribution.node_id
    free = Seat.objects.filter(job=round_.job, node_id=node, taken=True, recorded_round=None)
    earlier = Round.objects.filter(job=round_.job, number__lt=round_.number, state__in=UNSETTLED).select_related("job")
    standing = Intent.objects.filter(key__in=[key_of(other, node) for other in earlier]).exclude(state=Intent.State.FAILED)
    waiting = Contribution.objects.filter(round__in=earlier, node_id=node, recorded_tx="", state__in=GOOD)
    return free.exists() and not standing.exists() and not waiting.exists()


def under_way(round_: Round, *, since: datetime) -> bool:
    """Whether the round's settlement should still wait for a recording. `since` is when it became ready."""
    if settings.HYPERGPU.settlement_mode != "per-receipt" or since <= timezone.now() - WAIT:
        return False
    accepted = Contribution.objects.filter(round=round_, state=Contribution.State.ACCEPTED)
    keys = [key_of(round_, node) for node in accepted.values_list("node_id", flat=True)]
    done = [Intent.State.INCLUDED, Intent.State.FINAL, Intent.State.FAILED]
    return Intent.objects.filter(key__in=keys, state__in=done).count() < len(keys)


def record_recording(log: LogEntry) -> None:
    """ContributionRecorded is final. Call inside the indexer's transaction."""
    said = log.args
    mine = Contribution.objects.filter(
        round__job__chain_id=said["job_id"], round__number=said["round"], node_id=said["node_id"],
        artifact=said["artifact"].removeprefix("0x"),
    ).select_related("round")  # fmt: skip
    for contribution in mine:
        contribution.recorded_tx, contribution.recorded_at = log.tx_hash, timezone.now()
        contribution.save(update_fields=["recorded_tx", "recorded_at"])
        emit(
            "contribution.recorded",
            topics=[f"job.{contribution.round.job_id}"],
            changes={"contributions": [contribution_json(contribution)]},
            refs={"job_id": contribution.round.job_id},
        )
