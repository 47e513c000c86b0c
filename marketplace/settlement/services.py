"""Writes of settlement. A batch goes ATTESTING -> QUEUED -> SENT -> INCLUDED -> FINAL; money moves on chain alone."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from eth_account import Account

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.chain.services import domain, enqueue
from marketplace.events.services import emit
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Node
from marketplace.settlement.models import Attestation, Batch, Closure, Payment
from marketplace.settlement.serializers import payment_json
from marketplace.training.models import Contribution, Round
from marketplace.training.services.rounds import mark_settled
from trainer.protocol import eip712
from trainer.protocol.packing import PackedReceipt, pack_receipts, receipts_hash, reward, unpack_receipts
from trainer.protocol.types import JobClosure, RoundAttestation


def intent_key(round_: Round) -> str:
    return f"settle:{domain().contract}:{round_.job.chain_id}:{round_.number}"


def group_of(chain_job_id: int | None) -> str:
    """Intents of one job are sent in order: a round must not overtake the one before it."""
    return f"job:{chain_job_id}"


def build_batch(*, round_id: int) -> Batch:
    """The accepted contributions of an aggregated round, packed for attestors, with a payment for each. Idempotent."""
    round_ = Round.objects.select_related("job").get(pk=round_id)
    accepted = list(Contribution.objects.filter(round=round_, state=Contribution.State.ACCEPTED).order_by("node_id"))
    packed = pack_receipts([settled_receipt(contribution) for contribution in accepted])
    with transaction.atomic():
        batch, created = Batch.objects.get_or_create(
            round=round_,
            defaults={
                "packed": packed,
                "receipts_hash": receipts_hash(packed),
                "evidence": round_.evidence,
                "intent_key": f"settle:{domain().contract}:{round_.job.chain_id}:{round_.number}",
                "driven_at": timezone.now(),
            },
        )
        if not created:
            return batch
        payments = [create_payment(batch, contribution) for contribution in accepted]
        tell(batch, payments, "payment.attesting")
        failed = Batch.objects.filter(round__job=round_.job, round__number__lt=round_.number, state=Batch.State.FAILED)
        if failed.exists():
            fail(batch, reason="An earlier round could not be settled.")
    return batch


def settled_receipt(contribution: Contribution) -> PackedReceipt:
    return PackedReceipt(
        node_id=contribution.node_id, units=contribution.units, artifact="0x" + contribution.artifact,
        signature=contribution.signature,
    )  # fmt: skip


def create_payment(batch: Batch, contribution: Contribution) -> Payment:
    seat = Seat.objects.get(job_id=batch.round.job_id, node_id=contribution.node_id)
    quality = contribution.quality or 0
    amount = reward(units=contribution.units, rate=int(seat.rate), quality=quality)
    return Payment.objects.create(
        contribution=contribution, batch=batch, node_id=contribution.node_id, units=contribution.units, rate=seat.rate,
        quality=quality, amount=amount, operator=Node.objects.get(pk=contribution.node_id).operator_id,
    )  # fmt: skip


def attestation_message(batch: Batch) -> RoundAttestation:
    round_ = batch.round
    return RoundAttestation(
        job_id=round_.job.chain_id or 0, round=round_.number, batch=0, last=True, base="0x" + round_.base,
        receipts=batch.receipts_hash, evidence="0x" + batch.evidence,
    )  # fmt: skip


def record_attestation(*, batch_id: int, attestor: str, signature: str = "", refusal: str = "", quorum: int) -> None:
    """Keep one attestor's word; with a quorum of signatures the batch is queued for the chain. Idempotent."""
    with transaction.atomic():
        batch = Batch.objects.select_related("round__job").select_for_update().get(pk=batch_id)
        Attestation.objects.get_or_create(
            batch=batch, attestor=attestor, defaults={"signature": signature, "refusal": refusal[:300]}
        )
        refused = Attestation.objects.filter(batch=batch, signature="").count()
        if batch.state == Batch.State.ATTESTING and refused > len(settings.HYPERGPU.attestor_keys) - quorum:
            fail(batch, reason=f"Attestor {attestor} refused: {refusal}")
        queue_in_order(batch.round.job_id, quorum=quorum)


