"""What becomes of settlements on chain. Each runs in the transaction of the chain layer that found it out."""

from __future__ import annotations

from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.common.times import from_unix
from marketplace.events.services import emit
from marketplace.settlement.models import Batch, Pause, Payment
from marketplace.settlement.selectors import payments
from marketplace.settlement.serializers import payment_json
from marketplace.settlement.services.batches import retry
from marketplace.settlement.services.payments import move_payments, tell
from marketplace.training.models import Round
from marketplace.training.services.rounds import mark_settled


def record_pause(*, new_jobs_until: int, settlement_until: int) -> None:
    until = {"new_jobs_until": from_unix(new_jobs_until), "settlement_until": from_unix(settlement_until)}
    Pause.objects.update_or_create(pk=1, defaults=until)


def record_unpause() -> None:
    Pause.objects.all().delete()


def record_intent(intent: Intent) -> None:
    """Follow a settlement's transaction: sent, included or failed. Finality is taken from the event log, not from here."""
    batch = Batch.objects.select_related("round__job").filter(intent_key=intent.key).first()
    if batch is None or batch.state in (Batch.State.FINAL, Batch.State.FAILED):
        return
    now, tx_hash = timezone.now(), intent.tx_hash or ""
    if intent.state == Intent.State.FAILED:
        retry(batch, reason=intent.reason)
    elif intent.state == Intent.State.SENT:
        Batch.objects.filter(pk=batch.pk).update(state=Batch.State.SENT, tx_hash=tx_hash)
        move_payments(batch, Batch.State.SENT, tx_hash=tx_hash, sent_at=now)
    elif intent.state == Intent.State.INCLUDED:
        Batch.objects.filter(pk=batch.pk).update(state=Batch.State.INCLUDED, tx_hash=tx_hash)
        move_payments(batch, Batch.State.INCLUDED, tx_hash=tx_hash, block=intent.block, included_at=now)


def show_recording(log: LogEntry) -> None:
    """ContributionRecorded of a receipt that has a payment already."""
    said = log.args
    mine = payments().filter(
        contribution__round__job__chain_id=said["job_id"], contribution__round__number=said["round"], node_id=said["node_id"]
    )
    for payment in mine:
        job_id = payment.contribution.round.job_id
        emit("payment.recorded", topics=[f"job.{job_id}"], changes={"payments": [payment_json(payment)]})


def record_payment(log: LogEntry) -> None:
    """ContributionSettled: the chain's word on one receipt, whoever brought it. Told with its batch."""
    said = log.args
    mine = Payment.objects.filter(
        contribution__round__job__chain_id=said["job_id"], contribution__round__number=said["round"], node_id=said["node_id"]
    )
    mine.update(
        state=Payment.State.FINAL, quality=said["quality"], amount=said["amount"], tx_hash=log.tx_hash, block=log.block,
        final_at=timezone.now(), reason="",
    )  # fmt: skip


def record_settlement(log: LogEntry) -> None:
    """RoundSettled is final: the batch is paid, whoever sent it. A receipt of ours that it did not pay is lost."""
    of_round = Batch.objects.filter(round__job__chain_id=log.args["job_id"], round__number=log.args["round"])
    batch = of_round.filter(number=log.args["batch"]).select_related("round__job").first()
    if batch is not None:
        Batch.objects.filter(pk=batch.pk).update(state=Batch.State.FINAL, tx_hash=log.tx_hash, reason="", retry_at=None)
        left_out = Payment.objects.filter(batch=batch).exclude(state=Payment.State.FINAL)
        left_out.update(state=Payment.State.FAILED, reason="The batch that was settled does not hold it.")
        tell(batch, "payment.final")
    if log.args["last"]:
        round_ = Round.objects.filter(job__chain_id=log.args["job_id"], number=log.args["round"]).first()
        if round_ is not None:
            mark_settled(round_id=round_.pk, block=log.block)
