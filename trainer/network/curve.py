"""How many rounds a target takes: a power law through the job's own losses, with an interval that says what is not known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.protocol.spec import JobSpec

LEAST_POINTS = 6
"""Rounds before which a fit of three constants says nothing."""
FLOORS = 40
"""Values of the floor c that are tried between 0 and the lowest loss so far."""
PLAUSIBLE = 4.0
"""A floor is plausible while the residual sum of squares is at most (1 + PLAUSIBLE / (n - 3)) of the least: about the 95 %
interval of a profile likelihood (F distribution with 1 and n - 3 degrees of freedom, large n)."""
DOUBT = 2.0
"""Standard deviations of the residuals by which the target may be met earlier or later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """Rounds from the job's start to its target. `high` None: it may never get there. `known`: from the job's own losses, not
    from its specification alone."""

    expected: float
    low: float
    high: float | None
    known: bool
    basis: str


def rounds_to_target(spec: JobSpec, seen: Sequence[tuple[int, float]]) -> Rounds:
    """`seen`: (rounds done, value of the target's metric), from 1 on.

    The distance y from a perfect metric (the loss, or 1 - accuracy) after r rounds is taken as a * r^-b + c (Hestness et al.,
    arXiv:1712.00409). For each c a line through log(y - c) gives a and b; every plausible c gives a number of rounds. Until
    there are enough rounds the job's own number of them stands for the answer, and nothing says that it suffices.
    """
    target = distance(spec.target.metric, spec.target.value)
    points = [(float(number), distance(spec.target.metric, value)) for number, value in seen if number >= 1]
    total = float(spec.rounds.rounds)
    if reached := next((number for number, value in points if value <= target), None):
        return Rounds(
            expected=reached, low=reached, high=reached, known=True, basis=f"The target was reached in round {reached:g}."
        )
    assumed = f"Its {total:g} rounds are taken to be needed: nothing says yet that they suffice."
    if len(points) < LEAST_POINTS:
        return Rounds(
            expected=total, low=float(len(points)), high=None, known=False, basis=f"{len(points)} rounds seen. {assumed}"
        )
    fits = [fit for fit in (fitted(points, floor) for floor in floors(points)) if fit is not None]
    if not fits:
        return Rounds(expected=total, low=points[-1][0], high=None, known=False, basis=f"It does not improve so far. {assumed}")
    best = min(fits, key=lambda fit: fit.squares)
    limit = best.squares * (1 + PLAUSIBLE / (len(points) - 3)) + 1e-12
    plausible = [fit for fit in fits if fit.squares <= limit]
    now = points[-1][0]
    lows = [fit.rounds_to(target, shift=-DOUBT) for fit in plausible]
    highs = [fit.rounds_to(target, shift=DOUBT) for fit in plausible]
    expected = best.rounds_to(target)
    known = expected is not None
    basis = (
        f"{len(points)} rounds seen; {spec.target.metric} follows {best.scale:.3g} * r^-{best.power:.2g} + {best.floor:.3g}"
        f"{'' if known else f', which never meets the target. {assumed}'}"
    )
    return Rounds(
        expected=max(expected, now) if expected is not None else total,
        low=max(now, min((low for low in lows if low is not None), default=now)),
        high=None if any(high is None for high in highs) else max(now, *(high for high in highs if high is not None)),
        known=known, basis=basis,
    )  # fmt: skip


def distance(metric: str, value: float) -> float:
    return 1 - value if metric == "accuracy" else value


@dataclass(frozen=True, slots=True)
class Fit:
    """y = scale * r^-power + floor; `squares` of the residuals of log(y - floor), `deviation` their standard deviation."""

    scale: float
    power: float
    floor: float
    squares: float
    deviation: float

    def rounds_to(self, target: float, *, shift: float = 0.0) -> float | None:
        if target <= self.floor:
            return None
        exponent = (math.log(self.scale / (target - self.floor)) + shift * self.deviation) / self.power
        return math.exp(exponent) if exponent < 50 else None


def floors(points: Sequence[tuple[float, float]]) -> list[float]:
    lowest = min(value for _, value in points)
    return [lowest * place / FLOORS for place in range(FLOORS)]


def fitted(points: Sequence[tuple[float, float]], floor: float) -> Fit | None:
    """Least squares of log(y - floor) on log r; None when it does not fall, or the points lie on the floor."""
    if min(value for _, value in points) <= floor:
        return None
    xs, ys = [math.log(number) for number, _ in points], [math.log(value - floor) for _, value in points]
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / math.fsum((x - mean_x) ** 2 for x in xs)
    if slope >= -1e-3:
        return None
    start = mean_y - slope * mean_x
    # Each residual counts by what it is of y itself: the log of a small rest above the floor exaggerates noise.
    squares = math.fsum((value - floor - math.exp(start + slope * x)) ** 2 for x, (_, value) in zip(xs, points, strict=True))
    logs = math.fsum((start + slope * x - y) ** 2 for x, y in zip(xs, ys, strict=True))
    return Fit(math.exp(start), -slope, floor, squares, math.sqrt(logs / max(len(points) - 3, 1)))
