"""Replay audits: a random segment of a node's work is computed again on another machine and compared.

The node shows the states at both ends of the segment, which its trace (`trainer.diloco.trace`) bound before anybody knew the
segment. Some checks are exact: that the states are the committed ones, that the first is at the order's base (with fragments
in turn: or where the node's last trace ended), that its moments
go on where the node's last trace ended (or are fresh), that a lead began at the guess which the last contribution gives, and
that the upload is the encoding of the last state. How the segment leads
from one state to the next is floating point and compared within a tolerance: relative L2 distances of the movement, of the
first moments and of the roots of the second.

What makes this hold together: with moments of a node's own choice any movement could be had without a gradient, for they would
drown the gradients and decay as foreseen. So moments must continue, and no larger than clipped gradients can make them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.data import Dataset
from trainer.diloco.encoding import decode
from trainer.diloco.exact import dot
from trainer.diloco.flat import Shapes, count_of
from trainer.diloco.fragments import Own, begun, fragment_of
from trainer.diloco.local import NodeState, optimizer_vectors, restore, train
from trainer.diloco.trace import (
    LeadMark,
    Moments,
    borders,
    bound,
    encode_end,
    error_leaf,
    fresh_moments,
    guess_of,
    lead_leaf,
    leaf_count,
    moments_leaf,
    movement_leaf,
    order_leaf,
    read_lead,
    read_moments,
    read_movement,
    write_error,
    write_movement,
)
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.merkle import leaf_hash, path_root
from trainer.protocol.orders import WorkOrder, work_digest
from trainer.scoring.evidence import AuditEvidence

SLACK = 1.02
"""Moments are rounded to 8 bits of significand."""


class HandedIn(NamedTuple):
    """A contribution as the coordinator has it: the upload's trace root, the steps that it was accepted for, and the round whose
    order it was trained for (it matters for the contribution before, and with fragments in turn)."""

    root: bytes
    steps: int
    round: int = 0


class Guess(NamedTuple):
    """What a contribution lets its node guess: `params` (n,) of the next version, made of model version `version` and of
    `artifact` (64 hex digits each). `bound`: the node can have begun from no other."""

    version: str
    artifact: str
    params: Tensor
    bound: bool


def guess_after(order: WorkOrder, base: Tensor, upload: bytes, *, shapes: Shapes, bound: bool = False) -> Guess:
    """From a contribution: its order as it was trained, the parameters (n,) of its base, and the upload. Raises HyperGPUError
    `artifact.*`."""
    return Guess(order.base, sha256_hex(upload), guess_of(order, base, upload, shapes=shapes), bound)


@dataclass(frozen=True, slots=True)
class Replay:
    """Relative L2 distances between the shown end of a segment and the computed one; `findings` are refusals `audit.*`."""

    movement_error: float
    first_error: float
    second_error: float
    findings: list[HyperGPUError]

    @property
    def error(self) -> float:
        return max(self.movement_error, self.first_error, self.second_error)


def replay_segment(
    order: WorkOrder,
    base: Tensor,
    dataset: Dataset,
    evidence: AuditEvidence,
    *,
    segment: int,
    upload: bytes,
    handed_in: HandedIn,
    before: HandedIn | None = None,
    guess: Guess | None = None,
    device: torch.device | None = None,
) -> Replay:
    """Check what the evidence shows, then compute `segment` of `order` again on `device` from its first state.

    `base` (n,) are the parameters of `order.base`; `before` is the node's contribution that preceded this one, if there is any,
    and `guess` what it could guess of the base then.
    A segment of a lead that may not be is not computed: its errors are not numbers.
    Raises HyperGPUError `audit.wrong_segment` or `audit.wrong_steps` when the evidence answers another question, `artifact.*`
    when a state cannot be read.
    """
    if evidence.segment != segment:
        raise HyperGPUError("audit.wrong_segment", f"Segment {segment} was asked for, {evidence.segment} is shown.")
    if evidence.steps != handed_in.steps:
        raise HyperGPUError("audit.wrong_steps", f"{handed_in.steps} steps were handed in, {evidence.steps} are shown.")
    marks = borders(evidence.steps, order.spec.audit.stride)
    if segment + 1 >= len(marks):
        raise HyperGPUError("audit.wrong_segment", f"The contribution has {len(marks) - 1} segments, there is no {segment}.")
    count = base.numel()
    start, started = read_movement(evidence.movement.content, count=count)
    end, ended = read_movement(evidence.next_movement.content, count=count)
    moments, after = (read_moments(part.content, count=count) for part in (evidence.moments, evidence.next_moments))
    steps = range(marks[segment], marks[segment + 1])
    lead = read_lead(evidence.lead.content)
    state = NodeState(order.spec, dataset.info, device=device)
    findings = [
        *([] if lead is None else check_lead(order, lead, guess, steps=evidence.steps)),
        *commitments(evidence, handed_in.root, borders=len(marks), count=count),
        *answers(order, evidence, handed_in.root, borders=len(marks)),
        *beginning(order, evidence, handed_in.root, before, borders=len(marks), shapes=state.shapes),
        *history(evidence, before, stride=order.spec.audit.stride, count=count),
        *encoding(order, evidence, upload, handed_in.root, shapes=state.shapes),
        *bounds((moments, after), clip_norm=order.spec.inner.clip_norm),
    ]
    if (started, ended) != (steps.start, steps.stop) or after.seen - moments.seen != len(steps):
        findings.append(HyperGPUError("audit.wrong_border", "The states shown are not those at the segment's borders."))
    origin, foreseen = base, order
    if lead is not None and steps.start < lead.steps:
        if guess is None or {finding.code for finding in findings} & {"audit.wrong_lead", "audit.unknown_lead"}:
            return Replay(math.nan, math.nan, math.nan, findings)
        origin, foreseen = guess.params, order.model_copy(update={"steps": lead.planned})
    restore(state, origin - start, {"first": moments.first, "second": moments.second}, moments.seen)
    try:
        train(state, foreseen, dataset, steps)
    except HyperGPUError as error:
        findings.append(
            HyperGPUError("audit.not_finite", f"The segment cannot be computed from the state shown: {error.message}")
        )
        return Replay(math.inf, math.inf, math.inf, findings)
    vectors = optimizer_vectors(state)
    return Replay(
        distance(end - start, origin - state.params() - start),
        distance(after.first, vectors["first"]),
        distance(after.second.sqrt(), vectors["second"].sqrt()),
        findings,
    )


def commitments(evidence: AuditEvidence, root: bytes, *, borders: int, count: int) -> list[HyperGPUError]:
    """Is everything shown under the root of the upload?"""
    leaves, segment = leaf_count(borders), evidence.segment
    shown = {
        "the movement at the segment's start": (evidence.movement, movement_leaf(segment)),
        "the moments at its start": (evidence.moments, moments_leaf(segment)),
        "the movement at its end": (evidence.next_movement, movement_leaf(segment + 1)),
        "the moments at its end": (evidence.next_moments, moments_leaf(segment + 1)),
        "the last movement": (evidence.last_movement, movement_leaf(borders - 1)),
        "the error feedback before": (evidence.error, error_leaf(borders)),
        "the lead": (evidence.lead, lead_leaf(borders)),
    }
    proofs = {what: (leaf_hash(part.content), part.path, index) for what, (part, index) in shown.items()}
    proofs["the first moments"] = (evidence.first_moments.content, evidence.first_moments.path, moments_leaf(0))
    return [
        HyperGPUError("audit.not_committed", f"Not under the trace's root: {what}.")
        for what, (leaf, path, index) in proofs.items()
        if not holds(leaf, path, index=index, count=leaves, root=root)
    ]


def answers(order: WorkOrder, evidence: AuditEvidence, root: bytes, *, borders: int) -> list[HyperGPUError]:
    """Is the upload an answer to this order? If not, either the node has done something else, or it was given another order than
    is said now: only the former would be its fault, and nobody can know."""
    digest = leaf_hash(work_digest(order))
    if holds(digest, evidence.order, index=order_leaf(borders), count=leaf_count(borders), root=root):
        return []
    return [HyperGPUError("audit.other_order", "The upload is bound to another order than the one that is replayed.")]


def beginning(
    order: WorkOrder, evidence: AuditEvidence, root: bytes, before: HandedIn | None, *, borders: int, shapes: Shapes
) -> list[HyperGPUError]:
    """Is the first state at the order's base, or with fragments in turn where the node's last order led?"""
    starts = [torch.zeros(count_of(shapes))]
    if before is not None and (own := shown_end(evidence, before, stride=order.spec.audit.stride, count=count_of(shapes))):
        start = begun(own, order.spec, shapes=shapes, number=order.as_trained.round)
        starts += [] if start is None else [start]
    leaves = leaf_count(borders)
    if any(holds(leaf_hash(write_movement(s, 0)), evidence.base, index=0, count=leaves, root=root) for s in starts):
        return []
    return [HyperGPUError("audit.wrong_base", "The first state is neither at the order's base nor where the last order ended.")]


def shown_end(evidence: AuditEvidence, before: HandedIn, *, stride: int, count: int) -> Own | None:
    """Where the node's contribution before ended, if the evidence shows that. Raises HyperGPUError `artifact.*`."""
    shown, ended = evidence.before_movement, len(borders(before.steps, stride))
    if not shown.content:
        return None
    proven = holds(
        leaf_hash(shown.content), shown.path, index=movement_leaf(ended - 1), count=leaf_count(ended), root=before.root
    )
    return Own(before.round, read_movement(shown.content, count=count)[0]) if proven else None


