"""Replay audits: drawn by a block after the round was settled, asked of the node, computed again, and what follows.

While a class (precision, kind of machine of operator and auditor) is in shadow mode, verdicts are recorded and shown and hurt
nobody: how much honest machines of that class differ is not known yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from marketplace.artifacts import pieces as kept
from marketplace.artifacts import services as artifacts
from marketplace.artifacts.models import Artifact
from marketplace.chain.services import domain, final_block_hash
from marketplace.common.driving import MAX_DRIVES, hopeless
from marketplace.common.tasks import each
from marketplace.events.services import emit
from marketplace.operators import services as operators
from marketplace.operators.facts import uplink
from marketplace.operators.models import Node
from marketplace.training import calibration
from marketplace.training.models import Audit, Contribution, Round
from marketplace.training.serializers import audit_json
from marketplace.training.services.rounds import topic_of
from trainer.protocol.draws import DELAY, audit_digest, audit_rate, drawn_segments
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import evidence_limit
from trainer.protocol.rounds import AuditVerdict

log = logging.getLogger(__name__)

ANSWER_TIME = timedelta(minutes=10)
"""A node's time to hand in what an audit asks for, besides what sending it takes."""
SENDING = 2.0
"""Times what its uplink would take is left to a node: it works on meanwhile, and links are not what they were."""
LEAST_UPLINK = 125_000
"""Bytes a second: who has less, or says so, is given no more time (1 Mbit/s)."""
REMIND = timedelta(seconds=5)
"""A node is told of an open audit again after this long."""
SUSPENSION = timedelta(hours=24)
"""How long a node is left out of rounds. Then it is audited at a newcomer's rate again."""


# Drawing.


def draw_audits(*, round_id: int) -> None:
    """Choose which of a settled round's paid contributions are replayed, once the block that draws is final. Safe to call twice.

    Raises HyperGPUError `chain.unreachable`, `chain.node_behind`.
    """
    round_ = Round.objects.select_related("job").get(pk=round_id)
    if round_.settled_block is None or round_.drawn_at is not None:
        return
    number = round_.settled_block + DELAY
    block_hash = final_block_hash(number)
    if block_hash is None:
        return
    paid = list(Contribution.objects.filter(round=round_, state=Contribution.State.ACCEPTED).select_related("assignment"))
    chosen = [(one, segments) for one in paid if (segments := segments_of(one, round_, block_hash))]
    with transaction.atomic():
        if Round.objects.filter(pk=round_id, drawn_at=None).update(drawn_at=timezone.now()) and chosen:
            request(round_, chosen, block=number, block_hash=block_hash)


def suspects() -> QuerySet[Contribution]:
    """Paid work of nodes that were convicted after they had handed it in, which no audit has looked at and which the court can
    still take up."""
    proven = Audit.objects.filter(state=Audit.State.FAILED, shadow=False, proven=True)
    convicted = proven.filter(node_id=OuterRef("node_id"), judged_at__gt=OuterRef("received_at"))
    window = timedelta(seconds=int(settings.HYPERGPU.deployment["terms"]["market"]["challengeWindow"]))
    return Contribution.objects.filter(
        Exists(convicted), state=Contribution.State.ACCEPTED, audits=None, round__drawn_at__isnull=False,
        round__settled_at__gt=timezone.now() - window, round__accepted_at=None,
    )  # fmt: skip


def audit_suspects(*, round_id: int) -> None:
    """Whoever was caught once is audited in every round that it can still lose, by the segments that the round's own block has
    drawn. Safe to call twice.

    Raises HyperGPUError `chain.unreachable`, `chain.node_behind`.
    """
    number = (Round.objects.get(pk=round_id).settled_block or 0) + DELAY
    block_hash = final_block_hash(number)
    if block_hash is None:
        return
    with transaction.atomic():
        round_ = Round.objects.select_related("job").select_for_update(of=("self",)).get(pk=round_id)
        found = list(suspects().filter(round=round_).select_related("assignment"))
        if found:
            chosen = [(one, segments_of(one, round_, block_hash, rate=1.0)) for one in found]
            request(round_, chosen, block=number, block_hash=block_hash)


