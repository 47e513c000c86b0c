"""Evidence: the public document of a round, from which anyone can compute it again. Its SHA-256 is what attestors sign and what
`settleRound` writes on chain.

It names every input by hash, says what was decided about each contribution and what came out. It is refused whole: when one
input is missing or one result differs, nothing of it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from trainer.diloco.checkpoint import save_checkpoint, save_outer
from trainer.diloco.flat import Shapes
from trainer.diloco.round import Advance, bench, first_state, replay_round, score_seed
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import order_seed
from trainer.protocol.rounds import JobWork, RoundResult, RoundWork, Standing, Submission
from trainer.protocol.spec import EncodingSpec

EVIDENCE_VERSION = 4

Document = dict[str, Any]


def evidence(work: RoundWork, result: RoundResult) -> Document:
    """The document of a round that ended."""
    by_node = {submission.node_id: submission for submission in work.submissions}
    return {
        "version": EVIDENCE_VERSION,
        "code": version("hypergpu"),
        "job": work.chain_job_id,
        "round": work.number,
        "spec": work.job.spec.sha256(),
        "base": work.base,
        "checkpoint": sha256_hex(work.params),
        "outer_state": sha256_hex(work.outer_state),
        "previous_aggregate": hash_of(work.previous_aggregate),
        "score_seed": score_seed(work),
        "contributions": [
            {
                **submitted(by_node[verdict.node_id]), "score": verdict.score, "quality": verdict.quality,
                "weight": verdict.weight, "refused": verdict.code or None,
                "standing": asdict(work.standings.get(verdict.node_id, Standing())), "standing_after": asdict(verdict.standing),
            }
            for verdict in result.verdicts
        ],
        "after": {
            "version": result.version, "checkpoint": sha256_hex(result.params), "outer_state": sha256_hex(result.outer_state),
            "aggregate": hash_of(result.aggregate), "delta": hash_of(result.delta),
        },
    }  # fmt: skip


def hash_of(data: bytes | None) -> str | None:
    return sha256_hex(data) if data else None


def submitted(submission: Submission) -> Document:
    return {
        "node": submission.node_id, "artifact": submission.artifact, "units": submission.units, "shard": submission.shard,
        "seed": submission.seed, "steps": submission.steps, "encoding": submission.encoding.model_dump(mode="json"),
        "origin": submission.origin,
    }  # fmt: skip


def round_work(document: Document, job: JobWork, read: Callable[[str], bytes]) -> RoundWork:
    """The round as its evidence names it; `read(sha256)` gives the bytes of an artifact, or raises.

    Raises HyperGPUError `evidence.malformed` for a document of another shape or version.
    """
    try:
        if document["version"] != EVIDENCE_VERSION:
            raise HyperGPUError("evidence.malformed", f"Evidence of version {document['version']} is not read here.")
        previous = document["previous_aggregate"]
        return RoundWork(
            job=job, chain_job_id=document["job"], number=document["round"], base=document["base"],
            params=read(document["checkpoint"]), outer_state=read(document["outer_state"]),
            previous_aggregate=read(previous) if previous else None,
            submissions=[
                Submission(
                    node_id=entry["node"], units=entry["units"], artifact=entry["artifact"], data=read(entry["artifact"]),
                    shard=entry["shard"], seed=entry["seed"], steps=entry["steps"],
                    encoding=EncodingSpec.model_validate(entry["encoding"]), origin=entry["origin"],
                )
                for entry in document["contributions"]
            ],
            standings={entry["node"]: Standing(**entry["standing"]) for entry in document["contributions"]},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise HyperGPUError("evidence.malformed", f"This is not the evidence of a round: {error!r}") from error


def check_chain(document: Document, before: Document | None, job: JobWork) -> None:
    """That the round begins where the one before ended, or the first one at the seed's version with nothing behind it.

    Raises HyperGPUError `evidence.broken_chain`, and `evidence.too_stale` for late work that the specification refuses.
    """
    number, most = document["round"], job.spec.network.most_stale
    for entry in document["contributions"]:
        if entry["origin"] is not None and not max(number - most, 0) <= entry["origin"] < number:
            text = (
                f"Round {number} counts work of round {entry['origin']} (node {entry['node']}): {most} rounds late is the most."
            )
            raise HyperGPUError("evidence.too_stale", text)
    after = before["after"] if before is not None else outcome(Advance(first_state(job), None, b""), bench(job).shapes)
    names = {"base": "version", "checkpoint": "checkpoint", "outer_state": "outer_state", "previous_aggregate": "aggregate"}
    begins, expected = {name: document[name] for name in names}, {name: after[source] for name, source in names.items()}
    if before is not None:
        known = {entry["node"]: entry["standing_after"] for entry in before["contributions"]}
        for entry in document["contributions"]:
            if entry["node"] in known:
                name = f"standing of node {entry['node']}"
                begins[name], expected[name] = entry["standing"], known[entry["node"]]
    if wrong := sorted(name for name, value in begins.items() if value != expected[name]):
        raise HyperGPUError(
            "evidence.broken_chain", f"Round {document['round']} does not begin where the one before ended: {', '.join(wrong)}.",
            fields=wrong,
        )  # fmt: skip


def check_outcome(work: RoundWork, document: Document, *, shapes: Shapes | None = None) -> None:
    """Aggregates and steps again, from the contributions that the document calls accepted, and compares all that came out bit
    by bit. `shapes` serves whoever does not have the data, from which the model's own would follow.

    Raises HyperGPUError `evidence.other_outcome`, `evidence.other_batch`, `evidence.other_order` and what `replay_round` raises.
    """
    for submission in work.submissions:
        began = work.number if submission.origin is None else submission.origin
        if submission.seed != order_seed(work.job.spec, began, submission.shard):
            text = f"Orders for shard {submission.shard} of round {began} have another seed (node {submission.node_id})."
            raise HyperGPUError("evidence.other_order", text)
    if score_seed(work) != document["score_seed"]:
        raise HyperGPUError("evidence.other_batch", "The held-out batch was not drawn from these commitments.")
    accepted = [entry["node"] for entry in document["contributions"] if not entry["refused"]]
    said = document["after"]
    mine = outcome(replay_round(work, accepted, shapes=shapes), bench(work.job).shapes if shapes is None else shapes)
    if wrong := sorted(name for name, value in mine.items() if value != said[name]):
        raise HyperGPUError(
            "evidence.other_outcome", f"Round {work.number}, computed again, gives another {' and '.join(wrong)}.", found=mine
        )


def outcome(after: Advance, shapes: Shapes) -> Document:
    """What a document says came out of a round, from the round computed again."""
    gathered = save_checkpoint(after.gathered.pseudo_gradient, shapes) if after.gathered else b""
    return {
        "version": after.version, "checkpoint": sha256_hex(save_checkpoint(after.state.params, shapes)),
        "outer_state": sha256_hex(save_outer(after.state)), "aggregate": hash_of(gathered), "delta": hash_of(after.delta),
    }  # fmt: skip
