"""Many contributions become one: norms clipped to their median, then the geometric median or the weighted mean.

The loss gate (`trainer.scoring.quality.passes_gate`) comes before and decides who is in `contributions` at all. The gate
stops what harms the loss; clipping and the geometric median bound what still gets through.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.diloco.encoding import Tensors
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import AggregationSpec

MAX_ITERATIONS = 100
TOLERANCE = 1e-7
"""Weiszfeld stops when no weight moves by more."""
SMOOTHING = 1e-3
"""Distances count as at least this part of the median norm."""
MOST_MASS = 1.5
"""A node's mass is at most this multiple of the median units, so that of three or more none is a majority alone."""
COLUMNS = 1 << 20
"""Values of each contribution in float64 at a time: bounds memory at 8 MiB a node."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """An accepted contribution; `units` are samples, `score` the loss improvement it was accepted with (for the record)."""

    node_id: int
    pseudo_gradient: Tensors
    units: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`pseudo_gradient` = sum of weight * min(1, bound / norm) * update; weights sum to 1; norms are before clipping."""

    pseudo_gradient: Tensors
    weights: dict[int, float]
    norms: dict[int, float]
    iterations: int


def aggregate(contributions: list[Contribution], spec: AggregationSpec) -> Aggregate:
    """One pseudo-gradient (fp32) from many, whatever their order.

    Raises HyperGPUError `aggregation.empty` for none, `aggregation.duplicate_node` for two of one node.
    """
    ordered = sorted(contributions, key=lambda contribution: contribution.node_id)
    nodes = [contribution.node_id for contribution in ordered]
    if not ordered:
        raise HyperGPUError("aggregation.empty", "No contribution was accepted: there is nothing to aggregate.")
    if len(set(nodes)) != len(nodes):
        raise HyperGPUError("aggregation.duplicate_node", f"A node contributes once in a round, but these came: {nodes}.")
    products = inner_products(ordered)
    norms = products.diagonal().clamp(min=0).sqrt()
    bound = spec.clip_factor * statistics.median_low(norms.tolist())
    factors = torch.where(norms > bound, bound / norms, 1.0)
    mass = torch.tensor([float(max(contribution.units, 1)) for contribution in ordered], dtype=torch.float64)
    weights, iterations = mass / mass.sum(), 0
    if spec.rule == "geometric_median" and len(ordered) > 2:
        weights, iterations = geometric_median(products * factors * factors[:, None], mass)
    combined = combine(ordered, weights * factors)
    return Aggregate(combined, dict(zip(nodes, weights.tolist(), strict=True)),
                     dict(zip(nodes, norms.tolist(), strict=True)), iterations)  # fmt: skip


def inner_products(ordered: list[Contribution]) -> Tensor:
    """Matrix of dot products between all contributions, in float64."""
    products = torch.zeros(len(ordered), len(ordered), dtype=torch.float64)
    for name in sorted(ordered[0].pseudo_gradient):
        flat = [contribution.pseudo_gradient[name].flatten().split(COLUMNS) for contribution in ordered]
        for columns in zip(*flat, strict=True):
            table = torch.stack(columns).double()
            products += table @ table.T
    return products


def geometric_median(products: Tensor, mass: Tensor) -> tuple[Tensor, int]:
    """Weights (sum 1) whose combination has the least sum of mass * distance: smoothed Weiszfeld (Pillutla et al.,
    arXiv:1912.13445). It runs on dot products: the median lies in the span of the contributions.

    Of two contributions every point between them is a median, so callers take the mean then.
    """
    mass = mass.clamp(max=MOST_MASS * statistics.median_low(mass.tolist()))
    squares = products.diagonal()
    floor = SMOOTHING * statistics.median_low(squares.clamp(min=0).sqrt().tolist())
    weights = mass / mass.sum()
    iterations = 0
    while iterations < MAX_ITERATIONS:
        iterations += 1
        distances = (squares - 2 * products @ weights + weights @ products @ weights).clamp(min=0).sqrt()
        pulls = mass / distances.clamp(min=max(floor, 1e-30))
        before, weights = weights, pulls / pulls.sum()
        if (weights - before).abs().max() < TOLERANCE:
            break
    return weights, iterations


def combine(ordered: list[Contribution], factors: Tensor) -> Tensors:
    """Sum of factor * update, accumulated in float64 in the order of node ids."""
    combined = {}
    for name, first in sorted(ordered[0].pseudo_gradient.items()):
        total = torch.zeros(first.shape, dtype=torch.float64)
        for contribution, factor in zip(ordered, factors.tolist(), strict=True):
            total.add_(contribution.pseudo_gradient[name], alpha=factor)
        combined[name] = total.float()
    return combined
