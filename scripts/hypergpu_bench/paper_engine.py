"""Stands in for marketplace/training/engine.py where settlement is measured: it trains nothing and judges by the hash.

A thousand nodes on two cores cannot train, and scoring a thousand updates is not what is measured. Everything around it is
the product's: a contribution still has to be stored, checked, judged by the coordinator and by each attestor in its own
process, aggregated, committed to, signed, settled and indexed. Judgements agree because they are a function of the artifact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import AuditVerdict, AuditWork, JobWork, Link, Prepared, RoundResult, RoundWork, Submission, Verdict
from trainer.protocol.spec import EncodingSpec

Document = dict[str, Any]

MARK = b"paper update "
OUTER = b"paper outer state"
METRIC = {"loss": 1.0, "accuracy": 0.5}
WORST, SPAN = 8_000, 2_001
"""Qualities are 8,000 to 10,000 basis points."""


def warm_up() -> None:
    """Nothing to load."""


def checkpoint(number: int) -> bytes:
    return f"paper checkpoint {number}".encode()


def prepare(job: JobWork) -> Prepared:
    return Prepared(
        base=sha256_hex(checkpoint(0)), params=checkpoint(0), outer_state=OUTER, metric=METRIC, upload_limit=1024
    )  # fmt: skip


def parameters(job: JobWork) -> int:
    """Nothing is planned by a model that nobody has."""
    return 1


def check(job: JobWork, submission: Submission, *, number: int) -> None:
    """Raises HyperGPUError `artifact.malformed`."""
    if not submission.data.startswith(MARK):
        raise HyperGPUError("artifact.malformed", "This is no paper update.")


def judge_round(work: RoundWork) -> list[Verdict]:
    return [
        Verdict(node_id=one.node_id, score={"improvement": 0.1}, quality=WORST + int(one.artifact[:8], 16) % SPAN, weight=1.0)
        for one in work.submissions
    ]


def close_round(work: RoundWork, *, measured: bool = True) -> RoundResult:
    params, number = checkpoint(work.number + 1), str(work.number + 1).encode()
    return RoundResult(
        version=sha256_hex(params), params=params, outer_state=OUTER, aggregate=b"paper aggregate " + number,
        delta=b"paper step " + number, metric=METRIC if measured else {}, verdicts=judge_round(work),
    )  # fmt: skip


def metric(job: JobWork, params: bytes) -> dict[str, float]:
    return METRIC


def evidence(work: RoundWork, result: RoundResult) -> Document:
    return {
        "job": work.chain_job_id, "round": work.number, "before": work.before, "spec": work.job.spec.sha256(), "base": work.base,
        "checkpoint": sha256_hex(work.params), "outer_state": sha256_hex(work.outer_state),
        "contributions": [
            {
                "node": one.node_id, "artifact": one.artifact, "units": one.units, "shard": one.shard, "seed": one.seed,
                "steps": one.steps, "encoding": one.encoding.model_dump(mode="json"), "refused": None,
            }
            for one in work.submissions
        ],
        "after": {"version": result.version},
    }  # fmt: skip


def round_work(document: Document, job: JobWork, read: Callable[[str], bytes]) -> RoundWork:
    """Reads every artifact, as an attestor must."""
    return RoundWork(
        job=job, chain_job_id=document["job"], number=document["round"], base=document["base"],
        params=read(document["checkpoint"]), outer_state=read(document["outer_state"]), previous_aggregate=None,
        submissions=[
            Submission(
                node_id=entry["node"], units=entry["units"], artifact=entry["artifact"], data=read(entry["artifact"]),
                shard=entry["shard"], seed=entry["seed"], steps=entry["steps"],
                encoding=EncodingSpec.model_validate(entry["encoding"]),
            )
            for entry in document["contributions"]
        ],
    )  # fmt: skip


def check_chain(document: Document, before: Document | None, job: JobWork) -> None:
    """Raises HyperGPUError `evidence.broken_chain`."""
    if document["base"] != (before["after"]["version"] if before else sha256_hex(checkpoint(0))):
        raise HyperGPUError("evidence.broken_chain", "It does not begin where the round before ended.")


def link_of(document: Document) -> Link:
    return Link(document["before"], frozenset(entry["artifact"] for entry in document["contributions"]))


def check_counts_once(document: Document, link: Callable[[str], Link]) -> None:
    """As far as anybody looks on paper: the round before."""
    if document["before"] is not None and link_of(document).artifacts & link(document["before"]).artifacts:
        raise HyperGPUError("evidence.same_work", "Work of the round before has counted again.")


def check_outcome(work: RoundWork, document: Document) -> None:
    """Raises HyperGPUError `evidence.other_outcome`."""
    if document["after"]["version"] != close_round(work).version:
        raise HyperGPUError("evidence.other_outcome", "Another version comes out.")


def check_judgement(work: RoundWork, document: Document) -> list[Verdict]:
    return judge_round(work)


def replay_audit(work: AuditWork) -> AuditVerdict:
    """Nobody on paper answers an audit."""
    raise HyperGPUError("audit.malformed", "There is nothing to compute again.")
