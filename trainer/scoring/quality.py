"""From scores to acceptance and pay. Pure arithmetic: anyone can recompute it from the published scores.

An accepted contribution earns half its pay for verified work and up to half for quality, relative to the other contributions
of its round and to what it was ordered to do. Not all for quality: near convergence the improvement of honest work is mostly
the noise of its batches, and pay that follows noise drives honest operators away.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainer.protocol.spec import EncodingSpec

WORK_POINTS = 5_000
"""Basis points for an accepted contribution, whatever its improvement."""
QUALITY_POINTS = 5_000
"""Basis points on top, for an improvement of at least `FULL_SHARE` of what is expected: the round's median, or less of who did
less."""
FULL_SHARE = 0.8
SLACK = 0.05
"""Nats that a contribution may always raise the held-out loss. Near convergence honest updates raise it too, by overfitting
their shard: by up to 0.042 in the worst of 60 rounds measured (a cnn on digits, 180 held-out samples, loss 0.08)."""
STEP_SCALE = 0.25
"""Part of an update at which it is scored, about its share in the aggregate of a round. The end of one node's steps lies
higher than the average of all nodes' ends: scored in full, honest updates raise the held-out loss from early on (a language
model: by 0.02 nats while their average lowers it by 0.06), and nothing could be told from their scores."""


LEAST_SHARE = 0.25
"""Part of the round's median improvement that an update must reach. Noise and flipped labels of honest size hardly harm at a
quarter step, and yet cost the model what honest work would give."""
SURE = 3.0
"""Standard errors by which it must miss that share before it is refused: near convergence all improvements are noise."""
TOO_LITTLE = 0.1
"""Part of the median improvement to expect of an update below which it is not held against it: a few steps in top k, whose error
feedback sends what others have sent by then, have raised the loss by 0.011 nats where the median lowered it by 0.05."""
SCATTERS = 3.0
"""By so much more than improvements do the errors of `scattered` differ at most, where they are rounded otherwise."""


@dataclass(frozen=True, slots=True)
class Score:
    """Held-out loss in nats before and after one contribution, taken at `STEP_SCALE`; `improvement` is their difference, `error`
    its standard error over the samples of the batch."""

    loss_before: float
    loss_after: float
    improvement: float
    error: float = 0.0

    @classmethod
    def from_json(cls, said: Mapping[str, float]) -> Score:
        return cls(**{name: float(value) for name, value in said.items()})


def passes_gate(score: Score, tolerance: float) -> bool:
    """Whether the update may enter the aggregate: refused when it raises the loss by more than the fraction `tolerance`
    plus `SLACK`, or to something that is not a number."""
    return math.isfinite(score.loss_after) and score.loss_after <= score.loss_before * (1 + tolerance) + SLACK


def carried(encoding: EncodingSpec) -> float:
    """Part of an update's energy that its encoding carries at once: all, or of top k what the k largest of a chunk of normal
    values have: 2 (t phi(t) + Q(t)) with 2 Q(t) = k / chunk."""
    if encoding.kind != "topk":
        return 1.0
    kept = encoding.k / encoding.chunk
    normal = statistics.NormalDist()
    least = normal.inv_cdf(1 - kept / 2)
    return 2 * least * normal.pdf(least) + kept


def expectations(work: Mapping[int, float]) -> dict[int, float]:
    """Part of the round's median improvement to expect of each node, 0..1, from its work: samples times `carried`.

    Who was ordered less, or to send less, improves less and is judged by that: by the square of its part, since the first steps
    of a round find less than those after them (a third of the steps had a sixth of the improvement, a quarter in top k a
    twentieth; first rounds of a byte GPT, 50 nodes). More is expected of nobody: twice the steps do not improve twice as much.
    """
    median = statistics.median(work.values()) if work else 0.0
    return {node: min(1.0, amount / median) ** 2 for node, amount in work.items()}


def falls_short(scores: Mapping[int, Score], expected: Mapping[int, float]) -> dict[int, float]:
    """Nodes whose update improves the loss by less than `LEAST_SHARE` of what is expected of it, beyond doubt, with that: the
    round's median times the node's part in `expected` (1 where it has none).

    Of two contributions none is judged by the other, none where the median improves nothing, and none of which `TOO_LITTLE` is
    expected.
    """
    return {
        node: wanted for node, wanted in improvements_wanted(scores, expected).items()
        if scores[node].improvement + SURE * scores[node].error < LEAST_SHARE * wanted
    }  # fmt: skip


def improvements_wanted(scores: Mapping[int, Score], expected: Mapping[int, float], *, rounding: float = 0.0) -> dict[int, float]:
    """Nats to expect of each node that is held to them; with `rounding`, by numbers which differ by as many nats."""
    if len(scores) < 3:
        return {}
    median = statistics.median(score.improvement for score in scores.values()) + rounding
    parts = {node: expected.get(node, 1.0) for node in scores}
    return {node: median * part for node, part in parts.items() if median > 0 and part >= TOO_LITTLE}


def scattered(scores: Mapping[int, Score]) -> dict[int, Score]:
    """The same scores, each as uncertain as the round's improvements are apart (their median absolute deviation, as the standard
    deviation that normal ones would have), where that is more than the batch makes it."""
    if not scores:
        return {}
    middle = statistics.median(score.improvement for score in scores.values())
    apart = 1.4826 * statistics.median(abs(score.improvement - middle) for score in scores.values())
    return {node: replace(score, error=max(score.error, apart)) for node, score in scores.items()}


def in_doubt(scores: Mapping[int, Score], expected: Mapping[int, float], tolerance: float, *, rounding: float = 0.0) -> bool:
    """Whether more samples could make one fail the gate of `tolerance`, or fall short: none does that surely passes already.
    With `rounding`, whether that may be so by numbers which differ by as many nats."""
    least = {node: score.improvement - SURE * score.error - (2 + SURE) * rounding for node, score in scores.items()}
    if any(least[node] < -(score.loss_before * tolerance + SLACK) for node, score in scores.items()):
        return True
    wanted = improvements_wanted(scores, expected, rounding=rounding)
    return any(least[node] < LEAST_SHARE * wanted[node] for node in wanted)


def qualities(scores: Mapping[int, float], expected: Mapping[int, float]) -> dict[int, int]:
    """Quality in basis points by node id, from the improvements of a round's accepted contributions and what is expected of
    each (`expectations`; 1 where it has none).

    When the median improvement is not positive nobody can be told apart from noise, and all are paid in full.
    """
    if not scores:
        return {}
    median = statistics.median(scores.values())
    if median <= 0:
        return dict.fromkeys(scores, WORK_POINTS + QUALITY_POINTS)
    return {
        node: WORK_POINTS + math.floor(QUALITY_POINTS * share(score, median * expected.get(node, 1.0)) + 0.5)
        for node, score in scores.items()
    }


def share(improvement: float, wanted: float) -> float:
    """Part of the quality points, 0 to 1."""
    return min(1.0, max(0.0, improvement / (FULL_SHARE * wanted)))