def segments_of(contribution: Contribution, round_: Round, block_hash: str, *, rate: float | None = None) -> list[int]:
    """What chance says of one contribution, at the node's own rate or another; none if it is not audited."""
    spec, node_id = round_.job.parsed_spec.audit, contribution.node_id
    digest = audit_digest(
        block_hash=block_hash, market=domain().contract, job_id=round_.job.chain_id or 0, round=round_.number, node_id=node_id
    )
    if rate is None:
        late = contribution.assignment.origin_id is not None
        rate = audit_rate(spec, rounds=rounds_since_strike(round_, node_id), late=late)
    return drawn_segments(digest, spec, steps=contribution.assignment.steps, rate=rate)


def rounds_since_strike(round_: Round, node_id: int) -> int:
    """Rounds of the job that the node was paid for before this one; after a failed audit it is a newcomer again."""
    mine = Q(node_id=node_id, round__job=round_.job, round__number__lt=round_.number)
    struck = Contribution.objects.filter(mine, audits__state=Audit.State.FAILED, audits__shadow=False)
    last = struck.order_by("-round__number").values_list("round__number", flat=True).first()
    since = mine if last is None else mine & Q(round__number__gt=last)
    return Contribution.objects.filter(since, state=Contribution.State.ACCEPTED).count()


def request(round_: Round, chosen: list[tuple[Contribution, list[int]]], *, block: int, block_hash: str) -> None:
    """Ask the nodes for evidence; nobody is asked for what this installation would not take."""
    size, most, now = most_evidence(round_), settings.HYPERGPU.max_artifact_bytes, timezone.now()
    if size > most:
        log.warning("round %s is not audited: evidence of up to %s bytes, files of %s are taken", round_.pk, size, most)
        return
    precision = round_.job.parsed_spec.inner.precision
    nodes = Node.objects.in_bulk([contribution.node_id for contribution, _ in chosen])
    rows = [
        Audit.objects.create(
            contribution=contribution, segment=segment, node_id=contribution.node_id, block=block, block_hash=block_hash,
            deadline=now + time_to_answer(nodes[contribution.node_id], size * len(segments)), precision=precision,
            operator_class=class_of(nodes[contribution.node_id]),
        )
        for contribution, segments in chosen
        for segment in segments
    ]  # fmt: skip
    tell(round_, "audit.requested", rows)


def most_evidence(round_: Round) -> int:
    """Bytes that one segment's evidence of a round may have."""
    return evidence_limit(round_.job.parameters or 0)


def time_to_answer(node: Node, size: int) -> timedelta:
    """For `size` bytes, and what the node is asked for already."""
    waiting = Audit.objects.filter(node_id=node.pk, state=Audit.State.REQUESTED).select_related("contribution__round__job")
    total = size + sum(most_evidence(audit.contribution.round) for audit in waiting)
    return ANSWER_TIME + timedelta(seconds=SENDING * total / max(uplink(node), LEAST_UPLINK))


def class_of(node: Node) -> str:
    """What the node's results drift with (`trainer.diloco.local.device_class`), as its agent says."""
    return str(node.software.get("device_class") or node.device)[:120]


# The node's part.


def open_audits(*, node_id: int) -> list[dict[str, Any]]:
    """What the node is to answer, as its lease answer says it; each again only after a while, since the lease is a long poll."""
    now = timezone.now()
    due = Audit.objects.filter(node_id=node_id, state=Audit.State.REQUESTED, deadline__gt=now).order_by("id")
    untold = list(due.filter(Q(told_at=None) | Q(told_at__lt=now - REMIND)).select_related("contribution__round__job"))
    if untold:
        Audit.objects.filter(pk__in=[audit.pk for audit in untold]).update(told_at=now)
    return [
        {
            "audit_id": audit.pk, "artifact": audit.contribution.artifact, "segment": audit.segment,
            "deadline_seconds": (audit.deadline - now).total_seconds(), "most_bytes": most_evidence(audit.contribution.round),
        }
        for audit in untold
    ]  # fmt: skip


