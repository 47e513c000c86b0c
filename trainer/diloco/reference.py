"""A whole job in one process: what coordinator and operators do together, without network, database or money.

The shortest statement of the algorithm, for readers, tests and tuning. Each step calls the same function as the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from trainer.diloco.checkpoint import initial_params
from trainer.diloco.fragments import stepped
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.round import bench, close_round, prepare
from trainer.diloco.trace import Lead, contribute
from trainer.diloco.version import model_root
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder, foreseen, order_seed
from trainer.protocol.rounds import JobWork, RoundResult, RoundWork, Submission, remembered
from trainer.protocol.spec import JobSpec


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What one round did; `uploads` and `download` are bytes, of each node and of the outer step that went down."""

    round: int
    result: RoundResult
    uploads: dict[int, int]
    download: int


class Node:
    """An operator's side: its own copy of the model, which it moves itself from version to version."""

    def __init__(self, job: JobWork, node_id: int, device: torch.device | None) -> None:
        self.job, self.node_id, self.dataset = job, node_id, bench(job).dataset
        self.state = NodeState(job.spec, self.dataset.info, device=device)
        self.params: Tensor = initial_params(job.spec, self.dataset.info)
        self.lead: Lead | None = None

    def contribute(self, order: WorkOrder) -> Submission:
        """Local steps, traced, and the upload. The version of the node's own copy must be the order's base."""
        assert model_root(self.params) == order.base
        lead = self.lead if self.lead is not None and self.lead.serves(order) else None
        made = contribute(self.state, order, self.params, self.dataset, lead=lead)
        return Submission(
            node_id=self.node_id, units=made.result.units, artifact=sha256_hex(made.upload), data=made.upload, shard=order.shard,
            seed=order.seed, steps=order.steps, encoding=order.encoding,
        )  # fmt: skip

    def go_ahead(self, order: WorkOrder, upload: bytes, *, steps: int) -> None:
        """The next order's first `steps` steps (whole segments of them), before anybody knows what becomes of this one's."""
        if (following := foreseen(order)) is not None and steps:
            self.lead = Lead.behind(
                order, following, base=self.params, upload=upload, shapes=self.state.shapes, own=self.state.own
            )  # fmt: skip
            self.lead.go_on(partial(run_local_steps, self.state, dataset=self.dataset), most=steps)

    def follow(self, delta: bytes, number: int) -> None:
        self.params = stepped(self.params, delta, self.job.spec, shapes=self.state.shapes, number=number)


def run_job(job: JobWork, *, lead: int = 0, device: torch.device | None = None) -> Iterator[RoundReport]:
    """Each round of the job as it ends, with `rounds.nodes` nodes numbered from 0, all of them honest. With `network.overlap`
    eager, `lead` is what a node does of its next order while one travels: local steps, in whole segments."""
    spec, first = job.spec, prepare(job)
    nodes = [Node(job, node_id, device) for node_id in range(spec.rounds.nodes)]
    work = RoundWork(
        job=job, chain_job_id=0, number=0, base=first.base, params=first.params, outer_state=first.outer_state,
        previous_aggregate=None, submissions=[],
    )  # fmt: skip
    while work.number < spec.rounds.rounds:
        orders = [order(spec, work, node.node_id) for node in nodes]
        submissions = [node.contribute(mine) for node, mine in zip(nodes, orders, strict=True)]
        if spec.network.overlap == "eager":
            for node, mine, made in zip(nodes, orders, submissions, strict=True):
                node.go_ahead(mine, made.data, steps=lead)
        work = replace(work, submissions=submissions)
        result = close_round(work)
        yield RoundReport(work.number, result, {s.node_id: len(s.data) for s in submissions}, len(result.delta))
        if result.delta:
            for node in nodes:
                node.follow(result.delta, work.number)
        work = next_round(work, result)


def order(spec: JobSpec, work: RoundWork, node_id: int) -> WorkOrder:
    return WorkOrder(
        job_id=work.chain_job_id, round=work.number, node_id=node_id, fence=1, deadline=2**31, base=work.base,
        checkpoint=sha256_hex(work.params), shard=node_id, shards=spec.rounds.nodes,
        seed=order_seed(spec, work.number, node_id), steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


def next_round(work: RoundWork, result: RoundResult) -> RoundWork:
    """What the round after `work`, with all that was handed in for it, starts from."""
    number, accepted = work.number + 1, {verdict.node_id for verdict in result.verdicts if verdict.quality is not None}
    counted = work.earlier | {work.number: [one for one in work.submissions if one.node_id in accepted]}
    return replace(
        work, number=number, base=result.version, params=result.params, outer_state=result.outer_state,
        previous_aggregate=result.aggregate or None, submissions=[],
        standings=work.standings | {verdict.node_id: verdict.standing for verdict in result.verdicts},
        earlier={known: counted[known] for known in remembered(work.job.spec, number)},
    )  # fmt: skip
