"""An attestor's own scores for a batch, from the public inputs that its evidence names, with the code that anyone has."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from marketplace.artifacts import store
from marketplace.settlement.models import Batch
from marketplace.training import selectors
from trainer.protocol.rounds import JobWork, RoundWork, Submission
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import unpack_receipts
from trainer.protocol.spec import JobSpec


def scores(batch: Batch) -> list[int]:
    """Basis points for each receipt of the batch, in order; 0 for work that the recomputation refuses.

    Raises HyperGPUError `artifact.*` when an input cannot be had, `attestation.other_inputs` when the evidence is not of
    this round.
    """
    document = evidence_of(batch)
    handed_in = {entry["node"]: entry for entry in document["contributions"]}
    for receipt in unpack_receipts(bytes(batch.packed)):
        entry = handed_in.get(receipt.node_id, {})
        if ("0x" + entry.get("artifact", ""), entry.get("units")) != (receipt.artifact, receipt.units):
            raise other_inputs(f"node {receipt.node_id} handed in another artifact, or other units, than the batch says")
    found = recomputed(batch.evidence, selectors.job_work(batch.round.job))
    return [found.get(receipt.node_id, 0) for receipt in unpack_receipts(bytes(batch.packed))]


def evidence_of(batch: Batch) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(blob(batch.evidence))
    round_ = batch.round
    expected = {"job": round_.job.chain_id, "round": round_.number, "spec": round_.job.parsed_spec.sha256(), "base": round_.base}
    wrong = [name for name, value in expected.items() if document.get(name) != value]
    if wrong:
        raise other_inputs(f"the evidence differs in: {', '.join(wrong)}")
    return document


@lru_cache(maxsize=2)
def judged(evidence: str, spec_json: str, files: tuple[Any, ...]) -> dict[int, int]:
    """Quality by node of a whole round: its batches share it."""
    from marketplace.training import engine  # noqa: PLC0415  (the one door to torch, kept out of web processes)

    document = json.loads(blob(evidence))
    work = round_work(document, JobWork(spec=JobSpec.model_validate_json(spec_json), files=dict(files)))
    if engine.score_seed(work) != document["score_seed"]:
        raise other_inputs("the held-out batch was not drawn from these commitments")
    return {verdict.node_id: verdict.quality for verdict in engine.judge_round(work) if verdict.quality is not None}


def recomputed(evidence: str, job: JobWork) -> dict[int, int]:
    return judged(evidence, job.spec.model_dump_json(), tuple(sorted(job.files.items())))


def round_work(document: dict[str, Any], job: JobWork) -> RoundWork:
    """The round as its evidence names it: every input by its hash."""
    previous = document["previous_aggregate"]
    return RoundWork(
        job=job, chain_job_id=document["job"], number=document["round"], base=document["base"], params=blob(document["base"]),
        outer_state=blob(document["outer_state"]), previous_aggregate=blob(previous) if previous else None,
        submissions=[
            Submission(node_id=entry["node"], units=entry["units"], artifact=entry["artifact"], data=blob(entry["artifact"]))
            for entry in document["contributions"]
        ],
    )  # fmt: skip


def blob(sha256: str) -> bytes:
    """Raises HyperGPUError `artifact.unknown`, `artifact.hash_mismatch`."""
    data = store.read(sha256)
    if sha256_hex(data) != sha256:
        raise HyperGPUError("artifact.hash_mismatch", f"What is stored as {sha256} hashes otherwise.")
    return data


def other_inputs(what: str) -> HyperGPUError:
    return HyperGPUError("attestation.other_inputs", f"It cannot be attested: {what}.")
