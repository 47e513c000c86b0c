"""Handing in: commit to the hash, upload the bytes, sign the receipt. In this order, so that nobody can copy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from marketplace.artifacts import pieces as kept
from marketplace.artifacts import services as artifacts
from marketplace.artifacts.models import Artifact
from marketplace.chain.services import domain
from marketplace.events.services import emit
from marketplace.operators import links
from marketplace.operators import services as operators
from marketplace.operators.models import Node
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.serializers import assignment_json, contribution_json, part_json
from marketplace.training.services import planning
from marketplace.training.services.late import newest
from marketplace.training.services.leases import announce, merge_losses
from marketplace.training.services.recording import record_on_chain
from marketplace.training.services.rounds import topic_of
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import Receipt


def commit(*, assignment: Assignment, sha256: str, size: int, limit: int) -> None:
    """Fix the hash of the result before its bytes are shown. A lease commits once; the same commitment may be repeated.
    Who commits to bytes first has them: who passes on another's upload cannot hand it in as its own.

    Raises HyperGPUError `artifact.too_large`, `artifact.committed_other`, `artifact.copied`.
    """
    if size > limit:
        raise HyperGPUError("artifact.too_large", f"A contribution to this job is at most {limit} bytes.", limit=limit)
    if assignment.committed_sha256 not in ("", sha256):
        raise HyperGPUError("artifact.committed_other", "This lease has committed to another hash already.")
    refuse_copy(assignment, sha256)
    others = Assignment.objects.filter(round__job=assignment.round.job, committed_sha256=sha256)
    if others.exclude(node_id=assignment.node_id).exists():
        raise HyperGPUError("artifact.copied", "Another node has committed to these very bytes for this job before.")
    with transaction.atomic():
        mine = Assignment.objects.filter(pk=assignment.pk, fence=assignment.fence, committed_sha256="")
        said = {"committed_sha256": sha256, "committed_size": size, "committed_at": timezone.now()}
        moved = mine.filter(state=Assignment.State.LEASED).update(state=Assignment.State.COMMITTED, **said)
        moved = moved or mine.filter(state=Assignment.State.LATE).update(**said)
        if moved:
            announce(assignment, "assignment.committed")
    if not moved and (now_at := carried_to(assignment)) is not None:
        commit(assignment=now_at, sha256=sha256, size=size, limit=limit)


def refuse_copy(assignment: Assignment, sha256: str) -> None:
    """The same bytes count once in a job: evidence in which they count again is refused with all work of its round
    (`evidence.same_work`). Raises HyperGPUError `artifact.copied`."""
    if Contribution.objects.filter(round__job=assignment.round.job, artifact=sha256).exclude(assignment=assignment).exists():
        raise HyperGPUError("artifact.copied", "These very bytes were handed in for this job before.")


def committed_size(assignment: Assignment) -> int:
    """Bytes of the upload. Raises HyperGPUError `artifact.not_committed`."""
    if not assignment.committed_sha256 or assignment.committed_size is None:
        raise HyperGPUError("artifact.not_committed", "Commit to the artifact's hash before uploading it.")
    return assignment.committed_size


def upload(*, assignment: Assignment, chunks: Iterable[bytes], size: int) -> Artifact:
    """Store the committed bytes.

    Raises HyperGPUError `artifact.not_committed`, `artifact.size_mismatch`, `artifact.too_large`, `artifact.truncated`,
    `artifact.hash_mismatch`.
    """
    committed = committed_size(assignment)
    if size > committed:
        raise HyperGPUError("artifact.too_large", f"{committed} bytes were committed, {size} are announced.")
    if size < committed:
        raise HyperGPUError("artifact.truncated", f"{committed} bytes were committed, only {size} are announced.")
    artifact = artifacts.store_upload(
        chunks=chunks, kind=Artifact.Kind.PSEUDO_GRADIENT, limit=committed, sha256=assignment.committed_sha256, size=committed
    )
    note_uploaded(assignment)
    return artifact


def note_uploaded(assignment: Assignment) -> None:
    Assignment.objects.filter(pk=assignment.pk, fence=assignment.fence).update(uploaded=True)
    if (now_at := carried_to(assignment)) is not None:
        Assignment.objects.filter(pk=now_at.pk, fence=assignment.fence).update(uploaded=True)


def upload_piece(*, assignment: Assignment, pieces: int, index: int, chunks: Iterable[bytes], sha256: str) -> bool:
    """Store one of the `pieces` that make the committed bytes, or a redundant one (trainer.network.transfers). Returns whether
    the file is whole.

    Raises HyperGPUError `artifact.not_committed`, `upload.no_such_piece`, `artifact.too_large`, `artifact.truncated`,
    `artifact.hash_mismatch`: of the piece, or of the whole file, whose pieces are then forgotten.
    """
    size = committed_size(assignment)
    if assignment.uploaded:
        return True
    return artifacts.store_piece(
        upload=pieces_name(assignment), sha256=assignment.committed_sha256, size=size, pieces=pieces,
        index=index, chunks=chunks, piece_sha256=sha256, kind=Artifact.Kind.PSEUDO_GRADIENT,
        is_whole=lambda: (carried_to(assignment) or assignment).uploaded, note=lambda _: note_uploaded(assignment),
    )  # fmt: skip


def pieces_held(*, assignment: Assignment, pieces: int) -> list[int]:
    """Numbers of the pieces of the committed bytes that have come: what need not be sent again."""
    return kept.held(pieces_name(assignment), sha256=assignment.committed_sha256, pieces=pieces)


def pieces_name(assignment: Assignment) -> str:
    """The upload's name: of the slot in which the work began, so that the pieces of late work are carried with it."""
    return f"assignment-{assignment.began.pk}"


