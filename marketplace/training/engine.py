"""The only door to torch. Everything here is a function of its arguments: the coordinator closes rounds with it, and
attestors recompute them with the same code."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import nn

from trainer.protocol.rounds import JobWork, Prepared, RoundResult, RoundWork, Verdict
from trainer.data import Dataset, load_dataset
from trainer.diloco.aggregation import Aggregate, Contribution, aggregate
from trainer.diloco.checkpoint import initial_checkpoint, load_checkpoint, load_outer, save_checkpoint, save_outer
from trainer.diloco.encoding import Shapes, Tensors, max_encoded_bytes
from trainer.diloco.outer import OuterState, outer_step
from trainer.models import build_model, parameter_shapes
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec
from trainer.scoring.checks import check_contribution, norm_limit
from trainer.scoring.quality import Score, passes_gate, qualities
from trainer.scoring.scores import SCORE_SAMPLES, draw_batch, evaluate, loss_improvement, measure


class Bench(NamedTuple):
    """What a job's rounds have in common; kept between rounds, since building it costs more than a small round."""

    dataset: Dataset
    model: nn.Module
    shapes: Shapes


def bench(job: JobWork) -> Bench:
    """The job's data set and architecture. Raises HyperGPUError `data.*` or `model.*`."""
    return cached_bench(job.spec.model_dump_json(include={"model", "data", "seed"}), tuple(sorted(job.files.items())))


@lru_cache(maxsize=4)
def cached_bench(spec_json: str, files: tuple) -> Bench:
    spec = JobSpec.model_validate_json(spec_json)
    torch.set_num_threads(1)
    dataset = load_dataset(spec.data, files=dict(files))
    model = build_model(spec.model, dataset.info, seed=spec.seed)
    return Bench(dataset, model, parameter_shapes(model))


def warm_up() -> None:
    """Load what the first job would otherwise wait for."""
    prepare(JobWork(spec=JobSpec(), files={}))


def prepare(job: JobWork) -> Prepared:
    """The job's first checkpoint. Raises HyperGPUError when data or model cannot be had."""
    at = bench(job)
    params = initial_checkpoint(job.spec, at.dataset.info)
    metric = evaluate(at.model, load_checkpoint(params, shapes=at.shapes), at.dataset.eval)
    limit = max_encoded_bytes(at.shapes, job.spec.encoding)
    return Prepared(params=params, outer_state=save_outer({}), metric=asdict(metric), upload_limit=limit)


def check(job: JobWork, data: bytes) -> None:
    """Is it an update at all? Raises HyperGPUError `artifact.*` or `contribution.*`."""
    at = bench(job)
    check_contribution(data, job.spec.encoding, at.shapes, others={}, max_norm=norm_limit(job.spec, at.shapes))


def judge_round(work: RoundWork) -> list[Verdict]:
    """Who is accepted, with which quality, and why not: what an attestor recomputes before it signs."""
    return verdicts(work, assess(work))


def close_round(work: RoundWork) -> RoundResult:
    """Judge, aggregate, take the outer step and evaluate: the whole of a round's end."""
    at = bench(work.job)
    found = assess(work)
    outcome = combine(work, found)
    state = found.base if outcome is None else outer_step(found.base, outcome.pseudo_gradient, work.job.spec.outer)
    params = save_checkpoint(state.params)
    metric = asdict(evaluate(at.model, state.params, at.dataset.eval))
    weights = outcome.weights if outcome else {}
    judged = [replace(verdict, weight=weights.get(verdict.node_id)) for verdict in verdicts(work, found)]
    return RoundResult(
        params=params, outer_state=save_outer(state.momentum), metric=metric, verdicts=judged,
        aggregate=save_checkpoint(outcome.pseudo_gradient if outcome else {}),
        evidence=evidence(work, judged, checkpoint=sha256_hex(params), metric=metric),
    )  # fmt: skip


class Assessment(NamedTuple):
    """A round's submissions looked at: updates by node, their scores, and the refusals."""

    base: OuterState
    updates: dict[int, Tensors]
    scores: dict[int, Score]
    refused: dict[int, HyperGPUError]

    @property
    def accepted(self) -> list[int]:
        return [node_id for node_id in self.scores if node_id not in self.refused]


