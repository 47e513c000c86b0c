"""The only door to torch. Everything here is a function of its arguments: the coordinator closes rounds with it, and
attestors recompute them with the same code."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from marketplace.training.results import JobWork, Prepared, RoundResult, RoundWork, Submission, Verdict
from trainer.data import Dataset, load_dataset
from trainer.diloco.aggregation import Aggregate, Contribution, aggregate
from trainer.diloco.checkpoint import initial_checkpoint, load_checkpoint, load_outer, save_checkpoint, save_outer
from trainer.diloco.encoding import Shapes, Tensors, max_encoded_bytes
from trainer.diloco.outer import OuterState, outer_step
from trainer.models import build_model, model_shapes, parameter_shapes
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec
from trainer.scoring.checks import check_contribution, norm_limit
from trainer.scoring.quality import Score, passes_gate, qualities
from trainer.scoring.scores import draw_batch, evaluate, loss_improvement

SCORE_SAMPLES = 512
"""Held-out samples on which a round's contributions are compared."""


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
    return Prepared(params=params, outer_state=save_outer({}), metric=asdict(metric))


def upload_limit(job: JobWork) -> int:
    """Largest contribution in bytes."""
    return max_encoded_bytes(model_shapes(job.spec.model, bench(job).dataset.info), job.spec.encoding)


def check(job: JobWork, data: bytes) -> None:
    """Is it an update at all? Raises HyperGPUError `artifact.*` or `contribution.*`."""
    at = bench(job)
    check_contribution(data, job.spec.encoding, at.shapes, others={}, max_norm=norm_limit(job.spec, at.shapes))


def close_round(work: RoundWork) -> RoundResult:
    """Score, gate, aggregate, take the outer step and evaluate: the whole of a round's end."""
    at = bench(work.job)
    base = OuterState(load_checkpoint(work.params, shapes=at.shapes), load_outer(work.outer_state, shapes=at.shapes))
    updates, refused = distinct_updates(work, at)
    scores, gated = score(work, at, base.params, updates)
    accepted = [s for s in work.submissions if s.node_id in scores and s.node_id not in gated]
    outcome = combine(work.job.spec, accepted, updates, scores)
    state = base if outcome is None else outer_step(base, outcome.pseudo_gradient, work.job.spec.outer)
    params = save_checkpoint(state.params)
    metric = asdict(evaluate(at.model, state.params, at.dataset.eval))
    verdicts = judge(work, scores, refused | gated, outcome)
    return RoundResult(
        params=params, outer_state=save_outer(state.momentum), metric=metric, verdicts=verdicts,
        aggregate=save_checkpoint(outcome.pseudo_gradient if outcome else {}),
        evidence=evidence(work, verdicts, checkpoint=sha256_hex(params), metric=metric),
    )  # fmt: skip


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
    inputs, targets = draw_batch(at.dataset.score, seed=score_seed(work), size=SCORE_SAMPLES)
    scores: dict[int, Score] = {}
    gated: dict[int, HyperGPUError] = {}
    for node_id, update in updates.items():
        try:
            scores[node_id] = loss_improvement(at.model, base, update, inputs, targets)
        except HyperGPUError as error:
            gated[node_id] = error
            continue
        if not passes_gate(scores[node_id], work.job.spec.aggregation.gate_tolerance):
            before, after = scores[node_id].loss_before, scores[node_id].loss_after
            gated[node_id] = HyperGPUError(
                "contribution.harmful", f"It raises the held-out loss from {before:.4f} to {after:.4f}."
            )
    return scores, gated


def combine(spec: JobSpec, accepted: list[Submission], updates: dict[int, Tensors], scores: dict[int, Score]) -> Aggregate | None:
    """The round's aggregate; None when nothing was accepted and the checkpoint stays as it is."""
    if not accepted:
        return None
    return aggregate(
        [Contribution(s.node_id, updates[s.node_id], s.units, scores[s.node_id].improvement) for s in accepted], spec.aggregation
    )


def judge(
    work: RoundWork, scores: dict[int, Score], refused: dict[int, HyperGPUError], outcome: Aggregate | None
) -> list[Verdict]:
    weights = outcome.weights if outcome else {}
    points = qualities({node_id: scores[node_id].improvement for node_id in weights})
    verdicts = []
    for submission in work.submissions:
        node_id = submission.node_id
        score_json = asdict(scores[node_id]) if node_id in scores else None
        if node_id in refused:
            error = refused[node_id]
            verdicts.append(Verdict(node_id=node_id, score=score_json, code=error.code, reason=error.message))
        else:
            verdicts.append(Verdict(node_id=node_id, score=score_json, quality=points[node_id], weight=weights[node_id]))
    return verdicts


def evidence(work: RoundWork, verdicts: list[Verdict], *, checkpoint: str, metric: dict[str, float]) -> dict[str, object]:
    """All that is needed to recompute the round: inputs by hash, the scores and what followed from them."""
    by_node = {submission.node_id: submission for submission in work.submissions}
    return {
        "version": 1,
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
            for v in verdicts
        ],
        "checkpoint": checkpoint,
        "metric": metric,
    }  # fmt: skip
