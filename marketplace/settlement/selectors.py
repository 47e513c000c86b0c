"""Reads of settlement."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils import timezone

from marketplace.chain.services import domain
from marketplace.common.driving import claim
from marketplace.jobs.models import Job
from marketplace.settlement.attestor import Statement
from marketplace.settlement.models import Attestation, AttestorSet, Batch, Closure, Payment
from marketplace.training.models import Audit, Case, Contribution, Round
from trainer.protocol.errors import HyperGPUError

PATIENCE = timedelta(seconds=3)
"""Once a quorum of attestors has done its part, the others get this much longer."""


def payments() -> QuerySet[Payment]:
    return Payment.objects.select_related("contribution__round")


# Attestors and what they sign.


def current_set() -> AttestorSet:
    """Raises HyperGPUError `settlement.no_attestors` before the registry's first epoch."""
    newest = AttestorSet.objects.order_by("-epoch").first()
    if newest is None:
        raise HyperGPUError("settlement.no_attestors", "The registry has begun no epoch: attestors join it, then beginEpoch().")
    return newest


def statement(batch: Batch) -> Statement:
    round_ = batch.round
    return Statement(
        job_id=round_.job.chain_id or 0, round=round_.number, batch=batch.number, last=batch.last, epoch=batch.epoch_id,
        base="0x" + round_.base, receipts=batch.receipts_hash, evidence="0x" + batch.evidence,
    )  # fmt: skip


def fixed(batch: Batch) -> dict[int, str]:
    """The list of commitments that attestors sign, by member; empty until it is fixed."""
    return {int(member): given for member, given in (batch.commitments or {}).items()}


# What `settleRound` takes.


def header(batch: Batch) -> dict[str, Any]:
    said = statement(batch)
    return {
        "jobId": said.job_id, "round": said.round, "batch": said.batch, "last": said.last, "epoch": said.epoch,
        "base": said.base, "evidence": said.evidence,
    }  # fmt: skip


def opened(batch: Batch) -> list[dict[str, Any]]:
    """The fixed list by increasing member; who did not open is named by its bare commitment."""
    rows = {row.member: row for row in Attestation.objects.filter(batch=batch).exclude(signature="")}
    return [
        {"member": member, "salt": rows[member].salt, "scores": "0x" + bytes(rows[member].scores).hex(),
         "signature": rows[member].signature}
        if member in rows
        else {"member": member, "salt": commitment, "scores": "0x", "signature": "0x"}
        for member, commitment in sorted(fixed(batch).items())
    ]  # fmt: skip


def bundle(round_: Round) -> dict[str, Any]:
    """All that a stranger needs to settle the round: the calls of `settleRound` whose attestations are there.

    Raises HyperGPUError `settlement.unknown` while there are none.
    """
    ready = Batch.objects.filter(round=round_).exclude(state__in=[Batch.State.ATTESTING, Batch.State.FAILED])
    batches = list(ready.select_related("round__job").order_by("number"))
    if not batches:
        raise HyperGPUError("settlement.unknown", f"Round {round_.number} has no attested batch yet.")
    where = domain()
    return {
        "chain_id": where.chain_id, "market": where.contract, "job_id": round_.job.chain_id, "round": round_.number,
        "batches": [
            {"header": header(batch), "receipts": "0x" + bytes(batch.packed).hex(), "attestations": opened(batch)}
            for batch in batches
        ],
    }  # fmt: skip


# Rows that should have moved by now.


def stalled_batches() -> Iterable[dict[str, Any]]:
    """Batches whose attestors were asked long ago, counted as asked again."""
    asked = claim(Batch.objects.filter(state=Batch.State.ATTESTING))
    Batch.objects.filter(pk__in=asked).update(drives=F("drives") + 1)
    return [{"batch_id": pk} for pk in asked]


def ripe_batches() -> Iterable[dict[str, Any]]:
    """Batches whose quorum has waited long enough for the rest."""
    ripe = Batch.objects.filter(state=Batch.State.ATTESTING, quorum_at__lt=timezone.now() - PATIENCE)
    return [{"batch_id": pk} for pk in ripe.values_list("pk", flat=True)[:100]]


def due_batches() -> Iterable[dict[str, Any]]:
    """Attested batches that the chain did not take, to be sent again now."""
    due = Batch.objects.filter(state=Batch.State.QUEUED, retry_at__lt=timezone.now())
    return [{"batch_id": pk} for pk in due.values_list("pk", flat=True)[:100]]


def due_epochs() -> Iterable[dict[str, Any]]:
    """The newest epoch, when it is over."""
    newest = AttestorSet.objects.order_by("-epoch").first()
    return [{"epoch": newest.pk}] if newest and newest.over_at < timezone.now() else []


def unbatched_rounds() -> Iterable[dict[str, Any]]:
    """Aggregated rounds whose batches were never built, because the event that asks for them was lost with its worker."""
    return [{"round_id": pk} for pk in claim(Round.objects.filter(state=Round.State.AGGREGATED, batches=None))]


def unsigned_closures() -> Iterable[dict[str, Any]]:
    """Closures that attestors were asked to sign long ago."""
    waiting = claim(Closure.objects.filter(state=Closure.State.SIGNING))
    return [{"job_id": pk} for pk in Closure.objects.filter(pk__in=waiting).values_list("job_id", flat=True)]


def unclosed_jobs() -> Iterable[dict[str, Any]]:
    """Ended jobs whose escrow still waits for its refund."""
    under_way = Closure.objects.filter(state=Closure.State.QUEUED)
    ended = Job.objects.filter(state__in=Job.ENDED, chain_id__isnull=False).exclude(closures__in=under_way)
    return [{"job_id": pk} for pk in claim(ended)]


def convicted() -> QuerySet[Contribution]:
    """Paid contributions that a replay has proven false, and about which no case was promised.

    A receipt that was paid so little that the court would not move anything is left alone: its case would cost the bond.
    """
    proven = Audit.objects.filter(state=Audit.State.FAILED, shadow=False, proven=True)
    tolerance = int(settings.HYPERGPU.deployment["terms"]["court"]["tolerance"])
    paid = Contribution.objects.filter(case=None, payment__quality__gt=tolerance)
    return paid.filter(pk__in=proven.values("contribution"))


def unopened_cases() -> Iterable[dict[str, Any]]:
    """Rounds with such contributions, the newest first: what has waited for long may be past its challenge window."""
    rounds = convicted().order_by("-round").values_list("round", flat=True).distinct()
    return [{"round_id": pk} for pk in rounds[:100]]


def due_cases() -> Iterable[dict[str, Any]]:
    """Cases that the court did not take, to be asked for again now."""
    due = Case.objects.filter(state=Case.State.PROMISED, retry_at__lt=timezone.now())
    return [{"case_id": pk} for pk in due.values_list("pk", flat=True)[:100]]


def open_cases() -> Iterable[dict[str, Any]]:
    """Cases under way whose next step nobody has taken for a while."""
    return [{"case_id": pk} for pk in claim(Case.objects.filter(state__in=Case.UNDER_WAY))]
