"""What a replay means: tolerances, learnt for each class of machines from honest audits, and the judgement.

Before a class is calibrated its audits run in shadow mode: they are recorded, but nobody is slashed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from trainer.protocol.errors import HyperGPUError
from trainer.scoring.replay import Replay

Outcome = Literal["pass", "suspicious", "failed"]
LEAST_AUDITS = 300
"""Honest audits of a class before anybody is slashed by it: none failed then means at most 1 % would (rule of three)."""
FAILS = 3
"""Times the tolerance: beyond it, it is no drift."""
TOLERANCE = {"fp32": 0.02, "bf16": 0.10}
"""By precision, until a class is calibrated."""
MARGIN = 2
"""Times the honest 99 % quantile is a calibrated tolerance."""


class AuditClass(NamedTuple):
    """What drift depends on: `precision` of the job, and what operator and auditor compute on ("cpu", "NVIDIA H100")."""

    precision: str
    operator: str
    auditor: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """`errors` of honest audits of one class: on machines of the coordinator's own, or confirmed by a second auditor."""

    of: AuditClass
    errors: tuple[float, ...] = ()

    @property
    def shadow(self) -> bool:
        """Too few audits to slash anybody by."""
        return len(self.errors) < LEAST_AUDITS

    @property
    def tolerance(self) -> float:
        """The default, or what honest audits have shown if that is less."""
        default = TOLERANCE[self.of.precision]
        if self.shadow:
            return default
        return min(default, MARGIN * sorted(self.errors)[math.ceil(0.99 * len(self.errors)) - 1])


@dataclass(frozen=True, slots=True)
class Judgement:
    """`suspicious`: not paid, not slashed. `failed`: a second auditor decides; in `shadow` nobody is slashed in any case."""

    outcome: Outcome
    tolerance: float
    shadow: bool
    reasons: list[HyperGPUError]


def judge_replay(replay: Replay, calibration: Calibration) -> Judgement:
    """What a replay means. An unknown history alone is suspicious: an honest node has one after an order that it worked on but
    could not hand in."""
    tolerance, reasons = calibration.tolerance, list(replay.findings)
    if replay.error > tolerance:
        text = f"The segment computed again differs by {replay.error:.3g}; {tolerance:.3g} is tolerated."
        reasons.append(HyperGPUError("audit.diverged", text, error=replay.error, tolerance=tolerance))
    grave = any(reason.code not in ("audit.unknown_history", "audit.diverged") for reason in reasons)
    if grave or replay.error > FAILS * tolerance:
        return Judgement("failed", tolerance, calibration.shadow, reasons)
    return Judgement("suspicious" if reasons else "pass", tolerance, calibration.shadow, reasons)