def carried_to(assignment: Assignment) -> Assignment | None:
    """The slot in which the work is by now, if its round has closed meanwhile and another one taken it."""
    assignment.refresh_from_db()
    now_at = newest(assignment)
    return None if now_at == assignment else now_at


def accept_contribution(
    *, assignment: Assignment, node: Node, receipt: Receipt, signature: str, losses: list[tuple[int, float]], seconds: float
) -> Contribution:
    """A signed receipt for uploaded bytes becomes a contribution. The same receipt again answers the same.

    Raises HyperGPUError `receipt.mismatch` (not this order's job, round, node, base, artifact or units: orders count whole),
    `receipt.wrong_signature`, `signature.*`, `receipt.replayed` (another one stands for this slot), `artifact.copied` (two that
    committed to the same bytes at once), `order.late` (its round has closed: the next heartbeat says for which round to sign).
    """
    if assignment.state == Assignment.State.LATE or (assignment.origin_id and receipt.round < assignment.round.number):
        raise late()
    size, committed_at = assignment.committed_size, assignment.committed_at
    if size is None or committed_at is None:
        raise HyperGPUError("artifact.not_committed", "Commit and upload the artifact before its receipt.")
    check_receipt(assignment, receipt)
    if eip712.recover(domain(), receipt, signature).lower() != node.hot_key.lower():
        raise HyperGPUError("receipt.wrong_signature", f"The receipt was not signed by the hot key of node {node.pk}.")
    try:
        with transaction.atomic():
            # Under the round's lock, so that it cannot close between this look and the write.
            if Round.objects.select_for_update().get(pk=assignment.round_id).state != Round.State.OPEN:
                assignment.refresh_from_db()
                if assignment.state in (Assignment.State.LATE, Assignment.State.CARRIED):
                    raise late()
                raise HyperGPUError("lease.expired", "The round has closed; drop the work and ask for a lease.")
            # Once more: of two that committed at once, the other one may have handed in since.
            refuse_copy(assignment, assignment.committed_sha256)
            took = planning.took(assignment, seconds=seconds, received_at=timezone.now())
            moved = Assignment.objects.filter(
                pk=assignment.pk, fence=assignment.fence, state=Assignment.State.COMMITTED, uploaded=True
            ).update(
                actual=took,
                state=Assignment.State.HANDED_IN, losses=merge_losses(assignment.losses, losses),
                step=assignment.steps,
            )  # fmt: skip
            if not moved:
                raise HyperGPUError("artifact.not_committed", "Commit and upload the artifact before its receipt.")
            contribution = Contribution.objects.create(
                assignment=assignment, round=assignment.round, node_id=node.pk, units=receipt.units,
                artifact=assignment.committed_sha256, size=size, signature=signature, committed_at=committed_at,
                seconds=seconds if math.isfinite(seconds) else 0.0, driven_at=timezone.now(),
            )  # fmt: skip
            record_on_chain(contribution)
            note_speed(contribution)
            assignment.refresh_from_db()
            operators.note_parts(parts={node.pk: part_json(assignment)})
            operators.announce_all([node.pk])
            emit(
                "contribution.received",
                topics=[topic_of(assignment.round.job_id)],
                changes={"contributions": [contribution_json(contribution)], "assignments": [assignment_json(assignment)]},
                refs={"contribution_id": contribution.pk},
            )
    except IntegrityError as error:
        raise HyperGPUError("receipt.replayed", "Another receipt stands for this slot already.") from error
    return contribution


