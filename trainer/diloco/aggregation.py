"""Many contributions become one, bit by bit the same on every machine: norms clipped to their median, then the rule.

The loss gate (`trainer.scoring.quality.passes_gate`) comes before and decides who is in `contributions` at all. The gate
stops what harms the loss; clipping and a robust rule bound what still gets through.

Distances are taken once, as dot products of integers (`exact.gram`); the rules that only weigh contributions then run on a
small matrix in Python's floats, whose operations are correctly rounded, with sums by `math.fsum`, which are exact.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.diloco.encoding import Update
from trainer.diloco.exact import GRID_BITS, WEIGHT_BITS, exponent_of, gram, to_grid
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import AggregationSpec

MAX_ITERATIONS = 100
TOLERANCE = 1e-7
"""Weiszfeld stops when no weight moves by more."""
SMOOTHING = 1e-3
"""Distances count as at least this part of the median norm."""
MOST_MASS = 1.5
"""A node's mass is at most this multiple of the median units, so that of three or more none is a majority alone."""
CENTERED_STEPS = 3
COLUMNS = 1 << 18
"""Coordinates of all contributions at a time."""

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Contribution:
    """An accepted contribution; `units` are samples, and weigh 1 / `discount` each (late work: Submission.origin)."""

    node_id: int
    update: Update
    units: int
    discount: float = 1.0


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`pseudo_gradient` (n,) fp32; `weights` sum to 1 (of the rules that choose by coordinate: the mass of each node);
    `norms` are before clipping."""

    pseudo_gradient: Tensor
    weights: dict[int, float]
    norms: dict[int, float]


def aggregate(contributions: Sequence[Contribution], spec: AggregationSpec) -> Aggregate:
    """One pseudo-gradient from many, whatever their order: the same contributions give the same bits anywhere.

    A coordinate that a sparse update does not hold is not a vote for zero: it is averaged over its senders, but over no less
    than `least_senders` of the round's weight.
    Raises HyperGPUError `aggregation.empty` for none, `aggregation.duplicate_node` for two of one node.
    """
    ordered = sorted(contributions, key=lambda contribution: contribution.node_id)
    nodes = [contribution.node_id for contribution in ordered]
    if not ordered:
        raise HyperGPUError("aggregation.empty", "No contribution was accepted: there is nothing to aggregate.")
    if len(set(nodes)) != len(nodes):
        raise HyperGPUError("aggregation.duplicate_node", f"A node contributes once in a round, but these came: {nodes}.")
    updates = [contribution.update for contribution in ordered]
    products = gram([update.values for update in updates])
    norms = [math.sqrt(products[i][i]) for i in range(len(nodes))]
    bound = spec.clip_factor * statistics.median_low(norms)
    factors = [bound / norm if norm > bound else 1.0 for norm in norms]
    clipped = [[products[i][j] * factors[i] * factors[j] for j in range(len(nodes))] for i in range(len(nodes))]
    masses = [max(contribution.units, 1) / contribution.discount for contribution in ordered]
    # Of two, no rule can tell who lies.
    rule = RULES[spec.rule] if len(nodes) > 2 else weighted_mean
    weights = rule(clipped, masses, spec)
    combine = BY_COORDINATE.get(spec.rule, weighted) if len(nodes) > 2 else weighted
    return Aggregate(
        combine(updates, factors, weights, spec), dict(zip(nodes, weights, strict=True)), dict(zip(nodes, norms, strict=True))
    )


# Rules on distances: weights (sum 1) from dot products and masses.


def weighted_mean(products: Matrix, masses: Sequence[float], spec: AggregationSpec) -> list[float]:
    """By units alone. With the loss gate before it this is a score-gated mean."""
    return normalized(masses)


def multi_krum(products: Matrix, masses: Sequence[float], spec: AggregationSpec) -> list[float]:
    """The mean of the n - f contributions that lie nearest to their n - f - 2 nearest (Blanchard et al. 2017)."""
    count = len(masses)
    hostile = min(math.floor(spec.hostile * count), (count - 3) // 2)
    near = [
        math.fsum(sorted(distance(products, i, j) for j in range(count) if j != i)[: count - hostile - 2]) for i in range(count)
    ]
    chosen = set(sorted(range(count), key=lambda i: (near[i], i))[: count - hostile])
    return normalized([mass if i in chosen else 0.0 for i, mass in enumerate(bounded(masses))])


def geometric_median(products: Matrix, masses: Sequence[float], spec: AggregationSpec) -> list[float]:
    """The weights whose combination has the least sum of mass * distance: smoothed Weiszfeld (Pillutla et al.,
    arXiv:1912.13445). The median lies in the span of the contributions, so their dot products are enough."""
    masses = bounded(masses)
    floor = max(SMOOTHING * statistics.median_low([math.sqrt(products[i][i]) for i in range(len(masses))]), 1e-30)
    weights = normalized(masses)
    for _ in range(MAX_ITERATIONS):
        distances = distances_to(products, weights)
        before, weights = weights, normalized([mass / max(far, floor) for mass, far in zip(masses, distances, strict=True)])
        if max(abs(new - old) for new, old in zip(weights, before, strict=True)) < TOLERANCE:
            break
    return weights


def centered_clipping(products: Matrix, masses: Sequence[float], spec: AggregationSpec) -> list[float]:
    """Steps towards all contributions, none longer than the median distance (Karimireddy et al., arXiv:2012.10333). It begins
    at the contribution that is nearest to all others: a centre of earlier rounds would be one that attackers can steer."""
    count = len(masses)
    masses = normalized(bounded(masses))
    medoid = min(range(count), key=lambda i: (math.fsum(math.sqrt(distance(products, i, j)) for j in range(count)), i))
    weights = [1.0 if i == medoid else 0.0 for i in range(count)]
    for _ in range(CENTERED_STEPS):
        distances = distances_to(products, weights)
        radius = statistics.median_low(distances)
        steps = [mass * (min(1.0, radius / far) if far > 0 else 1.0) for mass, far in zip(masses, distances, strict=True)]
        rest = 1.0 - math.fsum(steps)
        weights = [weight * rest + step for weight, step in zip(weights, steps, strict=True)]
    return normalized(weights)


Rule = Callable[[Matrix, Sequence[float], AggregationSpec], list[float]]
RULES: dict[str, Rule] = {
    "weighted_mean": weighted_mean, "coordinate_median": weighted_mean, "trimmed_mean": weighted_mean,
    "multi_krum": multi_krum, "geometric_median": geometric_median, "centered_clipping": centered_clipping,
}  # fmt: skip


def bounded(masses: Sequence[float]) -> list[float]:
    limit = MOST_MASS * statistics.median_low(masses)
    return [min(mass, limit) for mass in masses]


def normalized(masses: Sequence[float]) -> list[float]:
    total = math.fsum(masses)
    return [mass / total for mass in masses]


def distance(products: Matrix, i: int, j: int) -> float:
    """Squared."""
    return max(0.0, math.fsum((products[i][i], products[j][j], -2 * products[i][j])))


def distances_to(products: Matrix, weights: Sequence[float]) -> list[float]:
    """From each contribution to the combination by `weights`."""
    rows = [math.fsum(product * weight for product, weight in zip(row, weights, strict=True)) for row in products]
    square = math.fsum(row * weight for row, weight in zip(rows, weights, strict=True))
    return [math.sqrt(max(0.0, math.fsum((products[i][i], -2 * rows[i], square)))) for i in range(len(rows))]


# From weights, or coordinate by coordinate, to one vector.

Combine = Callable[[Sequence[Update], Sequence[float], Sequence[float], AggregationSpec], Tensor]


def weighted(updates: Sequence[Update], factors: Sequence[float], weights: Sequence[float], spec: AggregationSpec) -> Tensor:
    """Per coordinate: sum of weight * factor * value over its senders, by the sum of their weights or `least_senders`."""
    shares = [round(math.ldexp(weight, WEIGHT_BITS)) for weight in weights]
    least = round(math.ldexp(spec.least_senders, WEIGHT_BITS))

    def of_block(values: list[Tensor], sent: list[Tensor | None]) -> Tensor:
        total, weight = torch.zeros(len(values[0]), dtype=torch.int64), torch.zeros(len(values[0]), dtype=torch.int64)
        for share, value, mask in zip(shares, values, sent, strict=True):
            total.add_(value.to(torch.int64) * share)
            weight.add_(share if mask is None else mask.to(torch.int64) * share)
        return total.double() / weight.clamp(min=least).double()

    return by_blocks(updates, factors, of_block)


def median_of_senders(
    updates: Sequence[Update], factors: Sequence[float], weights: Sequence[float], spec: AggregationSpec
) -> Tensor:
    """Per coordinate: the median of its senders (Yin et al., arXiv:1803.01498), scaled down when they are few."""
    return by_coordinate(updates, factors, spec, trim=lambda senders: (senders - 1).div(2, rounding_mode="floor"))


def trimmed_mean_of_senders(
    updates: Sequence[Update], factors: Sequence[float], weights: Sequence[float], spec: AggregationSpec
) -> Tensor:
    """Per coordinate: the mean without the `hostile` part at each end (Yin et al., arXiv:1803.01498)."""
    part = round(math.ldexp(spec.hostile, WEIGHT_BITS))
    return by_coordinate(
        updates, factors, spec,
        trim=lambda senders: torch.minimum(
            (senders * part).bitwise_right_shift(WEIGHT_BITS), (senders - 1).div(2, rounding_mode="floor")
        ),
    )  # fmt: skip


def by_coordinate(
    updates: Sequence[Update], factors: Sequence[float], spec: AggregationSpec, *, trim: Callable[[Tensor], Tensor]
) -> Tensor:
    """The mean of what is left of a coordinate's sorted values when `trim(senders)` are cut off at each end."""
    least = math.ceil(spec.least_senders * len(updates))

    def of_block(values: list[Tensor], sent: list[Tensor | None]) -> Tensor:
        table = torch.stack([value.to(torch.int64) for value in values])
        present = torch.stack(
            [torch.ones_like(row, dtype=torch.bool) if mask is None else mask for row, mask in zip(table, sent, strict=True)]
        )
        senders = present.sum(0)
        ordered = table.where(present, torch.iinfo(torch.int64).max).sort(0).values
        cut = trim(senders).clamp(min=0)
        place = torch.arange(len(updates))[:, None]
        kept = (place >= cut) & (place < senders - cut)
        count = kept.sum(0).clamp(min=1)
        mean = ordered.where(kept, 0).sum(0).double() / count.double()
        return mean * senders.clamp(max=least).double() / least

    return by_blocks(updates, factors, of_block)


BY_COORDINATE: dict[str, Combine] = {"coordinate_median": median_of_senders, "trimmed_mean": trimmed_mean_of_senders}


def by_blocks(
    updates: Sequence[Update], factors: Sequence[float], of_block: Callable[[list[Tensor], list[Tensor | None]], Tensor]
) -> Tensor:
    """`of_block` over the clipped values as integers (in float64) on one grid, block by block; (n,) fp32."""
    exponent = max(exponent_of(update.values * factor) for update, factor in zip(updates, factors, strict=True)) + 1
    back = math.ldexp(1.0, exponent - GRID_BITS)
    parts = [
        of_block(
            [to_grid(update.values[at].double() * factor, exponent) for update, factor in zip(updates, factors, strict=True)],
            [None if update.sent is None else update.sent[at] for update in updates],
        )
        * back
        for at in blocks(len(updates[0].values))
    ]
    return torch.cat(parts).float() if parts else torch.zeros(0)


def blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + COLUMNS) for start in range(0, count, COLUMNS))
