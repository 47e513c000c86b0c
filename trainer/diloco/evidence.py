"""Evidence: the public document of a round, from which anyone can compute it again. Its SHA-256 is what attestors sign and what
`settleRound` writes on chain.

It names every input by hash, says what was measured and decided about each contribution, what came out, and what the job knows
of each node before and after. It names the evidence of the round before, so who holds the newest has what has counted in the
job, and the updates that nobody may hand in again. It is refused whole: when one input is missing or one result differs, nothing
of it counts. Measurements agree within what machines differ by (`trainer.scoring.agreement`), all else to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from typing import Any

from trainer.diloco.checkpoint import save_checkpoint, save_outer
from trainer.diloco.findings import Measured
from trainer.diloco.flat import Shapes
from trainer.diloco.round import Advance, bench, first_state, judge_round, replay_round, score_seed
from trainer.protocol.canonical import canonical_bytes, sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import order_seed
from trainer.protocol.rounds import JobWork, Link, RoundResult, RoundWork, Standing, Submission, Verdict, remembered
from trainer.protocol.spec import EncodingSpec
from trainer.scoring.ownership import Gains
from trainer.scoring.quality import Score

EVIDENCE_VERSION = 6

Document = dict[str, Any]


def evidence(work: RoundWork, result: RoundResult) -> Document:
    """The document of a round that ended."""
    by_node = {submission.node_id: submission for submission in work.submissions}
    return {
        "version": EVIDENCE_VERSION,
        "code": version("hypergpu"),
        "job": work.chain_job_id,
        "round": work.number,
        "before": work.before,
        "spec": work.job.spec.sha256(),
        "base": work.base,
        "checkpoint": sha256_hex(work.params),
        "outer_state": sha256_hex(work.outer_state),
        "previous_aggregate": hash_of(work.previous_aggregate),
        "score_seed": score_seed(work),
        "score_samples": result.samples,
        "standings": listed(work.standings),
        "contributions": [
            {
                **submitted(by_node[verdict.node_id]), "score": verdict.score, "gains": verdict.gains,
                "quality": verdict.quality, "weight": verdict.weight, "refused": verdict.code or None,
            }
            for verdict in result.verdicts
        ],
        "after": {
            "standings": listed(standings_after(work, result.verdicts)),
            "version": result.version, "checkpoint": sha256_hex(result.params), "outer_state": sha256_hex(result.outer_state),
            "aggregate": hash_of(result.aggregate), "delta": hash_of(result.delta),
        },
    }  # fmt: skip


def listed(standings: Mapping[int, Standing]) -> Document:
    """Of every node that the job has ever judged, whether or not it is in the round: none is forgotten by staying away."""
    return {str(node): asdict(standings[node]) for node in sorted(standings)}


def standings_after(work: RoundWork, verdicts: Collection[Verdict]) -> dict[int, Standing]:
    return work.standings | {verdict.node_id: verdict.standing for verdict in verdicts}


def hash_of(data: bytes | None) -> str | None:
    return sha256_hex(data) if data else None


def submitted(submission: Submission) -> Document:
    return {
        "node": submission.node_id, "artifact": submission.artifact, "units": submission.units, "shard": submission.shard,
        "seed": submission.seed, "steps": submission.steps, "encoding": submission.encoding.model_dump(mode="json"),
        "origin": submission.origin,
    }  # fmt: skip


def round_work(document: Document, job: JobWork, read: Callable[[str], bytes], *, judged: bool = True) -> RoundWork:
    """The round as its evidence names it; `read(sha256)` gives the bytes of an artifact, or raises. If it is to be `judged`, what
    was accepted in the rounds before is read by their evidence, of which each names the one before it.

    Raises HyperGPUError `evidence.malformed` for a document of another shape or version.
    """
    try:
        if document["version"] != EVIDENCE_VERSION:
            raise HyperGPUError("evidence.malformed", f"Evidence of version {document['version']} is not read here.")
        previous = document["previous_aggregate"]
        known = remembered(job.spec, document["round"]) if judged else ()
        return RoundWork(
            job=job, chain_job_id=document["job"], number=document["round"], base=document["base"],
            params=read(document["checkpoint"]), outer_state=read(document["outer_state"]),
            previous_aggregate=read(previous) if previous else None,
            submissions=[read_submission(entry, read) for entry in document["contributions"]],
            standings={int(node): Standing(**standing) for node, standing in document["standings"].items()},
            earlier={
                earlier["round"]: [read_submission(entry, read) for entry in counted(earlier)]
                for earlier in islice(history(document, read), len(known))
            }, before=document["before"],
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HyperGPUError("evidence.malformed", f"This is not the evidence of a round: {error!r}") from error


def read_submission(entry: Document, read: Callable[[str], bytes]) -> Submission:
    return Submission(
        node_id=entry["node"], units=entry["units"], artifact=entry["artifact"], data=read(entry["artifact"]),
        shard=entry["shard"], seed=entry["seed"], steps=entry["steps"],
        encoding=EncodingSpec.model_validate(entry["encoding"]), origin=entry["origin"],
    )  # fmt: skip


def history(document: Document, read: Callable[[str], bytes]) -> Iterator[Document]:
    """The evidence of the rounds before, the newest first."""
    while document["before"] is not None:
        document = json.loads(read(document["before"]))
        yield document


def measured(document: Document) -> Measured:
    """What the evidence says was measured. Raises HyperGPUError `evidence.malformed`."""
    entries = document["contributions"]
    try:
        return Measured(
            samples=int(document["score_samples"]),
            scores={entry["node"]: Score.from_json(entry["score"]) for entry in entries if entry["score"] is not None},
            gains={entry["node"]: Gains.from_json(entry["gains"]) for entry in entries if entry["gains"] is not None},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HyperGPUError("evidence.malformed", f"This is not what a round measures: {error!r}") from error


def check_chain(document: Document, before: Document | None, job: JobWork) -> None:
    """That the round begins where the one before ended, with what was known of each node then, or the first one at the seed's
    version with nothing behind it.

    Raises HyperGPUError `evidence.broken_chain`, `evidence.too_stale` for late work that the specification refuses, and
    `evidence.other_version` for a round before of another version: no round follows from a document that says other things.
    """
    if before is not None and before["version"] != EVIDENCE_VERSION:
        text = f"The evidence of the round before is of version {before['version']}, not {EVIDENCE_VERSION}: a job is finished by"
        raise HyperGPUError("evidence.other_version", f"{text} the software that began it.")
    number, most = document["round"], job.spec.network.most_stale
    for entry in document["contributions"]:
        if entry["origin"] is not None and not max(number - most, 0) <= entry["origin"] < number:
            text = (
                f"Round {number} counts work of round {entry['origin']} (node {entry['node']}): {most} rounds late is the most."
            )
            raise HyperGPUError("evidence.too_stale", text)
    if before is not None:
        after = before["after"]
    else:
        after = {"standings": {}, **outcome(Advance(first_state(job), None, b""), bench(job).shapes)}
    names = {
        "base": "version", "checkpoint": "checkpoint", "outer_state": "outer_state", "previous_aggregate": "aggregate",
        "standings": "standings",
    }  # fmt: skip
    begins, expected = {name: document[name] for name in names}, {name: after[source] for name, source in names.items()}
    begins["before"], expected["before"] = document["before"], sha256_hex(canonical_bytes(before)) if before else None
    if wrong := sorted(name for name, value in begins.items() if value != expected[name]):
        raise HyperGPUError(
            "evidence.broken_chain", f"Round {document['round']} does not begin where the one before ended: {', '.join(wrong)}.",
            fields=wrong,
        )  # fmt: skip


def link_of(document: Document) -> Link:
    return Link(document["before"], frozenset(entry["artifact"] for entry in counted(document)))


def check_counts_once(document: Document, link: Callable[[str], Link]) -> None:
    """That nothing of the round has counted in the job before, back to its first round; `link(sha256)` reads an earlier round's
    evidence. What was refused, in either round, has not counted. Raises HyperGPUError `evidence.same_work`."""
    own, at = link_of(document), document["before"]
    while at is not None:
        earlier = link(at)
        if again := own.artifacts & earlier.artifacts:
            nodes = sorted(entry["node"] for entry in counted(document) if entry["artifact"] in again)
            text = f"What node {nodes[0]} handed in has counted in this job already."
            raise HyperGPUError("evidence.same_work", text, nodes=nodes)
        at = earlier.before


def counted(document: Document) -> list[Document]:
    """Contributions that were accepted."""
    return [entry for entry in document["contributions"] if not entry["refused"]]


def check_outcome(work: RoundWork, document: Document, *, shapes: Shapes | None = None) -> None:
    """Aggregates and steps again, from the contributions that the document calls accepted, and compares all that came out bit
    by bit. `shapes` serves whoever does not have the data, from which the model's own would follow.

    Raises HyperGPUError `evidence.other_outcome`, `evidence.other_batch`, `evidence.other_order` and what `replay_round` raises.
    """
    check_orders(work)
    if score_seed(work) != document["score_seed"]:
        raise HyperGPUError("evidence.other_batch", "The held-out batch was not drawn from these commitments.")
    accepted = [entry["node"] for entry in counted(document)]
    after = replay_round(work, accepted, shapes=shapes)
    said = {
        **document["after"],
        "weights": {entry["node"]: entry["weight"] for entry in counted(document)},
    }
    mine = outcome(after, bench(work.job).shapes if shapes is None else shapes)
    mine["weights"] = dict(after.gathered.weights) if after.gathered else {}
    if wrong := sorted(name for name, value in mine.items() if value != said[name]):
        raise HyperGPUError(
            "evidence.other_outcome", f"Round {work.number}, computed again, gives another {' and '.join(wrong)}.", found=mine
        )


def check_orders(work: RoundWork) -> None:
    """That the contributions are of orders that the specification allows: one of a node, whole ones, with the seed that follows,
    and together no more steps than a round of the job has.

    Raises HyperGPUError `evidence.other_order`.
    """
    spec = work.job.spec
    most, ordered = spec.rounds.nodes * spec.inner.steps, sum(submission.steps for submission in work.submissions)
    problems = [f"The orders are of {ordered} steps, a round has {most}."] if ordered > most else []
    seen: set[int] = set()
    for one in work.submissions:
        began = work.number if one.origin is None else one.origin
        if one.node_id in seen:
            problems.append(f"Node {one.node_id} has more than one contribution.")
        if one.steps < 1 or one.units != one.steps * spec.inner.batch_size:
            problems.append(f"{one.units} samples are not the {one.steps} steps that node {one.node_id} was ordered.")
        if not 0 <= one.shard < spec.rounds.nodes or one.seed != order_seed(spec, began, one.shard):
            problems.append(f"Orders for shard {one.shard} of round {began} have another seed (node {one.node_id}).")
        seen.add(one.node_id)
    if problems:
        raise HyperGPUError("evidence.other_order", problems[0])


def check_judgement(work: RoundWork, document: Document) -> list[Verdict]:
    """Judges the round again, on one's own machine: what was measured must come out again within what machines differ by, and
    who was refused and why, all qualities and everybody's standing afterwards must follow from it exactly. The verdicts.

    Raises HyperGPUError `evidence.other_scores`, `evidence.other_samples`, `evidence.other_verdicts`, `evidence.other_standings`
    and what `judge_round` raises.
    """
    verdicts = judge_round(work, measured(document))
    said = {entry["node"]: (entry["refused"], entry["quality"]) for entry in document["contributions"]}
    for verdict in verdicts:
        if said[verdict.node_id] != (found := (verdict.code or None, verdict.quality)):
            text = f"Node {verdict.node_id}: {told(*said[verdict.node_id])} is said, {told(*found)} follows."
            raise HyperGPUError("evidence.other_verdicts", text, node=verdict.node_id)
    if document["after"]["standings"] != listed(standings_after(work, verdicts)):
        raise HyperGPUError("evidence.other_standings", f"Other standings follow from round {work.number}.")
    return verdicts


def told(refused: str | None, quality: int | None) -> str:
    return f"refused with {refused}" if refused else f"accepted with {quality} basis points"


def outcome(after: Advance, shapes: Shapes) -> Document:
    """What a document says came out of a round, from the round computed again."""
    gathered = b"" if after.aggregate is None else save_checkpoint(after.aggregate, shapes)
    return {
        "version": after.version, "checkpoint": sha256_hex(save_checkpoint(after.state.params, shapes)),
        "outer_state": sha256_hex(save_outer(after.state)), "aggregate": hash_of(gathered), "delta": hash_of(after.delta),
    }  # fmt: skip
