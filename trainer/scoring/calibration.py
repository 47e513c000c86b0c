"""What a replay means: tolerances, learnt for each class of machines from honest audits, and the judgement.

Before a class is calibrated its audits run in shadow mode: they are recorded, and nobody is hurt. Whether a class is, the
coordinator decides, which knows of false alarms too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from trainer.protocol.errors import HyperGPUError
from trainer.scoring.deterrence import CONVICTS, HONEST_AUDITS
from trainer.scoring.replay import Replay

Outcome = Literal["pass", "suspicious", "failed"]
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
    def tolerance(self) -> float:
        """The default, or what honest audits have shown if that is less."""
        default = TOLERANCE[self.of.precision]
        if len(self.errors) < HONEST_AUDITS:
            return default
        return min(default, MARGIN * sorted(self.errors)[math.ceil(0.99 * len(self.errors)) - 1])


def proves(replay: Replay, *, precision: str) -> bool:
    """Whether a failure is the node's for certain: every state shown lies under the root in its own signed upload, and they
    contradict each other or the work, beyond what is tolerated of any machine.

    A file that cannot be read, or shows states that the upload does not bind, proves nothing: anybody could have made it up. Nor
    does a replay of another order than the one that the upload is bound to: the node may have been given that one. And
    the default tolerance counts, not the learnt one, which the coordinator could move by inventing audits.
    """
    codes = {finding.code for finding in replay.findings}
    if codes & {"audit.not_committed", "audit.other_order"}:
        return False
    return bool(codes & CONVICTS) or replay.error > FAILS * TOLERANCE[precision]


@dataclass(frozen=True, slots=True)
class Judgement:
    """`suspicious`: more than machines of this class were seen to drift. `failed`: no drift at all."""

    outcome: Outcome
    tolerance: float
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
        return Judgement("failed", tolerance, reasons)
    return Judgement("suspicious" if reasons else "pass", tolerance, reasons)
