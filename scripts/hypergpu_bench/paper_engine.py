"""Stands in for marketplace/training/engine.py where settlement is measured: it trains nothing and judges by the hash.

A thousand nodes on two cores cannot train, and scoring a thousand updates is not what is measured. Everything around it is
the product's: a contribution still has to be stored, checked, judged by the coordinator and by each attestor in its own
process, aggregated, committed to, signed, settled and indexed. Judgements agree because they are a function of the artifact.
"""

from __future__ import annotations

import json

from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import JobWork, Prepared, RoundResult, RoundWork, Verdict

MARK = b"paper update "
OUTER = b"paper outer state"
METRIC = {"loss": 1.0, "accuracy": 0.5}
WORST, SPAN = 8_000, 2_001
"""Qualities are 8,000 to 10,000 basis points."""


def warm_up() -> None:
    """Nothing to load."""


def prepare(job: JobWork) -> Prepared:
    return Prepared(params=b"paper checkpoint 0", outer_state=OUTER, metric=METRIC, upload_limit=1024)


def check(job: JobWork, data: bytes) -> None:
    """Raises HyperGPUError `artifact.malformed`."""
    if not data.startswith(MARK):
        raise HyperGPUError("artifact.malformed", "This is no paper update.")


def judge_round(work: RoundWork) -> list[Verdict]:
    return [
        Verdict(node_id=one.node_id, score={"improvement": 0.1}, quality=WORST + int(one.artifact[:8], 16) % SPAN, weight=1.0)
        for one in work.submissions
    ]


def score_seed(work: RoundWork) -> str:
    return sha256_hex(json.dumps([work.chain_job_id, work.number, sorted(one.artifact for one in work.submissions)]).encode())


def close_round(work: RoundWork) -> RoundResult:
    verdicts = judge_round(work)
    params = f"paper checkpoint {work.number + 1}".encode()
    entries = [
        {"node": verdict.node_id, "artifact": one.artifact, "units": one.units, "quality": verdict.quality}
        for verdict, one in zip(verdicts, work.submissions, strict=True)
    ]
    evidence = {
        "version": 1, "job": work.chain_job_id, "round": work.number, "spec": work.job.spec.sha256(), "base": work.base,
        "outer_state": sha256_hex(work.outer_state),
        "previous_aggregate": sha256_hex(work.previous_aggregate) if work.previous_aggregate else None,
        "score_seed": score_seed(work), "contributions": entries, "checkpoint": sha256_hex(params), "metric": METRIC,
    }  # fmt: skip
    aggregate = f"paper aggregate {work.number + 1}".encode()
    return RoundResult(params=params, outer_state=OUTER, aggregate=aggregate, metric=METRIC, verdicts=verdicts, evidence=evidence)