def answerable(*, audit_id: int, node_id: int) -> Audit:
    """The audit, if it is this node's. Raises HyperGPUError `audit.unknown`, `audit.not_yours`."""
    audit = Audit.objects.select_related("contribution__round__job").filter(pk=audit_id).first()
    if audit is None:
        raise HyperGPUError("audit.unknown", f"There is no audit {audit_id}.")
    if audit.node_id != node_id:
        raise HyperGPUError("audit.not_yours", f"Audit {audit_id} is of another node.")
    return audit


def accept_evidence(*, audit: Audit, chunks: Iterable[bytes], sha256: str, size: int) -> Audit:
    """REQUESTED -> ANSWERED with the node's file. The same file again answers the same.

    Raises HyperGPUError `audit.answered` (it gave another file), `audit.expired`, `artifact.too_large`, `artifact.truncated`,
    `artifact.hash_mismatch`.
    """
    if audit.evidence == sha256:
        return audit
    refuse_evidence(audit, size)
    stored = artifacts.store_upload(chunks=chunks, kind=Artifact.Kind.AUDIT, limit=size, sha256=sha256, size=size)
    return note_evidence(audit, stored)


def accept_piece(
    *, audit: Audit, sha256: str, size: int, pieces: int, index: int, chunks: Iterable[bytes], piece_sha256: str
) -> bool:
    """The same for one of the `pieces` that make the file, or a redundant one. Returns whether the file is whole.

    Raises as `accept_evidence`, and HyperGPUError `upload.no_such_piece`.
    """
    if audit.evidence == sha256:
        return True
    refuse_evidence(audit, size)

    def is_whole() -> bool:
        audit.refresh_from_db()
        return audit.evidence == sha256

    return artifacts.store_piece(
        upload=pieces_name(audit), sha256=sha256, size=size, pieces=pieces, index=index, chunks=chunks, piece_sha256=piece_sha256,
        kind=Artifact.Kind.AUDIT, is_whole=is_whole, note=lambda stored: note_evidence(audit, stored),
    )  # fmt: skip


def pieces_held(*, audit: Audit, sha256: str, pieces: int) -> list[int]:
    """Numbers of the pieces of an answer that have come: what need not be sent again."""
    return kept.held(pieces_name(audit), sha256=sha256, pieces=pieces)


def pieces_name(audit: Audit) -> str:
    return f"audit-{audit.pk}"


def refuse_evidence(audit: Audit, size: int) -> None:
    refuse_late(audit)
    limit = most_evidence(audit.contribution.round)
    if size > limit:
        raise HyperGPUError("artifact.too_large", f"The evidence of this audit is at most {limit} bytes.", limit=limit)


def note_evidence(audit: Audit, stored: Artifact) -> Audit:
    now = timezone.now()
    with transaction.atomic():
        moved = Audit.objects.filter(pk=audit.pk, state=Audit.State.REQUESTED, deadline__gt=now).update(
            state=Audit.State.ANSWERED, evidence=stored.pk, evidence_size=stored.size, answered_at=now, driven_at=now
        )
        audit.refresh_from_db()
        if moved:
            tell(audit.contribution.round, "audit.answered", [audit], audit_id=audit.pk)
    if not moved:
        refuse_late(audit)
    return audit


def refuse_late(audit: Audit) -> None:
    if audit.evidence:
        raise HyperGPUError("audit.answered", f"Audit {audit.pk} has been answered with another file already.")
    if audit.state != Audit.State.REQUESTED or audit.deadline <= timezone.now():
        raise HyperGPUError("audit.expired", f"The time to answer audit {audit.pk} is over.")


def expire() -> int:
    """Audits whose time is over are unanswered; returns how many. Two in a row count as a failed one, outside shadow mode: a
    crash loses what a node would answer with, but not twice."""
    over = Audit.objects.filter(state=Audit.State.REQUESTED, deadline__lte=timezone.now())
    return each(over.select_related("contribution__round__job"), record_silence)


