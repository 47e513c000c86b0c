"""Whether a node takes part, and with how much: a score of what is known of it, and a way back for those left out.

score = 0.4 compute + 0.3 network + 0.2 quality + 0.1 uptime, each 0..1:
compute  the node's samples/s by the median of the job's nodes, at most 1; 0.5 while its speed is assumed
network  part of its orders that came in time, recent ones first, times (1 - loss of its link)
quality  of its gradients (basis points of its receipts / 10,000), recent ones first
uptime   part of the time in which it was heard
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.network.facts import NodeFacts, Reason

FORGETTING = 0.8
"""Weight of a round beside the one after it."""
Level = Literal["high", "normal", "low", "probation", "excluded"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthSettings:
    """Weights sum to 1. A score above `high`, `normal`, `low` gives that level, else the node is left out for
    `first_rounds`, twice as long each time again, `most_rounds` at most. `low_steps`: part of the job's local steps that a node
    of level low is given at most."""

    compute: float = 0.4
    network: float = 0.3
    quality: float = 0.2
    uptime: float = 0.1
    high: float = 0.8
    normal: float = 0.5
    low: float = 0.3
    low_steps: float = 0.5
    first_rounds: int = 2
    most_rounds: int = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A node's level in a job. Excluded until round `until`, for the `exclusions`-th time since it was last normal; on probation
    since round `until`."""

    level: Level
    score: float
    until: int = 0
    exclusions: int = 0
    reason: Reason


def parts_of(fact: NodeFacts, *, median_speed: float) -> dict[str, float]:
    """What the score is made of, each 0..1. A newcomer's reliability, quality and uptime count as 1 until they are known: it can
    take part."""
    speed = fact.samples_per_second
    return {
        "compute": 0.5 if speed.source == "assumed" else min(1.0, speed.value / median_speed),
        "network": fact.reliability * (1 - fact.loss.value), "quality": fact.quality, "uptime": fact.uptime,
    }  # fmt: skip


def score_of(fact: NodeFacts, *, median_speed: float, settings: HealthSettings) -> float:
    """0..1."""
    return sum(getattr(settings, name) * value for name, value in parts_of(fact, median_speed=median_speed).items())


def assess(
    fact: NodeFacts, before: Standing | None, *, round: int, median_speed: float, kept: bool | None = None,
    settings: HealthSettings = HealthSettings(),
) -> Standing:  # fmt: skip
    """The standing for round `round`. `kept`: whether the node's last order was kept, None when it had none
    (on probation: since that began).

    Who falls to `low` or below is left out, then comes back on probation with the least steps: while it keeps its orders it
    stays until its score has recovered; when it fails one it is left out for twice as long. Nobody is left out unseen: without
    a standing `before` the lowest level is probation.
    """
    score = score_of(fact, median_speed=median_speed, settings=settings)
    exclusions = before.exclusions if before else 0
    figures = (
        f"Health {score:.2f}: {fact.samples_per_second.value:.3g} samples/s where the median has {median_speed:.3g}, "
        f"{fact.reliability:.0%} of its orders kept, quality {fact.quality:.2f}, heard {fact.uptime:.0%} of the time."
    )

    def standing(level: Level, text: str, **changes: int) -> Standing:
        values = {"exclusions": exclusions} | changes
        return Standing(level=level, score=score, reason=Reason(code=f"health.{level}", text=f"{figures} {text}"), **values)

    if before and before.level == "excluded" and round < before.until:
        return standing("excluded", f"Left out until round {before.until}.", until=before.until)
    if score > settings.high:
        return standing("high", "First to be given steps that are left over.", exclusions=0)
    if score > settings.normal:
        return standing("normal", "Takes part in full.", exclusions=0)
    if score > settings.low:
        return standing("low", f"At most {settings.low_steps:.0%} of the job's local steps.")
    if before is None or before.level == "excluded" or (before.level == "probation" and kept is not False):
        since = before.until if before and before.level == "probation" else round
        return standing("probation", "On probation with the least steps: it stays while it keeps its orders.", until=since)
    pause = min(settings.first_rounds * 2**exclusions, settings.most_rounds)
    return standing("excluded", f"Left out until round {round + pause}.", until=round + pause, exclusions=exclusions + 1)


def recent(values: Sequence[float], *, unknown: float = 1.0) -> float:
    """Mean of values, newest first, each weighing `FORGETTING` of the one after it."""
    weights = [FORGETTING**age for age in range(len(values))]
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights) if values else unknown