def assess(work: RoundWork) -> Assessment:
    at = bench(work.job)
    base = OuterState(load_checkpoint(work.params, shapes=at.shapes), load_outer(work.outer_state, shapes=at.shapes))
    updates, refused = distinct_updates(work, at)
    scores, gated = score(work, at, base.params, updates)
    return Assessment(base, updates, scores, refused | gated)


def distinct_updates(work: RoundWork, at: Bench) -> tuple[dict[int, Tensors], dict[int, HyperGPUError]]:
    """Updates by node, in the order of commitments, and those refused, copies among them."""
    previous = load_checkpoint(work.previous_aggregate, shapes=at.shapes) if work.previous_aggregate else None
    updates: dict[int, Tensors] = {}
    refused: dict[int, HyperGPUError] = {}
    for submission in work.submissions:
        try:
            updates[submission.node_id] = check_contribution(
                submission.data, work.job.spec.encoding, at.shapes, others=updates, previous=previous,
                max_norm=norm_limit(work.job.spec, at.shapes),
            )  # fmt: skip
        except HyperGPUError as error:
            refused[submission.node_id] = error
    return updates, refused


def score_seed(work: RoundWork) -> str:
    """A hash over all commitments of the round: nobody knows the batch when committing, everybody can draw it after."""
    commitments = ":".join(sorted(submission.artifact for submission in work.submissions))
    return sha256_hex(f"{work.chain_job_id}:{work.number}:{work.base}:{commitments}".encode())


def score(
    work: RoundWork, at: Bench, base: Tensors, updates: dict[int, Tensors]
) -> tuple[dict[int, Score], dict[int, HyperGPUError]]:
    """Loss improvement of each update on the round's held-out batch, and those that fail the loss gate."""
    inputs, targets = draw_batch(at.dataset.score, seed=score_seed(work), size=SCORE_SAMPLES[at.dataset.info.kind])
    before = measure(at.model, base, inputs, targets).loss
    scores: dict[int, Score] = {}
    gated: dict[int, HyperGPUError] = {}
    for node_id, update in updates.items():
        try:
            scores[node_id] = found = loss_improvement(at.model, base, update, inputs, targets, loss_before=before)
        except HyperGPUError as error:
            gated[node_id] = error
            continue
        if not passes_gate(found, work.job.spec.aggregation.gate_tolerance):
            text = f"It raises the held-out loss from {before:.4f} to {found.loss_after:.4f}."
            gated[node_id] = HyperGPUError("contribution.harmful", text)
    return scores, gated


def combine(work: RoundWork, found: Assessment) -> Aggregate | None:
    """The round's aggregate; None when nothing was accepted and the checkpoint stays as it is."""
    if not found.accepted:
        return None
    units = {submission.node_id: submission.units for submission in work.submissions}
    contributions = [
        Contribution(node_id, found.updates[node_id], units[node_id], found.scores[node_id].improvement)
        for node_id in found.accepted
    ]
    return aggregate(contributions, work.job.spec.aggregation)


def verdicts(work: RoundWork, found: Assessment) -> list[Verdict]:
    points = qualities({node_id: found.scores[node_id].improvement for node_id in found.accepted})
    result = []
    for node_id in (submission.node_id for submission in work.submissions):
        known = asdict(found.scores[node_id]) if node_id in found.scores else None
        if (error := found.refused.get(node_id)) is not None:
            result.append(Verdict(node_id=node_id, score=known, code=error.code, reason=error.message))
        else:
            result.append(Verdict(node_id=node_id, score=known, quality=points[node_id]))
    return result


def evidence(work: RoundWork, judged: list[Verdict], *, checkpoint: str, metric: dict[str, float]) -> dict[str, object]:
    """All that is needed to recompute the round: inputs by hash, the scores and what followed from them."""
    by_node = {submission.node_id: submission for submission in work.submissions}
    return {
        "version": 2,
        "code": version("hypergpu"),
        "job": work.chain_job_id,
        "round": work.number,
        "spec": work.job.spec.sha256(),
        "base": work.base,
        "outer_state": sha256_hex(work.outer_state),
        "previous_aggregate": sha256_hex(work.previous_aggregate) if work.previous_aggregate else None,
        "score_seed": score_seed(work),
        "contributions": [
            {"node": v.node_id, "artifact": by_node[v.node_id].artifact, "units": by_node[v.node_id].units, "score": v.score,
             "quality": v.quality, "weight": v.weight, "refused": v.code or None}
            for v in judged
        ],
        "checkpoint": checkpoint,
        "metric": metric,
    }  # fmt: skip
