"""From scores to acceptance and pay. Pure arithmetic: anyone can recompute it from the published scores.

An accepted contribution earns half its pay for verified work and up to half for quality, relative to the other
contributions of its round. Not all for quality: near convergence the improvement of honest work is mostly the noise of its
batches, and pay that follows noise drives honest operators away.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

WORK_POINTS = 5_000
"""Basis points for an accepted contribution, whatever its improvement."""
QUALITY_POINTS = 5_000
"""Basis points on top, for an improvement of at least `FULL_SHARE` of the round's median."""
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


@dataclass(frozen=True, slots=True)
class Score:
    """Held-out loss in nats before and after one contribution, taken at `STEP_SCALE`; `improvement` is their difference, `error`
    its standard error over the samples of the batch."""

    loss_before: float
    loss_after: float
    improvement: float
    error: float = 0.0


def passes_gate(score: Score, tolerance: float) -> bool:
    """Whether the update may enter the aggregate: refused when it raises the loss by more than the fraction `tolerance`
    plus `SLACK`, or to something that is not a number."""
    return math.isfinite(score.loss_after) and score.loss_after <= score.loss_before * (1 + tolerance) + SLACK


def falls_short(scores: Mapping[int, Score]) -> dict[int, float]:
    """Nodes whose update improves the loss by less than `LEAST_SHARE` of the round's median, beyond doubt, with that median.

    Of two contributions none is judged by the other, and where the median improves nothing, none is at all.
    """
    if len(scores) < 3:
        return {}
    median = statistics.median(score.improvement for score in scores.values())
    if median <= 0:
        return {}
    return {node: median for node, score in scores.items() if score.improvement + SURE * score.error < LEAST_SHARE * median}


def qualities(scores: Mapping[int, float]) -> dict[int, int]:
    """Quality in basis points by node id, from the improvements of a round's accepted contributions.

    When the median improvement is not positive nobody can be told apart from noise, and all are paid in full.
    """
    if not scores:
        return {}
    median = statistics.median(scores.values())
    if median <= 0:
        return dict.fromkeys(scores, WORK_POINTS + QUALITY_POINTS)
    return {node: WORK_POINTS + math.floor(QUALITY_POINTS * share(score, median) + 0.5) for node, score in scores.items()}


def share(improvement: float, median: float) -> float:
    """Part of the quality points, 0 to 1."""
    return min(1.0, max(0.0, improvement / (FULL_SHARE * median)))