def record_silence(audit: Audit) -> bool:
    """REQUESTED -> UNANSWERED."""
    shadow = not calibration.of(audit.precision, audit.operator_class).calibrated
    ended = {"state": Audit.State.UNANSWERED, "judged_at": timezone.now(), "shadow": shadow, "code": "audit.unanswered"}
    ended["reason"] = "The node did not hand in its states in time."
    with transaction.atomic():
        if not Audit.objects.filter(pk=audit.pk, state=Audit.State.REQUESTED).update(**ended):
            return False
        audit.refresh_from_db()
        tell(audit.contribution.round, "audit.unanswered", [audit])
        earlier = Audit.objects.filter(node_id=audit.node_id).exclude(contribution=audit.contribution_id)
        before = earlier.filter(pk__lt=audit.pk).order_by("-pk").first()
        if not shadow and before and before.state == Audit.State.UNANSWERED:
            punish(audit, reason="Two audits in a row were not answered.")
    return True


# The verdict.


def record_verdict(*, audit_id: int, found: AuditVerdict) -> None:
    """ANSWERED -> PASSED, SUSPICIOUS or FAILED. Safe to call twice: the first verdict stands."""
    audit = Audit.objects.select_related("contribution__round__job").get(pk=audit_id)
    shadow = calibration.in_shadow(audit, auditor_class=found.auditor_class, code=found.code, proven=found.proven)
    with transaction.atomic():
        moved = Audit.objects.filter(pk=audit_id, state=Audit.State.ANSWERED).update(
            state=found.verdict, error=found.error, encoding_error=found.encoding_error, tolerance=found.tolerance,
            auditor_class=found.auditor_class[:120], shadow=shadow, code=found.code, reason=found.reason[:300],
            proven=found.proven, judged_at=timezone.now(),
        )  # fmt: skip
        if not moved:
            return
        audit.refresh_from_db()
        if audit.state == Audit.State.FAILED and not shadow:
            # For whoever wants to compute it again: a committee of the court, too.
            artifacts.publish(sha256s=[audit.evidence])
            punish(audit, reason=f"Round {audit.contribution.round.number}, computed again, gave something else.")
        tell(audit.contribution.round, "audit.judged", [audit])


def punish(audit: Audit, *, reason: str) -> None:
    """Left out of rounds for a while, and rated as the last of its round. Call inside the verdict's transaction."""
    round_ = audit.contribution.round
    paid = Contribution.objects.filter(round=round_, state=Contribution.State.ACCEPTED).exclude(node_id=audit.node_id)
    others = list(paid.values_list("node_id", flat=True))
    operators.rate([others, [audit.node_id]])
    operators.announce_all(others)
    operators.suspend(node_id=audit.node_id, until=timezone.now() + SUSPENSION, reason=f"Audit {audit.pk}: {reason}")


def give_up() -> None:
    """A replay that kills every worker is taken out of the way: it says nothing against the node."""
    answered = Audit.objects.filter(state=Audit.State.ANSWERED)
    each(hopeless(answered.select_related("contribution__round")), record_no_replay)


def record_no_replay(audit: Audit) -> None:
    """ANSWERED -> SUSPICIOUS."""
    with transaction.atomic():
        moved = Audit.objects.filter(pk=audit.pk, state=Audit.State.ANSWERED).update(
            state=Audit.State.SUSPICIOUS, code="audit.not_replayed", reason=f"Replaying it failed {MAX_DRIVES} times.",
            judged_at=timezone.now(),
        )  # fmt: skip
        audit.refresh_from_db()
        if moved:
            tell(audit.contribution.round, "audit.judged", [audit])


def tell(round_: Round, type: str, rows: list[Audit], **refs: int) -> None:
    """On the pages of the job and of each operator. Call inside the transaction of the change."""
    owners = dict(Node.objects.filter(pk__in=[audit.node_id for audit in rows]).values_list("pk", "operator_id"))
    shown = [audit_json(audit) for audit in rows]
    emit(type, topics=[topic_of(round_.job_id)], changes={"audits": shown}, refs=refs or {"round_id": round_.pk})
    for owner in sorted(set(owners.values())):
        mine = [row for row in shown if owners[row["node_id"]] == owner]
        emit(type, topics=[f"operator.{owner.lower()}"], changes={"audits": mine}, follow=False)
