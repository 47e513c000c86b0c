"""Traces of orders on disk, for as long as there is room: what a replay audit may ask for.

A file is a line of JSON, then the leaves of the trace one behind the other, in their order.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from trainer.diloco.trace import Trace
from trainer.operator.config import Home
from trainer.operator.results import Evidence, save_artifact
from trainer.protocol.errors import HyperGPUError
from trainer.scoring.evidence import gather_evidence, write_evidence


def save_trace(home: Home, artifact: str, trace: Trace, *, job_id: int, round: int, before: str | None) -> None:
    """The trace of the order that gave `artifact`; `before` is the artifact of the order that it goes on from."""
    parts = [part for border in zip(trace.movements, trace.moments, strict=True) for part in border]
    parts += [trace.error_before, trace.error_after, trace.lead, trace.order]
    about = {"job_id": job_id, "round": round, "before": before, "steps": trace.steps, "sizes": [len(part) for part in parts]}
    temporary = home.traces / f".{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(json.dumps(about).encode() + b"\n")
        file.writelines(parts)
    os.replace(temporary, home.traces / artifact)


def load_trace(home: Home, artifact: str) -> tuple[Trace, dict[str, Any]]:
    """The trace without its base, and the line about it. Raises HyperGPUError `audit.gone`."""
    try:
        with (home.traces / artifact).open("rb") as file:
            about = json.loads(file.readline())
            parts = [file.read(size) for size in about["sizes"]]
    except FileNotFoundError as error:
        raise HyperGPUError("audit.gone", f"How {artifact} came about is not kept any more.") from error
    *states, error_before, error_after, lead, order = parts
    trace = Trace(torch.empty(0), error_before, error_after, lead, steps=about["steps"], order=order)
    trace.movements, trace.moments = states[::2], states[1::2]
    return trace, about


def gather(home: Home, artifact: str, segment: int) -> Evidence:
    """A file with what an audit of `segment` asks for. Raises HyperGPUError `audit.gone`, also for no such segment."""
    trace, about = load_trace(home, artifact)
    if not 0 <= segment < len(trace.movements) - 1:
        raise HyperGPUError("audit.gone", f"{artifact} has {len(trace.movements) - 1} segments, {segment} is asked for.")
    try:
        before = load_trace(home, about["before"])[0] if about["before"] else None
    except HyperGPUError:
        before = None
    data = write_evidence(gather_evidence(trace, segment, before=before))
    return Evidence(sha256=save_artifact(home, data), size=len(data), job_id=about["job_id"], round=about["round"])
