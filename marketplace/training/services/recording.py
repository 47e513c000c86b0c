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


def key_of(round_: Round, node: int | str = "") -> str:
    return f"submit:{domain().contract}:{round_.job.chain_id}:{round_.number}:{node}"


def record_on_chain(contribution: Contribution) -> None:
    """Promise the recording of a signed receipt, in the transaction that accepts it. Only nodes whose seat the chain has can
    be recorded; `unrecorded_contributions` finds the others. They need no order, so they have no group."""
    round_ = contribution.round
    if settings.HYPERGPU.settlement_mode != "per-receipt" or not seated(contribution):
        return
    line = PackedReceipt(
        node_id=contribution.node_id, units=contribution.units, artifact="0x" + contribution.artifact,
        signature=contribution.signature,
    )  # fmt: skip
    args = [round_.job.chain_id, round_.number, "0x" + round_.base, "0x" + pack_receipt(line).hex()]
    enqueue(key=key_of(round_, contribution.node_id), function="submitContribution", args=args)


def seated(contribution: Contribution) -> bool:
    return Seat.objects.filter(job_id=contribution.round.job_id, node_id=contribution.node_id, taken=True).exists()


def under_way(round_: Round, *, since: datetime) -> bool:
    """Whether the round's settlement should still wait for a recording. `since` is when it became ready."""
    waiting = Intent.objects.filter(key__startswith=key_of(round_), state__in=[Intent.State.PENDING, Intent.State.SENT])
    return since > timezone.now() - WAIT and waiting.exists()


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
        )
