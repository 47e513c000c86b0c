"""From samples to estimates: smoothed value and mean deviation, and a history that stays small. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

GAIN, DEVIATION_GAIN = 1 / 8, 1 / 4
"""Of the newest sample (RFC 6298, section 2)."""
RATE_GAIN = 1 / 4
"""Of the newest transfer or order: they come once a round, round trips many times."""
LEAST_SECONDS = 0.005
"""What took less says only that the rate is at least that: it is too short to be timed from outside."""
LOSS_MEMORY = 4000
"""Segments over which a loss rate is taken."""

Point = tuple[float, float]
"""(unix seconds, value)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A value, its smoothed mean deviation in the same unit, and how many samples it rests on."""

    value: float
    deviation: float = 0.0
    samples: int = 0


def smoothed(known: Estimate | None, sample: float, *, gain: float = GAIN) -> Estimate:
    """SRTT and RTTVAR as in RFC 6298, section 2; at first the deviation is taken to be half of the value."""
    if known is None:
        return Estimate(value=sample, deviation=sample / 2, samples=1)
    return Estimate(
        value=known.value + gain * (sample - known.value),
        deviation=known.deviation + DEVIATION_GAIN * (abs(sample - known.value) - known.deviation),
        samples=known.samples + 1,
    )


def rate(known: Estimate | None, *, amount: float, seconds: float) -> Estimate:
    """Amount a second (bytes of a transfer, samples of an order), both above 0. Its inverse is what is smoothed, since times
    are what is predicted from it: one slow transfer counts as the time that it cost."""
    if seconds < LEAST_SECONDS:
        seconds = LEAST_SECONDS
        if known is not None and known.value >= amount / seconds:
            return known
    pace = None
    if known is not None:
        pace = Estimate(value=1 / known.value, deviation=known.deviation / known.value**2, samples=known.samples)
    pace = smoothed(pace, seconds / amount, gain=RATE_GAIN)
    return Estimate(value=1 / pace.value, deviation=pace.deviation / pace.value**2, samples=pace.samples)


def part(known: Estimate | None, *, hits: int, trials: int) -> Estimate:
    """`hits` of `trials` and of what was known, back to LOSS_MEMORY trials (`samples` counts them); the deviation is that of a
    part of so many trials. Negative hits take back earlier ones."""
    before = min(known.samples, LOSS_MEMORY) if known else 0
    total = before + trials
    value = ((known.value if known else 0.0) * before + min(hits, trials)) / total
    value = max(value, 0.0)
    return Estimate(value=value, deviation=(value * (1 - value) / total) ** 0.5, samples=total)


def thinned(points: list[Point], *, now: float, most: int) -> list[Point]:
    """At most `most` of the points, in order of time: the newest are kept, and the older, the farther apart.

    Each time that point goes whose neighbours are closest to each other beside its age, so that the oldest and newest stay.
    """
    kept = list(points)
    while len(kept) > most:
        inner = range(1, len(kept) - 1)
        drop = min(inner, key=lambda place: (kept[place + 1][0] - kept[place - 1][0]) / max(now - kept[place][0], 1e-3))
        del kept[drop]
    return kept