def queue_in_order(job_id: int, *, quorum: int) -> None:
    """Queue the batches of a job that have their quorum, but none before every earlier round is queued: the chain takes
    rounds in order, and attestors need not finish in order."""
    batches = Batch.objects.filter(round__job_id=job_id).select_related("round__job").order_by("round__number")
    for number, batch in enumerate(batches):
        signed = sorted(batch.attestations.exclude(signature=""), key=lambda one: int(one.attestor, 16))
        if batch.round.number != number or (batch.state == Batch.State.ATTESTING and len(signed) < quorum):
            return
        if batch.state == Batch.State.ATTESTING:
            queue(batch, signatures=[one.signature for one in signed])


def queue(batch: Batch, *, signatures: list[str]) -> None:
    if not Batch.objects.filter(pk=batch.pk, state=Batch.State.ATTESTING).update(state=Batch.State.QUEUED):
        return
    message = attestation_message(batch)
    enqueue(
        key=batch.intent_key,
        function="settleRound",
        args=[
            message.job_id, message.round, message.batch, message.last, message.base, "0x" + bytes(batch.packed).hex(),
            message.evidence, signatures,
        ],
        group=group_of(message.job_id),
    )  # fmt: skip
    move_payments(batch, Batch.State.QUEUED)


NAMES_NODE = re.compile(r"(?:HotKeyExpired|InvalidReceiptSignature|NotSeated)\(.*?node_id=(\d+)")
MAX_ATTEMPTS = 20


def recover_batch(batch: Batch, *, reason: str) -> None:
    """The chain refused the batch. A node that changed its key or lost its seat is left out, so that the others are paid;
    a round that somebody else has settled, or that the node at hand has not seen yet, is tried again. The rest fails."""
    node = NAMES_NODE.match(reason)
    if batch.attempt >= MAX_ATTEMPTS or not (node or reason.startswith("UnexpectedBatch")):
        fail(batch, reason=reason)
        return
    if node:
        leave_out(batch, node_id=int(node[1]), reason=reason)
    attempt = batch.attempt + 1
    key = f"{intent_key(batch.round)}:{attempt}"
    Batch.objects.filter(pk=batch.pk).update(
        state=Batch.State.ATTESTING, attempt=attempt, intent_key=key, driven_at=timezone.now()
    )
    batch.refresh_from_db()
    move_payments(batch, Batch.State.ATTESTING)


def leave_out(batch: Batch, *, node_id: int, reason: str) -> None:
    """The batch without one node's receipt; attestors sign anew."""
    Payment.objects.filter(batch=batch, node_id=node_id).update(state=Payment.State.FAILED, reason=reason[:300])
    kept = [receipt for receipt in unpack_receipts(bytes(batch.packed)) if receipt.node_id != node_id]
    packed = pack_receipts(kept)
    Batch.objects.filter(pk=batch.pk).update(packed=packed, receipts_hash=receipts_hash(packed))
    Attestation.objects.filter(batch=batch).delete()


def fail(batch: Batch, *, reason: str) -> None:
    """The chain or the attestors will not have this batch. Later rounds cannot settle past it, so they fail with it, and
    the job ends: what is settled stays paid, the rest of the escrow goes back."""
    job_id, number = batch.round.job_id, batch.round.number
    jobs.end(job_id=job_id, state=Job.State.FAILED, reason=f"Round {number} cannot be settled: {reason}")
    doomed = Batch.objects.filter(round__job_id=job_id, round__number__gte=number).exclude(state=Batch.State.FINAL)
    for late in doomed.select_related("round__job"):
        Batch.objects.filter(pk=late.pk).update(state=Batch.State.FAILED, reason=reason[:300])
        move_payments(late, Batch.State.FAILED, reason=reason[:300])


# What becomes of the transaction. Each runs in the transaction of the chain layer that found it out.


