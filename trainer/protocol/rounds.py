"""A round as plain values: what decides its outcome, and what came out. No torch, no database.

Whoever holds a `RoundWork` comes to the same `RoundResult`, bit by bit but for the scores, which are floating-point measurements:
the coordinator, an attestor, a stranger with `hypergpu audit`, the simulation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import EncodingSpec, JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class JobWork:
    """A job's specification and its uploaded files by role."""

    spec: JobSpec
    files: dict[str, Path]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A job before its first round: model version (`base`), checkpoint and outer state as safetensors bytes, metric of the
    evaluation split, and the largest contribution in bytes. `evaluation_rate`: samples/s that this machine evaluated with it,
    None where that was not measured."""

    base: str
    params: bytes
    outer_state: bytes
    metric: dict[str, float]
    upload_limit: int
    evaluation_rate: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a job's earlier rounds say of a node: `rounds` accepted, and the share of them, recent ones first (an exponential
    average), in which its update gained more on the data assigned to it than on other training data."""

    rounds: int = 0
    owned: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A contribution as it was handed in, with what its work order asked for (`shard`, `seed`, `steps`, `encoding`);
    submissions are ordered by the time of their commitments. `units` are samples; `origin` is the round that late work was
    trained in, None for work of the round itself."""

    node_id: int
    units: int
    artifact: str
    data: bytes
    shard: int
    seed: int
    steps: int
    encoding: EncodingSpec
    origin: int | None = None


REMEMBERED = 3
"""Rounds back (with fragments in turn: times all fragments have been sent) whose accepted updates nobody may hand in again."""


def remembered(spec: JobSpec, number: int) -> range:
    """Rounds whose accepted contributions round `number` knows."""
    return range(max(0, number - REMEMBERED * spec.network.fragments), number)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundWork:
    """All that a round's outcome depends on. `base` is the model version (Merkle root) that `params` (a checkpoint file) must
    have; `previous_aggregate` the file of the round before, to find who sends it again, and `earlier` what was accepted in the
    `remembered` rounds, by round. `before` is the SHA-256 of the evidence of the round before; None for the first, and where
    nobody makes evidence."""

    job: JobWork
    chain_job_id: int
    number: int
    base: str
    params: bytes
    outer_state: bytes
    previous_aggregate: bytes | None
    submissions: list[Submission]
    standings: dict[int, Standing] = field(default_factory=dict)
    earlier: dict[int, list[Submission]] = field(default_factory=dict)
    before: str | None = None

    def began(self, submission: Submission) -> int:
        """The round in which it was trained."""
        return self.number if submission.origin is None else submission.origin

    def lateness(self, submission: Submission) -> int:
        """Rounds by which it is late."""
        return self.number - self.began(submission)

    def discount(self, submission: Submission) -> float:
        """What the weight of a submission is divided by: 1 for work of this round, more with each round that it is late."""
        return 1 + self.job.spec.network.stale_discount * self.lateness(submission)


class Link(NamedTuple):
    """What a round's evidence says to all later ones: the evidence before it, and the artifacts that have counted."""

    before: str | None
    artifacts: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What became of one submission. `quality` in basis points and `weight` in the aggregate for an accepted one, `code`
    and `reason` for a rejected one; `standing` of the node after this round. `score` and `gains` are what was measured, of
    `trainer.scoring` `quality.Score` and `ownership.Gains` (None for what is no number)."""

    node_id: int
    score: dict[str, float] | None = None
    gains: dict[str, float | None] | None = None
    quality: int | None = None
    weight: float | None = None
    code: str = ""
    reason: str = ""
    standing: Standing = Standing()


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundResult:
    """A round's outcome: `version` is the next model version, `params` its checkpoint, `delta` the file that leads there from
    the version before. `aggregate` and `delta` are empty when nothing was accepted. It was scored on `samples` held-out ones."""

    version: str
    params: bytes
    outer_state: bytes
    aggregate: bytes
    delta: bytes
    metric: dict[str, float]
    verdicts: list[Verdict]
    samples: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """The contribution of a node before an audited one: its order as it was trained, what was handed in for `steps` local steps,
    and, where a node may have begun from it (`network.overlap` eager), the checkpoint of its order's base. `bound`: it was
    accepted in the round just before, by the node's own receipt, so a lead can be made of nothing else."""

    order: WorkOrder
    upload: bytes
    steps: int
    params: bytes | None = None
    bound: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditWork:
    """A segment to be computed again. `params` is the checkpoint of the order's base, `upload` what the node handed in for
    `steps` local steps, `before` its contribution before (None: it is its first), `evidence` its answer.
    `honest_errors` are those of earlier honest audits, by the auditor's kind of machine."""

    job: JobWork
    order: WorkOrder
    params: bytes
    segment: int
    upload: bytes
    steps: int
    before: Earlier | None
    evidence: bytes
    operator_class: str
    honest_errors: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditVerdict:
    """What computing again gave: `verdict` is passed, suspicious or failed. `error` is the largest relative L2 distance of the
    states at the segment's end, `encoding_error` that of the upload from what the last state encodes to; both None where they are
    not numbers. `code` and `reason` are those of the gravest finding. `proven`: a failure that anyone must
    find, on whatever machine, and whoever brought the evidence (`trainer.scoring.calibration.proves`)."""

    verdict: str
    auditor_class: str
    error: float | None = None
    encoding_error: float | None = None
    tolerance: float | None = None
    code: str = ""
    reason: str = ""
    proven: bool = False
