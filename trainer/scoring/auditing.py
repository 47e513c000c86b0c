"""One audit from its files: read what the node gave, compute its segment again, judge."""

from __future__ import annotations

import math
from contextlib import suppress

from trainer.diloco.checkpoint import load_checkpoint
from trainer.diloco.encoding import read_header
from trainer.diloco.flat import Shapes
from trainer.diloco.local import default_device, device_class
from trainer.diloco.round import bench
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import AuditVerdict, AuditWork, Earlier
from trainer.scoring.calibration import AuditClass, Calibration, judge_replay, proves
from trainer.scoring.evidence import read_evidence
from trainer.scoring.replay import Guess, HandedIn, guess_after, replay_segment

VERDICTS = {"pass": "passed", "suspicious": "suspicious", "failed": "failed"}


def replay_audit(work: AuditWork) -> AuditVerdict:
    """Evidence that cannot be read is a failed audit. Raises HyperGPUError `artifact.*`, `data.*` or `model.*` when what the
    coordinator holds cannot be had: that says nothing against the node."""
    at, device = bench(work.job), default_device()
    base = load_checkpoint(work.params, shapes=at.shapes)
    machine, precision = device_class(device), work.order.spec.inner.precision
    calibration = Calibration(
        AuditClass(precision, work.operator_class, machine), tuple(work.honest_errors.get(machine, ()))
    )  # fmt: skip
    try:
        evidence = read_evidence(work.evidence, count=base.numel())
        replay = replay_segment(
            work.order, base, at.dataset, evidence, segment=work.segment, upload=work.upload,
            handed_in=handed_in(work.upload, work.steps),
            before=history_of(work.before), guess=guess_of(work.before, at.shapes), device=device,
        )  # fmt: skip
    except HyperGPUError as error:
        return AuditVerdict(verdict="failed", auditor_class=machine, code=error.code, reason=error.message)
    judged = judge_replay(replay, calibration)
    found = {reason.code: reason for reason in judged.reasons}
    gravest = next((reason for reason in judged.reasons if reason.code != "audit.unknown_history"), None)
    gravest = gravest or next(iter(judged.reasons), None)
    apart = found["audit.wrong_upload"].data["distance"] if "audit.wrong_upload" in found else 0.0
    return AuditVerdict(
        verdict=VERDICTS[judged.outcome], auditor_class=machine, error=number(replay.error), encoding_error=number(apart),
        tolerance=judged.tolerance, code=gravest.code if gravest else "", reason=gravest.message if gravest else "",
        proven=proves(replay, precision=precision),
    )  # fmt: skip


def history_of(before: Earlier | None) -> HandedIn | None:
    """None also where what came before was no update, and was refused for it: nothing can go on from there."""
    with suppress(HyperGPUError):
        return handed_in(before.upload, before.steps)._replace(round=before.order.round) if before is not None else None
    return None


def guess_of(before: Earlier | None, shapes: Shapes) -> Guess | None:
    """What a node may have begun from; None also where what came before was no update. Raises HyperGPUError `artifact.*` when the
    checkpoint, which is the coordinator's, cannot be read."""
    if before is None or before.params is None:
        return None
    base = load_checkpoint(before.params, shapes=shapes)
    with suppress(HyperGPUError):
        return guess_after(before.order, base, before.upload, shapes=shapes, bound=before.bound)
    return None


def handed_in(upload: bytes, steps: int) -> HandedIn:
    return HandedIn(read_header(upload).trace, steps)


def number(value: float) -> float | None:
    return value if math.isfinite(value) else None