def check_lead(order: WorkOrder, lead: LeadMark, guess: Guess | None, *, steps: int) -> list[HyperGPUError]:
    """May a contribution of `steps` have been begun like this? `audit.unknown_lead` is one that was made of nothing known: the
    node may have handed in something that was not taken."""
    code, problem = "audit.wrong_lead", ""
    if order.spec.network.overlap != "eager":
        problem = "This job's orders are not begun before their base is known."
    elif not 0 < lead.steps <= min(steps, lead.planned) or lead.steps % order.spec.audit.stride:
        problem = f"A lead of {lead.steps} steps does not end at a segment border of the order."
    elif guess is None or (lead.version, lead.artifact) != (guess.version, guess.artifact):
        code = "audit.wrong_lead" if guess is not None and guess.bound else "audit.unknown_lead"
        problem = "The lead was not begun from the contribution before this one."
    return [HyperGPUError(code, problem)] if problem else []


def history(evidence: AuditEvidence, before: HandedIn | None, *, stride: int, count: int) -> list[HyperGPUError]:
    """Do moments and error feedback go on where the order before ended, or start from nothing?"""
    known = {
        "moments": (evidence.first_moments.content, evidence.before_moments, [fresh_moments(count)]),
        "error feedback": (
            leaf_hash(evidence.error.content), evidence.before_error, [b"", write_error(torch.zeros(count))]
        ),
    }  # fmt: skip
    findings = []
    ended = len(borders(before.steps, stride)) if before else 0
    at = {"moments": moments_leaf(ended - 1), "error feedback": error_leaf(ended) + 1}
    for what, (leaf, path, fresh) in known.items():
        goes_on = before is not None and holds(leaf, path, index=at[what], count=leaf_count(ended), root=before.root)
        if not goes_on and leaf not in [leaf_hash(content) for content in fresh]:
            findings.append(
                HyperGPUError("audit.unknown_history", f"The {what} are neither fresh nor those that the last order ended with.")
            )
    return findings


