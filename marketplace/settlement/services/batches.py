"""A batch goes ATTESTING -> QUEUED -> SENT -> INCLUDED -> FINAL. Once attested it is never changed and never attested
anew: what the chain does not take now is sent again as it is."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from marketplace.artifacts import services as artifacts
from marketplace.artifacts.models import Artifact
from marketplace.chain.services import domain, enqueue
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.settlement.models import Attestation, Batch
from marketplace.settlement.selectors import PATIENCE, bundle, current_set, header, opened
from marketplace.settlement.services.payments import create_payments, move_payments, price_payments, tell
from marketplace.training.models import Contribution, Round
from marketplace.training.services import recording
from marketplace.training.services.rounds import record_settlement_bundle
from trainer.protocol.canonical import canonical_bytes
from trainer.protocol.packing import PackedReceipt, median_quality, pack_receipts, receipts_hash, unpack_receipts, unpack_scores

BATCH_RECEIPTS = 300
"""Receipts of one transaction: about 4 million gas."""
MAX_ATTEMPTS = 20
"""A batch that the chain refused this often, over a few hours, is given up."""
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=5), timedelta(minutes=10)


def group_of(chain_job_id: int | None) -> str:
    """Intents of one job are sent in order: a batch must not overtake the one before it."""
    return f"job:{chain_job_id}"


def build_batches(*, round_id: int) -> list[Batch]:
    """The accepted contributions of an aggregated round, packed for attestors, with a payment for each. Idempotent.

    Raises HyperGPUError `settlement.no_attestors`.
    """
    epoch = current_set()
    with transaction.atomic():
        round_ = Round.objects.select_related("job").select_for_update(of=("self",)).get(pk=round_id)
        if standing := list(Batch.objects.filter(round=round_).order_by("number")):
            return standing
        accepted = list(Contribution.objects.filter(round=round_, state=Contribution.State.ACCEPTED).order_by("node_id"))
        parts = [accepted[at : at + BATCH_RECEIPTS] for at in range(0, len(accepted), BATCH_RECEIPTS)] or [[]]
        built = [create_batch(round_, part, number=at, last=at == len(parts) - 1, epoch=epoch) for at, part in enumerate(parts)]
        failed = Batch.objects.filter(round__job=round_.job, round__number__lt=round_.number, state=Batch.State.FAILED)
        if failed.exists():
            fail(built[0], reason="An earlier round could not be settled.")
    return built


def create_batch(round_: Round, contributions: list[Contribution], *, number: int, last: bool, epoch: Any) -> Batch:
    packed = pack_receipts([packed_receipt(contribution) for contribution in contributions])
    batch = Batch.objects.create(
        round=round_, number=number, last=last, epoch=epoch, packed=packed, receipts_hash=receipts_hash(packed),
        evidence=round_.evidence, driven_at=timezone.now(),
        intent_key=f"settle:{domain().contract}:{round_.job.chain_id}:{round_.number}:{number}",
    )  # fmt: skip
    create_payments(batch, contributions)
    tell(batch, "payment.attesting")
    return batch


def packed_receipt(contribution: Contribution) -> PackedReceipt:
    return PackedReceipt(
        node_id=contribution.node_id, units=contribution.units, artifact="0x" + contribution.artifact,
        signature=contribution.signature,
    )  # fmt: skip


def queue_in_order(job_id: int) -> None:
    """Queue the batches of a job that are attested, but none before every earlier one is queued: the chain takes them in
    order, and attestors need not finish in order. Call inside a transaction."""
    batches = Batch.objects.filter(round__job_id=job_id).select_related("round__job", "epoch").order_by("round__number", "number")
    expected = (0, 0)
    for batch in batches:
        if (batch.round.number, batch.number) != expected:
            return
        if batch.state == Batch.State.ATTESTING and not (attested(batch) and queue(batch)):
            return
        expected = (batch.round.number + 1, 0) if batch.last else (batch.round.number, batch.number + 1)


def attested(batch: Batch) -> bool:
    """Whether every attestor of the fixed list has opened, or a quorum has waited for the rest."""
    if batch.commitments is None:
        return False
    opened_ = Attestation.objects.filter(batch=batch).exclude(signature="").count()
    waited = batch.quorum_at is not None and batch.quorum_at <= timezone.now() - PATIENCE
    return opened_ >= batch.epoch.quorum and (opened_ >= len(batch.commitments) or waited)


def queue(batch: Batch) -> bool:
    """ATTESTING -> QUEUED: the scores are known, and with them what everybody earns. False while recordings of the round
    are on their way."""
    if recording.under_way(batch.round, since=batch.created_at):
        return False
    if not Batch.objects.filter(pk=batch.pk, state=Batch.State.ATTESTING).update(state=Batch.State.QUEUED, reason=""):
        return True
    price_payments(batch, median_qualities(batch))
    promise(batch, key=batch.intent_key)
    if batch.last:
        record_settlement_bundle(round_id=batch.round_id, sha256=store_bundle(batch.round))
    move_payments(batch, Batch.State.QUEUED)
    return True


def median_qualities(batch: Batch) -> dict[int, int]:
    """By node id, as the contract computes them from the scores that were opened."""
    rows = Attestation.objects.filter(batch=batch).exclude(signature="")
    columns = zip(*(unpack_scores(bytes(row.scores)) for row in rows), strict=True)
    nodes = [receipt.node_id for receipt in unpack_receipts(bytes(batch.packed))]
    return {node: median_quality(column) for node, column in zip(nodes, columns, strict=True)}


def promise(batch: Batch, *, key: str) -> None:
    args = [header(batch), "0x" + bytes(batch.packed).hex(), opened(batch)]
    enqueue(key=key, function="settleRound", args=args, group=group_of(batch.round.job.chain_id))


def store_bundle(round_: Round) -> str:
    """The round's calls as a public artifact: whoever has it can settle the round."""
    return artifacts.store_bytes(data=canonical_bytes(bundle(round_)), kind=Artifact.Kind.SETTLEMENT, public=True).pk