def note_speed(contribution: Contribution) -> None:
    """What the order says of the node's machine, from when on it was at it to its commitment."""
    spec, begun = contribution.round.job.parsed_spec, could_begin(contribution)
    seen = (contribution.committed_at - begun).total_seconds() if begun else 0.0
    samples = links.speeds(spec, units=contribution.units, said=contribution.seconds, seen=seen)
    links.record(node_id=contribution.node_id, samples=samples)


def could_begin(contribution: Contribution) -> datetime | None:
    """From when on the node was at its order: from its first lease, or, one that works ahead, from the work before. Fetching is
    within, for a node chooses when it fetches: over a slow link what is seen of its speed is a lower bound."""
    earlier = Contribution.objects.filter(node_id=contribution.node_id, committed_at__lt=contribution.committed_at)
    ends = earlier.filter(round__job=contribution.round.job_id).aggregate(newest=Max("committed_at"))
    done: datetime | None = ends["newest"]
    if done is not None and contribution.round.job.parsed_spec.network.overlap == "eager":
        return done
    return contribution.assignment.leased_at


def late() -> HyperGPUError:
    return HyperGPUError("order.late", "The round has closed; the work counts in the next one: a heartbeat brings its order.")


def standing_contribution(*, assignment_id: int, node_id: int, signature: str) -> Contribution | None:
    """The contribution that this very receipt made before; lets an agent repeat a hand-in whose answer it lost.

    Raises HyperGPUError `receipt.replayed` when the slot holds a different receipt.
    """
    contribution = Contribution.objects.filter(assignment_id=assignment_id, node_id=node_id).first()
    if contribution is not None and contribution.signature != signature:
        raise HyperGPUError("receipt.replayed", "Another receipt stands for this slot already.")
    return contribution


def check_receipt(assignment: Assignment, receipt: Receipt) -> None:
    round_ = assignment.round
    expected = Receipt(
        job_id=round_.job.chain_id or 0, round=round_.number, node_id=assignment.node_id,
        units=assignment.steps * round_.job.parsed_spec.inner.batch_size,
        base="0x" + round_.base, artifact="0x" + assignment.committed_sha256,
    )  # fmt: skip
    wrong = [name for name, value in expected.as_dict().items() if getattr(receipt, name) != value]
    if wrong:
        raise HyperGPUError(
            "receipt.mismatch", f"The receipt does not match the work order in: {', '.join(wrong)}.", fields=wrong
        )
