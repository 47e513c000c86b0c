"""Traces of orders on disk, for as long as there is room: what a replay audit may ask for.

A file holds the leaves of the trace one behind the other, in their order, then what is said about them: JSON, length u32 of it.
"""

from __future__ import annotations

import itertools
import json
import struct
from contextlib import suppress
from typing import Any

import torch

from trainer.diloco.spill import Part, Parts, Spill
from trainer.diloco.trace import Trace
from trainer.operator.config import Home
from trainer.operator.results import Evidence, save_artifact
from trainer.protocol.errors import HyperGPUError
from trainer.scoring.evidence import gather_evidence, write_evidence

LENGTH = struct.Struct("<I")


def save_trace(home: Home, artifact: str, trace: Trace, *, job_id: int, round: int, before: str | None) -> None:
    """The trace of the order that gave `artifact`; `before` is the artifact of the order that it goes on from. Its states are in
    the file already; one that has been deleted meanwhile, to make room, is not kept."""
    spill, leaves = trace.spill, trace.leaves()
    if spill is None or not isinstance(trace.movements, Parts) or not isinstance(trace.moments, Parts):
        raise ValueError("only a trace that is written to a folder can be kept there")
    ends = (trace.error_before, trace.error_after, trace.lead, trace.order)
    states = [part.size for border in zip(trace.movements.parts, trace.moments.parts, strict=True) for part in border]
    about = {
        "job_id": job_id, "round": round, "before": before, "steps": trace.steps, "sizes": states + [len(part) for part in ends],
        "leaves": [leaf.hex() for leaf in leaves],
    }  # fmt: skip
    text = json.dumps(about).encode()
    spill.add(b"".join([*ends, text, LENGTH.pack(len(text))]))
    with suppress(FileNotFoundError):
        spill.keep(home.traces / artifact)


def load_trace(home: Home, artifact: str) -> tuple[Trace, dict[str, Any]]:
    """The trace without its base, its states still on disk, and what is said about it. Raises HyperGPUError `audit.gone`."""
    try:
        spill = Spill(home.traces, artifact)
        size = spill.file.seek(0, 2)
        (length,) = LENGTH.unpack(spill.read(size - LENGTH.size, LENGTH.size))
        about = json.loads(spill.read(size - LENGTH.size - length, length))
        offsets = itertools.accumulate(about["sizes"], initial=0)
        parts = [Part(*part) for part in zip(offsets, about["sizes"], map(bytes.fromhex, about["leaves"]), strict=False)]
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise HyperGPUError("audit.gone", f"How {artifact} came about is not kept any more.") from error
    *states, error_before, error_after, lead, order = parts
    before, after, led, ordered = (spill.read(part.offset, part.size) for part in (error_before, error_after, lead, order))
    trace = Trace(torch.empty(0), before, after, led, steps=about["steps"], order=ordered)
    trace.movements, trace.moments = Parts(spill, states[::2]), Parts(spill, states[1::2])
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