def record_intent(intent: Intent) -> None:
    """Follow a settlement's transaction: sent, included or failed. Finality is taken from the event log, not from here."""
    batch = Batch.objects.select_related("round__job").filter(intent_key=intent.key).first()
    if batch is None or batch.state == Batch.State.FINAL:
        return
    now, tx_hash = timezone.now(), intent.tx_hash or ""
    if intent.state == Intent.State.FAILED:
        recover_batch(batch, reason=intent.reason)
    elif intent.state == Intent.State.SENT:
        Batch.objects.filter(pk=batch.pk).update(state=Batch.State.SENT, tx_hash=tx_hash)
        move_payments(batch, Batch.State.SENT, tx_hash=tx_hash, sent_at=now)
    elif intent.state == Intent.State.INCLUDED:
        Batch.objects.filter(pk=batch.pk).update(state=Batch.State.INCLUDED, tx_hash=tx_hash)
        move_payments(batch, Batch.State.INCLUDED, tx_hash=tx_hash, block=intent.block, included_at=now)


def record_settlement(log: LogEntry) -> None:
    """RoundSettled is final: the batch is paid, whoever sent it."""
    of_round = Batch.objects.filter(round__job__chain_id=log.args["job_id"], round__number=log.args["round"])
    batch = of_round.select_related("round__job").first()
    if batch is None:
        return
    Batch.objects.filter(pk=batch.pk).update(state=Batch.State.FINAL, tx_hash=log.tx_hash, reason="")
    move_payments(batch, Batch.State.FINAL, tx_hash=log.tx_hash, block=log.block, final_at=timezone.now(), reason="")
    mark_settled(round_id=batch.round_id)


def move_payments(batch: Batch, state: str, **changes: Any) -> None:
    moving = Payment.objects.filter(batch=batch, node_id__in=[r.node_id for r in unpack_receipts(bytes(batch.packed))])
    moving.exclude(state=Payment.State.FINAL).update(state=state, **changes)
    tell(batch, list(Payment.objects.filter(batch=batch)), f"payment.{state}")


def tell(batch: Batch, payments: list[Payment], type: str) -> None:
    """One event for the job, one for each operator in it."""
    job = batch.round.job
    rows = {payment.operator: [] for payment in payments}  # type: ignore[var-annotated]
    for payment in payments:
        rows[payment.operator].append(payment_json(payment))
    emit(
        type,
        topics=[f"job.{job.pk}", "market"],
        changes={"payments": [p for mine in rows.values() for p in mine]},
        refs={"batch_id": batch.pk},
    )
    for operator, mine in rows.items():
        emit(type, topics=[f"operator.{operator.lower()}"], changes={"payments": mine}, follow=False)


# The end of a job.


def close_if_settled(*, job_id: int) -> None:
    """When a job has ended and each of its rounds is final or lost, attest that and refund the rest. Idempotent."""
    job = Job.objects.get(pk=job_id)
    if job.state not in Job.ENDED or job.chain_id is None:
        return
    rounds = Round.objects.filter(job=job)
    under_way = rounds.exclude(state__in=[Round.State.SETTLED, Round.State.ABANDONED]).exclude(batch__state=Batch.State.FAILED)
    if under_way.exists():
        return
    closure = JobClosure(job_id=job.chain_id, rounds=rounds.filter(state=Round.State.SETTLED).count(), spent=job.spent)
    keys = [key.get_secret_value() for key in settings.HYPERGPU.attestor_keys]
    keys.sort(key=lambda key: int(Account.from_key(key).address, 16))
    signatures = [eip712.sign(domain(), closure, key) for key in keys]
    base = f"close:{domain().contract}:{job.chain_id}:"
    key = f"{base}{Intent.objects.filter(key__startswith=base).count()}"
    with transaction.atomic():
        _, created = Closure.objects.get_or_create(job=job, defaults={"intent_key": key})
        if created:
            args = [job.chain_id, closure.rounds, closure.spent, signatures]
            enqueue(key=key, function="closeJob", args=args, group=group_of(job.chain_id))


def record_failed_closure(intent: Intent) -> None:
    """The chain refused to close the job; the sweep tries again."""
    Closure.objects.filter(intent_key=intent.key).delete()


def attestor_addresses() -> list[str]:
    """The attestors that this coordinator runs."""
    return [Account.from_key(key.get_secret_value()).address for key in settings.HYPERGPU.attestor_keys]