# What the chain did not take.

PLACE = re.compile(r"UnexpectedBatch\(job_id=\d+, round=(\d+), batch=(\d+), expected_round=(\d+), expected_batch=(\d+)\)")
PASSES = ("UnexpectedBatch", "IsPaused", "InsufficientEscrow")
"""Refusals that time, or more money, cures."""


def retry(batch: Batch, *, reason: str) -> None:
    """The chain refused an attested batch. One that somebody else has settled waits for the log; what will pass is sent
    again later, byte for byte; the rest fails."""
    if settled_by_others(reason):
        Batch.objects.filter(pk=batch.pk).update(state=Batch.State.QUEUED, reason="Somebody else has settled it.", retry_at=None)
        return
    if batch.attempt >= MAX_ATTEMPTS or not reason.startswith(PASSES):
        fail(batch, reason=reason)
        return
    wait = min(FIRST_RETRY * 2**batch.attempt, LONGEST_RETRY)
    Batch.objects.filter(pk=batch.pk).update(
        state=Batch.State.QUEUED, reason=reason[:300], retry_at=timezone.now() + wait, attempt=batch.attempt + 1
    )


def settled_by_others(reason: str) -> bool:
    """Whether the chain is past the batch already."""
    place = PLACE.search(reason)
    if place is None:
        return False
    round_, batch, expected_round, expected_batch = map(int, place.groups())
    return (expected_round, expected_batch) > (round_, batch)


def send_again(*, batch_id: int) -> None:
    """A new promise of the same call."""
    with transaction.atomic():
        batch = Batch.objects.select_related("round__job").select_for_update(of=("self",)).get(pk=batch_id)
        if batch.state != Batch.State.QUEUED or batch.retry_at is None or batch.retry_at > timezone.now():
            return
        stem = batch.intent_key.split("#")[0]
        key = f"{stem}#{batch.attempt}"
        Batch.objects.filter(pk=batch.pk).update(retry_at=None, intent_key=key)
        promise(batch, key=key)


def fail(batch: Batch, *, reason: str) -> None:
    """The chain or the attestors will not have this batch. Later ones cannot settle past it, so they fail with it, and
    the job ends: what is settled stays paid, the rest of the escrow goes back."""
    job_id, number = batch.round.job_id, batch.round.number
    jobs.end(job_id=job_id, state=Job.State.FAILED, reason=f"Round {number} cannot be settled: {reason}")
    later = Q(round__number__gt=number) | Q(round__number=number, number__gte=batch.number)
    doomed = Batch.objects.filter(later, round__job_id=job_id).exclude(state=Batch.State.FINAL)
    for late in doomed.select_related("round__job"):
        Batch.objects.filter(pk=late.pk).update(state=Batch.State.FAILED, reason=reason[:300])
        move_payments(late, Batch.State.FAILED, reason=reason[:300])
