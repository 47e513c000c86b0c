"""Plain values between tasks and the engine: what goes in, what comes out. No torch, no database."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.protocol.spec import JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class JobWork:
    """A job's specification and its uploaded files by role."""

    spec: JobSpec
    files: dict[str, Path]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A job before its first round: checkpoint and outer state as safetensors bytes, metric of the evaluation split, and
    the largest contribution in bytes."""

    params: bytes
    outer_state: bytes
    metric: dict[str, float]
    upload_limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A contribution as it was handed in; submissions are ordered by the time of their commitments."""

    node_id: int
    units: int
    artifact: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundWork:
    """All that a round's outcome depends on, so that anyone who has it comes to the same result."""

    job: JobWork
    chain_job_id: int
    number: int
    base: str
    params: bytes
    outer_state: bytes
    previous_aggregate: bytes | None
    submissions: list[Submission]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What became of one submission. `quality` in basis points and `weight` in the aggregate for an accepted one, `code`
    and `reason` for a rejected one."""

    node_id: int
    score: dict[str, float] | None = None
    quality: int | None = None
    weight: float | None = None
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundResult:
    """A round's outcome; `evidence` is the public document that attestors recompute and sign for."""

    params: bytes
    outer_state: bytes
    aggregate: bytes
    metric: dict[str, float]
    verdicts: list[Verdict]
    evidence: dict[str, Any] = field(default_factory=dict)
