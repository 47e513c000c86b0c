"""Who does what in a round: from what was measured of each node to its steps and encoding. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer.network.facts import NodeFacts
from trainer.protocol.spec import EncodingSpec, JobSpec
from trainer.protocol.wire import encoded_bytes

LEAST_STEPS, MOST_STEPS = 0.25, 4.0
"""Multiples of the job's local steps that a node may be given."""
UPLOAD_SHARE = 0.1
"""Part of a round's computing that sending up may take before a smaller encoding is chosen."""
GRACE = 1.5
"""Multiple of the predicted round at which it closes without the rest, if a quorum is there."""
DENSITIES = (
    EncodingSpec(kind="int8"), EncodingSpec(kind="int4"), EncodingSpec(kind="topk", k=512), EncodingSpec(kind="topk", k=128),
    EncodingSpec(kind="topk", k=64),
)  # fmt: skip
"""From the densest on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a policy decided as it did: `code` is stable, `text` says it to operator and requester, with the figures."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Seconds that a node's part of a round is expected to take: to fetch, to compute, to send up."""

    fetch_s: float
    compute_s: float
    upload_s: float

    @property
    def total_s(self) -> float:
        return self.fetch_s + self.compute_s + self.upload_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One node's part of a round."""

    steps: int
    encoding: EncodingSpec
    predicted: Prediction | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A round: each node's part; closed when all have come, or after `deadline_s` (None: never) with `quorum` of them. `excluded`
    says why a node has no part."""

    parts: dict[int, Part]
    quorum: int
    deadline_s: float | None
    excluded: dict[int, Reason] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()


def plain(facts: Sequence[NodeFacts], spec: JobSpec) -> Plan:
    """DiLoCo as published: equal steps, the job's encoding, everybody is waited for."""
    part = Part(steps=spec.inner.steps, encoding=spec.encoding)
    return Plan(parts={fact.node_id: part for fact in facts}, quorum=len(facts), deadline_s=None)


def network_aware(facts: Sequence[NodeFacts], spec: JobSpec, *, count: int, scale: float) -> Plan:
    """All finish together: a node on a fast machine or link does more steps, one on a slow link sends fewer bits.

    A round lasts as long as the job's steps on the median machine and the median node's transfers. `count` are the parameters
    of the model whose files are counted, `scale` what their bytes are multiplied by on the emulated links.
    """
    batch, steps = spec.inner.batch_size, spec.inner.steps
    computing = steps * batch / statistics.median(fact.samples_per_second.value for fact in facts)
    down = scale * encoded_bytes(count, spec.downlink)
    encodings = [densest(fact, count=count, scale=scale, seconds=UPLOAD_SHARE * computing) for fact in facts]
    transfers = [
        2 * fact.rtt_s.value + down / fact.down.value + scale * encoded_bytes(count, encoding) / fact.up.value
        for fact, encoding in zip(facts, encodings, strict=True)
    ]
    lasting = computing + statistics.median(transfers)
    parts, predicted = {}, []
    for fact, encoding, transfer in zip(facts, encodings, transfers, strict=True):
        fitting = math.floor(max(lasting - transfer, 0.0) * fact.samples_per_second.value / batch)
        bounded = max(1, min(max(fitting, math.ceil(LEAST_STEPS * steps)), math.floor(MOST_STEPS * steps)))
        parts[fact.node_id] = Part(steps=bounded, encoding=encoding)
        predicted.append(transfer + bounded * batch / fact.samples_per_second.value)
    return Plan(parts=parts, quorum=math.ceil(2 * len(parts) / 3), deadline_s=GRACE * max(predicted))


def densest(fact: NodeFacts, *, count: int, scale: float, seconds: float) -> EncodingSpec:
    """The densest encoding that goes up within `seconds`, else the smallest."""
    for encoding in DENSITIES:
        if scale * encoded_bytes(count, encoding) / fact.up.value <= seconds:
            return encoding
    return DENSITIES[-1]