def encoding(order: WorkOrder, evidence: AuditEvidence, upload: bytes, root: bytes, *, shapes: Shapes) -> list[HyperGPUError]:
    """Is the upload what the committed end encodes to? Exact: the encoder gives the same bytes everywhere."""
    fragment = fragment_of(shapes, order.spec, order.as_trained.round)
    end, _ = read_movement(evidence.last_movement.content, count=fragment.whole)
    wanted = encode_end(end, evidence.error.content, order.encoding, fragment)
    if bound(wanted.data, root) == upload:
        return []
    apart = distance(decode(upload, order.encoding, count=fragment.count).values, wanted.values)
    return [
        HyperGPUError(
            "audit.wrong_upload", f"The upload is not the encoding of the last state ({apart:.3g} apart).", distance=apart
        )
    ]


def bounds(states: Sequence[Moments], *, clip_norm: float) -> list[HyperGPUError]:
    """Moments are averages of gradients clipped to `clip_norm`, and of their squares."""
    for moments in states:
        if dot(moments.first, moments.first) > (SLACK * clip_norm) ** 2 or moments.second.double().sum() > SLACK * clip_norm**2:
            return [HyperGPUError("audit.impossible_moments", "The moments are larger than clipped gradients can make them.")]
    return []


def holds(leaf: bytes, path: list[bytes], *, index: int, count: int, root: bytes) -> bool:
    try:
        return path_root(leaf, path, index=index, count=count) == root
    except HyperGPUError:
        return False


def distance(shown: Tensor, computed: Tensor) -> float:
    """||shown - computed|| / ||computed||; infinite when nothing should have moved but did."""
    apart, length = (float(vector.double().norm()) for vector in (shown.double() - computed.double(), computed))
    if not math.isfinite(apart):
        return math.inf
    return apart / length if length else (math.inf if apart else 0.0)
