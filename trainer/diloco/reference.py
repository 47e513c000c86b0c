"""A whole job in one process: what coordinator and operators do together, without network, database or money.

The shortest statement of the algorithm, for readers, tests and tuning. Each step calls the same function as the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trainer.data import Dataset
from trainer.diloco.aggregation import Aggregate, Contribution, aggregate
from trainer.diloco.checkpoint import initial_checkpoint, load_checkpoint, save_checkpoint
from trainer.diloco.encoding import Tensors, encode
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.outer import OuterState, outer_step
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import JobSpec
from trainer.scoring.checks import check_contribution, norm_limit
from trainer.scoring.quality import Score, passes_gate, qualities
from trainer.scoring.scores import SCORE_SAMPLES, Metrics, draw_batch, evaluate, loss_improvement


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What one round did; `checkpoint` is the SHA-256 of the state after it, `uploads` bytes by node."""

    round: int
    metrics: Metrics
    scores: dict[int, Score]
    qualities: dict[int, int]
    refused: list[int]
    aggregate: Aggregate
    checkpoint: str
    uploads: dict[int, int]


def run_job(spec: JobSpec, dataset: Dataset, *, device: torch.device | None = None) -> Iterator[RoundReport]:
    """Each round of the job as it ends, with `spec.rounds.nodes` nodes numbered from 0, all of them honest."""
    nodes = [NodeState(spec, dataset.info, device=device) for _ in range(spec.rounds.nodes)]
    data = initial_checkpoint(spec, dataset.info)
    outer = OuterState(load_checkpoint(data, shapes=nodes[0].shapes))
    previous: Tensors | None = None
    for number in range(spec.rounds.rounds):
        orders = [order(spec, number, node, base=sha256_hex(data)) for node in range(len(nodes))]
        files = {o.node_id: contribute(nodes[o.node_id], o, outer.params, dataset) for o in orders}
        contributions, scores = accept(spec, files, outer.params, dataset, nodes[0], previous, number)
        gathered = aggregate(contributions, spec.aggregation)
        outer, previous = outer_step(outer, gathered.pseudo_gradient, spec.outer), gathered.pseudo_gradient
        data = save_checkpoint(outer.params)
        yield RoundReport(
            round=number, metrics=evaluate(nodes[0].model, outer.params, dataset.eval), scores=scores,
            qualities=qualities({c.node_id: scores[c.node_id].improvement for c in contributions}),
            refused=sorted(set(files) - {c.node_id for c in contributions}), aggregate=gathered,
            checkpoint=sha256_hex(data), uploads={node: len(file) for node, file in files.items()},
        )  # fmt: skip


def order(spec: JobSpec, number: int, node: int, *, base: str) -> WorkOrder:
    return WorkOrder(
        job_id=0, round=number, node_id=node, fence=1, deadline=2**31, base=base, shard=node, shards=spec.rounds.nodes,
        seed=spec.seed + number * spec.rounds.nodes + node, spec=spec,
    )  # fmt: skip


def contribute(state: NodeState, work: WorkOrder, base: Tensors, dataset: Dataset) -> bytes:
    """A node's part: local steps, pseudo-gradient, encoding."""
    result = run_local_steps(state, work, base, dataset)
    data, state.error = encode(result.pseudo_gradient, work.spec.encoding, error=state.error)
    return data


def accept(
    spec: JobSpec,
    files: dict[int, bytes],
    base: Tensors,
    dataset: Dataset,
    scorer: NodeState,
    previous: Tensors | None,
    number: int,
) -> tuple[list[Contribution], dict[int, Score]]:
    """The coordinator's part: checks, then scores on a batch drawn after all files are known, then the loss gate."""
    commitments = ":".join(sha256_hex(files[node]) for node in sorted(files))
    inputs, targets = draw_batch(
        dataset.score, seed=sha256_hex(f"{number}:{commitments}".encode()), size=SCORE_SAMPLES[dataset.info.kind]
    )
    updates: dict[int, Tensors] = {}
    scores: dict[int, Score] = {}
    before: float | None = None
    for node, data in sorted(files.items()):
        updates[node] = check_contribution(
            data, spec.encoding, scorer.shapes, others=updates, previous=previous, max_norm=norm_limit(spec, scorer.shapes)
        )
        scores[node] = loss_improvement(scorer.model, base, updates[node], inputs, targets, loss_before=before)
        before = scores[node].loss_before
    accepted = [
        Contribution(node, updates[node], spec.units_per_round, scores[node].improvement)
        for node in updates
        if passes_gate(scores[node], spec.aggregation.gate_tolerance)
    ]
    return accepted, scores
