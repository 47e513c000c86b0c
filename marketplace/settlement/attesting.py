"""An attestor's own scores for a batch, from the public inputs that its evidence names, with the code that anyone has."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from marketplace.artifacts import store
from marketplace.chain.services import settled_evidence
from marketplace.settlement.attestor import Attestor
from marketplace.settlement.models import Batch
from marketplace.settlement.services import batches
from marketplace.training import selectors
from marketplace.training.models import Round
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import unpack_receipts
from trainer.protocol.rounds import JobWork, Link
from trainer.protocol.spec import JobSpec

TOO_EARLY = "attestation.too_early"


def scores(batch: Batch, me: Attestor) -> list[int]:
    """Basis points for each receipt of the batch, in order; 0 for work that the recomputation refuses.

    Raises HyperGPUError `artifact.*` when an input cannot be had, `attestation.other_inputs` when the evidence is not of
    this round, `evidence.*` when it does not follow from the round before, or other measurements, verdicts or another outcome
    do, and what `evidence_before` raises.
    """
    check_receipts(batch, evidence_of(batch))
    found = recomputed(batch.evidence, evidence_before(batch.round, me), selectors.job_work(batch.round.job))
    return [found.get(receipt.node_id, 0) for receipt in unpack_receipts(bytes(batch.packed))]


def check_receipts(batch: Batch, document: dict[str, Any]) -> None:
    """Everybody who was accepted is paid, for what it handed in, and nobody else: the batches of a round take its accepted nodes
    in order, so many each."""
    accepted = {entry["node"]: entry for entry in document["contributions"] if not entry["refused"]}
    begin, end = batch.number * batches.BATCH_RECEIPTS, (batch.number + 1) * batches.BATCH_RECEIPTS
    receipts = unpack_receipts(bytes(batch.packed))
    if [receipt.node_id for receipt in receipts] != sorted(accepted)[begin:end] or batch.last != (end >= len(accepted)):
        raise other_inputs("its receipts are not those of the nodes whose work the evidence calls accepted")
    for receipt in receipts:
        entry = accepted[receipt.node_id]
        if ("0x" + entry["artifact"], entry["units"]) != (receipt.artifact, receipt.units):
            raise other_inputs(f"node {receipt.node_id} handed in another artifact, or other units, than the batch says")


def evidence_of(batch: Batch) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(blob(batch.evidence))
    round_ = batch.round
    expected = {"job": round_.job.chain_id, "round": round_.number, "spec": round_.job.parsed_spec.sha256(), "base": round_.base}
    wrong = [name for name, value in expected.items() if document.get(name) != value]
    if wrong:
        raise other_inputs(f"the evidence differs in: {', '.join(wrong)}")
    return document


def evidence_before(round_: Round, me: Attestor | None = None) -> str | None:
    """Of the round before: the one by which this attestor has judged it, else the one that the chain names. None for the first.

    Raises HyperGPUError `attestation.too_early` while the chain names none, and `attestation.other_past` when the coordinator's
    is another.
    """
    if round_.number == 0:
        return None
    before = Round.objects.select_related("job").filter(job=round_.job, number=round_.number - 1).first()
    said = before.evidence if before else ""
    known = me.judged_evidence(round_.job.chain_id or 0, round_.number - 1) if me else None
    if before is not None and known is None:
        known = settled(before)
    if known is None:
        raise HyperGPUError(TOO_EARLY, f"Round {round_.number - 1} is not settled yet: nobody knows what this one follows.")
    if known != said:
        text = f"The evidence of round {round_.number - 1} is {known}, the coordinator names {said or 'none'}."
        raise HyperGPUError("attestation.other_past", text)
    return known


def settled(round_: Round) -> str | None:
    """The evidence that the chain names for a round; the coordinator's row says no more than where to look."""
    if round_.settled_block is None:
        return None
    return settled_evidence(round_.job.chain_id or 0, round_.number, block=round_.settled_block)


@lru_cache(maxsize=2)
def judged(evidence: str, before: str | None, spec_json: str, files: tuple[Any, ...]) -> dict[int, int]:
    """Quality by node of a whole round: its batches share it. The round must begin where the one before ended, and what the
    coordinator says came out of it must come out again, bit by bit; what it says was measured, within what machines differ by."""
    from marketplace.training import engine  # noqa: PLC0415  (the one door to torch, kept out of web processes)

    job = JobWork(spec=JobSpec.model_validate_json(spec_json), files=dict(files))
    document = json.loads(blob(evidence))
    engine.check_chain(document, json.loads(blob(before)) if before else None, job)
    engine.check_counts_once(document, link)
    work = engine.round_work(document, job, blob)
    engine.check_outcome(work, document)
    verdicts = engine.check_judgement(work, document)
    return {verdict.node_id: verdict.quality for verdict in verdicts if verdict.quality is not None}


def found_by_court(evidence: str, before: str | None, job: JobWork) -> dict[int, int]:
    """The same for a committee, which is asked what work is worth where a quorum may have lied: what the evidence says of
    measurements counts as far as it comes out again, what it says of verdicts and outcome not at all."""
    from marketplace.training import engine  # noqa: PLC0415

    document = json.loads(blob(evidence))
    engine.check_chain(document, json.loads(blob(before)) if before else None, job)
    engine.check_counts_once(document, link)
    work = engine.round_work(document, job, blob)
    try:
        verdicts = engine.check_judgement(work, document)
    except HyperGPUError as error:
        if not error.code.startswith("evidence."):
            raise
        verdicts = engine.judge_round(work)
    return {verdict.node_id: verdict.quality for verdict in verdicts if verdict.quality is not None}


def recomputed(evidence: str, before: str | None, job: JobWork) -> dict[int, int]:
    return judged(evidence, before, job.spec.model_dump_json(), tuple(sorted(job.files.items())))


@lru_cache(maxsize=4096)
def link(evidence: str) -> Link:
    """What an earlier round says to this one; kept, since each round walks back to the job's first."""
    from marketplace.training import engine  # noqa: PLC0415

    return engine.link_of(json.loads(blob(evidence)))


def blob(sha256: str) -> bytes:
    """Raises HyperGPUError `artifact.unknown`, `artifact.hash_mismatch`."""
    data = store.read(sha256)
    if sha256_hex(data) != sha256:
        raise HyperGPUError("artifact.hash_mismatch", f"What is stored as {sha256} hashes otherwise.")
    return data


def other_inputs(what: str) -> HyperGPUError:
    return HyperGPUError("attestation.other_inputs", f"It cannot be attested: {what}.")
