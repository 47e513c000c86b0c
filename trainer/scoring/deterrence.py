"""Does cheating pay? The arithmetic behind audit rate and stake; no torch, no data.

Money is counted in rounds of reward: 1 is what a node earns for an honest round. A node that skips the part `skipped` of its work
saves `cost_share * skipped` a round, and loses what is at stake once a segment that it skipped is audited: for each false receipt
the court takes the pay back and as much again (`CASE_TAKES`), however much more the node has. It also loses its place for a
while, which is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SAFETY = 3.0
"""Times the least stake at which honesty pays."""
CASE_TAKES = 2.0
"""Rounds of reward that a case takes for a receipt at full pay: the pay, and as much again (contracts/src/DisputeCourt.sol,
`_correct`), from the node's credit, then from its operator's stake."""
COST_SHARE = 0.7
"""Part of the reward that honest work costs (power, wear, rent)."""

CONVICTS = {
    "audit.wrong_upload", "audit.wrong_border", "audit.impossible_moments", "audit.not_finite", "audit.wrong_lead",
}  # fmt: skip
"""Findings that follow from the states which the upload's trace root binds, and from nothing that the node has not signed."""
HONEST_AUDITS = 300
"""Honest audits of a class of machines before its verdicts count: none failed then means that at most 1 % would (95 % confidence,
the rule of three)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPolicy:
    """`rate`: part of the contributions that is audited; `audited` of `segments` segments are replayed then; `miss_rate`: of a
    skipped segment that is replayed (measured: `./scripts/bench audits`)."""

    rate: float
    segments: int
    audited: int = 1
    miss_rate: float = 0.0

    @property
    def compute_share(self) -> float:
        """Work of auditors for each unit of work of operators."""
        return self.rate * min(self.audited, self.segments) / self.segments


@dataclass(frozen=True, kw_only=True, slots=True)
class Deterrence:
    """What a node that skips the part `skipped` must expect. `detection`: that an audit of its contribution sees it; `caught`:
    that a round ends with that; `gain`: saved less lost, a round, negative when cheating does not pay; `needed`: at stake, so
    that it does not, `SAFETY` times; `rounds`: expected until it is caught."""

    skipped: float
    detection: float
    caught: float
    saved: float
    lost: float
    needed: float
    rounds: float

    @property
    def gain(self) -> float:
        return self.saved - self.lost


def detection(skipped: float, policy: AuditPolicy) -> float:
    """That at least one of the audited segments is among the skipped ones: 1 - C(S - k, m) / C(S, m), times what is not missed.
    The skipped steps lie in as few segments as they fit, which is best for the cheat."""
    segments, audited = policy.segments, min(policy.audited, policy.segments)
    hit = math.ceil(skipped * segments - 1e-9)
    seen = 1 - math.comb(segments - hit, audited) / math.comb(segments, audited)
    return seen * (1 - policy.miss_rate)


def deterrence(
    skipped: float, policy: AuditPolicy, *, at_stake: float, cost_share: float = COST_SHARE, safety: float = SAFETY
) -> Deterrence:
    """For a node that skips the part `skipped` (0 to 1) of its work and loses `at_stake` when it is caught."""
    found = detection(skipped, policy)
    caught, saved = policy.rate * found, cost_share * skipped
    return Deterrence(
        skipped=skipped, detection=found, caught=caught, saved=saved, lost=caught * at_stake,
        needed=safety * saved / caught if caught else (math.inf if saved else 0.0),
        rounds=1 / caught if caught else math.inf,
    )  # fmt: skip


def needed_at_stake(policy: AuditPolicy, *, cost_share: float = COST_SHARE, safety: float = SAFETY) -> float:
    """A loss that deters whatever part is skipped: safety * cost / (rate * (1 - miss rate)), since an audit sees at least the
    part that was skipped."""
    certain = policy.rate * (1 - policy.miss_rate)
    return safety * cost_share / certain if certain else math.inf


def needed_rate(*, miss_rate: float, at_stake: float = CASE_TAKES, cost_share: float = COST_SHARE, safety: float = 1.0) -> float:
    """Part of the contributions to audit so that losing `at_stake` deters, once over; above 1 no audits are enough."""
    return safety * cost_share / (at_stake * (1 - miss_rate))
