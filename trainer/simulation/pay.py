"""What a node of a simulated job is paid, by the product's rules, and what audits take from it.

A round pays units times quality for an accepted contribution and nothing for a refused one. A replay audit, by chance at the
rates of the job's AuditSpec, finds a contribution false when it looks at one of its false segments. What a node was paid for
can be disputed for the contracts' challenge window (a day on mainnet), so all rounds of a job that is shorter are within reach
when it is caught: each false receipt is a case of its own at the court (DisputeCourt, kind Quality), which takes its pay back
and as much again as a penalty, from credit first, then from stake; and the node is excluded from the job. The product
audits all its other rounds of the window then; that the node answers, and that each false one is found, is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trainer.diloco.trace import borders
from trainer.protocol.spec import AuditSpec
from trainer.scoring.deterrence import AuditPolicy, detection
from trainer.simulation.rounds import Row

ONE = 10_000
"""Full quality in basis points."""


class Kept(NamedTuple):
    """Expected over all draws of audits: `pay` that a node keeps, and what it keeps when penalties from stake are counted."""

    pay: float
    net: float


def earned(rows: Sequence[Row], node: int) -> list[float]:
    """Samples at full quality that each round pays the node for, where it was accepted."""
    return [row.units[node] * row.qualities[node] / ONE for row in rows if node in row.qualities]


def kept(pay: Sequence[float], spec: AuditSpec, *, steps: int, false: float) -> Kept:
    """What audits leave of `pay`, one entry for each accepted round of `steps`, of whose segments the part `false` is false."""
    unseen, net = 1.0, 0.0
    for number, _ in enumerate(pay):
        rate = spec.newcomer_rate if number < spec.newcomer_rounds else spec.rate
        segments = len(borders(steps, spec.stride)) - 1
        found = rate * detection(false, AuditPolicy(rate=rate, segments=segments, audited=spec.segments))
        net -= unseen * found * sum(pay[: number + 1])
        unseen *= 1 - found
    return Kept(unseen * sum(pay), net + unseen * sum(pay))
