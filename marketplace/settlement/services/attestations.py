"""Commit, fix, open: no attestor sees another's scores before the list of all commitments is fixed and signed."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from marketplace.chain.services import domain
from marketplace.events.services import emit
from marketplace.settlement.models import Attestation, Batch
from marketplace.settlement.selectors import PATIENCE, current_set, fixed, statement
from marketplace.settlement.services import batches
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import PACKED_BYTES, commitment, commitments_hash, unpack_scores

MAX_DRIVES = 30
"""A batch that so many attestors refuse that there is no quorum is tried again this often (every `driving.STALL`)."""


def locked(batch_id: int) -> Batch:
    return Batch.objects.select_related("round__job", "epoch").select_for_update(of=("self",)).get(pk=batch_id)


def record_commitment(*, batch_id: int, epoch: int, attestor: str, commitment: str) -> None:
    """Keep a commitment for `epoch`'s set; one that comes after the list was fixed is too late. Idempotent."""
    record(batch_id, attestor, epoch=epoch, commitment=commitment, refusal="")


def record_refusal(*, batch_id: int, epoch: int, attestor: str, reason: str) -> None:
    """An attestor cannot judge the batch: it lacks the inputs, or they are of another round. It is asked again later."""
    record(batch_id, attestor, epoch=epoch, commitment="", refusal=reason[:300])


def record(batch_id: int, attestor: str, *, epoch: int, **given: str) -> None:
    with transaction.atomic():
        batch = locked(batch_id)
        member = batch.epoch.member(attestor)
        if member is None or batch.state != Batch.State.ATTESTING or batch.epoch_id != epoch or batch.commitments is not None:
            return
        Attestation.objects.update_or_create(batch=batch, member=member, defaults={"attestor": attestor, **given})
        advance(batch)


def record_opening(*, batch_id: int, attestor: str, salt: str, scores: bytes, signature: str) -> None:
    """Keep what opens a commitment of the fixed list. Idempotent.

    Raises HyperGPUError `attestation.mismatch` for what does not open it, `attestation.wrong_signer`.
    """
    with transaction.atomic():
        batch = locked(batch_id)
        member = batch.epoch.member(attestor)
        if member is None or member not in fixed(batch) or batch.state != Batch.State.ATTESTING:
            return
        check_opening(batch, member=member, attestor=attestor, salt=salt, scores=scores, signature=signature)
        opening = {"salt": salt, "scores": scores, "signature": signature}
        Attestation.objects.filter(batch=batch, member=member).update(**opening)
        advance(batch)


def check_opening(batch: Batch, *, member: int, attestor: str, salt: str, scores: bytes, signature: str) -> None:
    listed = fixed(batch)
    given = commitment(attestor=attestor, salt=bytes.fromhex(salt[2:]), scores=scores)
    if given != listed[member] or len(unpack_scores(scores)) * PACKED_BYTES != len(batch.packed):
        raise HyperGPUError("attestation.mismatch", f"These scores of {attestor} are not those that it has committed to.")
    message = statement(batch).attested(commitments_hash(listed))
    if eip712.recover(domain(), message, signature) != attestor:
        raise HyperGPUError("attestation.wrong_signer", f"{attestor} did not sign the list of commitments.")


def advance(batch: Batch) -> None:
    """Take the batch's next step if enough attestors have done theirs. Call under its lock."""
    if batch.state != Batch.State.ATTESTING:
        return
    rows = list(Attestation.objects.filter(batch=batch))
    if batch.commitments is None:
        given = {row.member: row.commitment for row in rows if row.commitment}
        refused = [row for row in rows if row.refusal]
        if enough(batch, len(given), of=len(batch.epoch.members) - len(refused)):
            fix(batch, given)
        elif len(refused) > len(batch.epoch.members) - batch.epoch.quorum:
            explain(batch, f"Attestor {refused[0].attestor} refused: {refused[0].refusal}")
    elif enough(batch, sum(bool(row.signature) for row in rows), of=len(batch.commitments)):
        batches.queue_in_order(batch.round.job_id)


def enough(batch: Batch, given: int, *, of: int) -> bool:
    """All of them, or a quorum that has waited for the rest."""
    quorum = batch.epoch.quorum
    if given < quorum:
        return False
    if batch.quorum_at is None:
        batch.quorum_at = timezone.now()
        batch.save(update_fields=["quorum_at"])
    return given >= of or batch.quorum_at <= timezone.now() - PATIENCE


def fix(batch: Batch, given: dict[int, str]) -> None:
    """Close the list: from now on attestors sign it, so it is never another one."""
    listed = {str(member): given[member] for member in sorted(given)}
    now = timezone.now()
    open_ = Batch.objects.filter(pk=batch.pk, state=Batch.State.ATTESTING, commitments__isnull=True)
    if open_.update(commitments=listed, quorum_at=None, reason="", driven_at=now, drives=0):
        emit("batch.committed", topics=[f"job.{batch.round.job_id}"], changes={}, refs={"batch_id": batch.pk})


def explain(batch: Batch, reason: str) -> None:
    if batch.drives >= MAX_DRIVES:
        batches.fail(batch, reason=reason)
    else:
        Batch.objects.filter(pk=batch.pk).update(reason=reason[:300])


def press(*, batch_id: int) -> list[str]:
    """Go on without those that are late; the addresses of attestors whose part the batch still waits for. A batch that no
    attestor has signed yet goes over to the newest set: of an older one, some may never answer."""
    with transaction.atomic():
        batch = locked(batch_id)
        if batch.commitments is None and batch.state == Batch.State.ATTESTING:
            renew_epoch(batch)
        advance(batch)
    batch = Batch.objects.select_related("epoch").get(pk=batch_id)
    if batch.state != Batch.State.ATTESTING:
        return []
    asked = range(len(batch.epoch.members)) if batch.commitments is None else sorted(fixed(batch))
    step = {"commitment": ""} if batch.commitments is None else {"signature": ""}
    done = set(Attestation.objects.filter(batch=batch).exclude(**step).values_list("member", flat=True))
    return [batch.epoch.members[member] for member in asked if member not in done]


def renew_epoch(batch: Batch) -> None:
    newest = current_set()
    if newest.pk == batch.epoch_id:
        return
    Attestation.objects.filter(batch=batch).delete()
    batch.epoch, batch.quorum_at = newest, None
    batch.save(update_fields=["epoch", "quorum_at"])
