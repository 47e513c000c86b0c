"""Rounds of eight honest nodes, and what ownership and the copy rule say of them and of copies among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.hypergpu_bench.tasks import NODES
from trainer.data import load_dataset
from trainer.diloco.aggregation import Contribution, aggregate
from trainer.diloco.encoding import decode, encode
from trainer.diloco.local import NodeState, run_local_steps
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder
from trainer.protocol.rounds import JobWork, Submission
from trainer.scoring.checks import find_copies
from trainer.scoring.ownership import assigned_samples, ownership

COPY = NODES
"""Node id of the one that copies; it commits last."""


@dataclass(slots=True)
class Seen:
    """Counts over the rounds of one job: honest `updates` and how many were `owned` or `taken_for_copies`; updates held against
    another node's order (`strangers`) that seemed owned (`others`); `copies`, and how many were `found`."""

    task: str
    encoding: str
    updates: int = 0
    owned: int = 0
    taken_for_copies: int = 0
    strangers: int = 0
    others: int = 0
    copies: int = 0
    found: int = 0

    def row(self) -> dict[str, Any]:
        return {
            "task": self.task, "encoding": self.encoding, "updates": self.updates, "owned": self.owned / self.updates,
            "others": self.others / self.strangers, "taken_for_copies": self.taken_for_copies, "copies": self.copies,
            "copies_found": self.found,
        }  # fmt: skip


def watch(job: JobWork, task: str, *, rounds: int) -> Seen:
    """A job of honest nodes by the product's inner loop, encoding and aggregation; the outer step is the aggregate itself."""
    spec, dataset = job.spec, load_dataset(job.spec.data, files=job.files)
    nodes = [NodeState(spec, dataset.info, device=torch.device("cpu")) for _ in range(NODES)]
    base, previous = nodes[0].params(), None
    seen = Seen(task, spec.encoding.kind)
    for number in range(rounds):
        orders = [order_of(job, number, node) for node in range(NODES)]
        updates = {}
        for state, order in zip(nodes, orders, strict=True):
            sent = encode(run_local_steps(state, order, base, dataset).pseudo_gradient, spec.encoding, error=state.error)
            state.error, updates[order.node_id] = sent.error, decode(sent.data, spec.encoding, count=len(base))
        values = {node: update.values for node, update in updates.items()}
        assigned = {order.node_id: assigned_samples(dataset.train, spec, submission(order)) for order in orders}
        count_owned(seen, nodes[0], base, values, dataset.train, assigned, sha256_hex(f"{spec.seed}:{number}".encode()))
        count_copies(seen, job, values, previous)
        contributions = [Contribution(node, update, spec.units_per_round) for node, update in updates.items()]
        previous = aggregate(contributions, spec.aggregation).pseudo_gradient
        base = base - previous
    return seen


def order_of(job: JobWork, number: int, node: int) -> WorkOrder:
    return WorkOrder(
        job_id=0, round=number, node_id=node, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=node,
        shards=NODES, seed=1000 * job.spec.seed + NODES * number + node, steps=job.spec.inner.steps, encoding=job.spec.encoding,
        spec=job.spec,
    )  # fmt: skip


def submission(order: WorkOrder) -> Submission:
    return Submission(
        node_id=order.node_id, units=order.units, artifact="0" * 64, data=b"", shard=order.shard, seed=order.seed,
        steps=order.steps, encoding=order.encoding,
    )  # fmt: skip


def count_owned(
    seen: Seen, state: NodeState, base: Tensor, updates: dict[int, Tensor], train: Any, assigned: dict[int, Tensor], seed: str
) -> None:
    """Each update against its own order's samples, and against the next node's."""
    for shift in (0, 1):
        shifted = {node: assigned[(node + shift) % NODES] for node in updates}
        gains = ownership(state.model, state.shapes, base, updates, train=train, assigned=shifted, seed=seed)
        owned = sum(gain.owned for gain in gains.values())
        if shift:
            seen.strangers, seen.others = seen.strangers + len(gains), seen.others + owned
        else:
            seen.updates, seen.owned = seen.updates + len(gains), seen.owned + owned


def count_copies(seen: Seen, job: JobWork, updates: dict[int, Tensor], previous: Tensor | None) -> None:
    """The honest alone, then with one more who sends what another sent, changed or not and encoded again."""
    seen.taken_for_copies += len(find_copies(updates, previous))
    source = updates[0]
    fakes = [source, source / 2, noisy(source, 0.1), noisy(source, 0.3), *([] if previous is None else [previous])]
    for fake in fakes:
        sent = encode(fake, job.spec.encoding).values
        seen.copies += 1
        seen.found += COPY in find_copies({**updates, COPY: sent}, previous)


def noisy(update: Tensor, part: float) -> Tensor:
    """Noise of `part` of its norm on what was sent."""
    noise = torch.randn(update.shape, generator=torch.Generator().manual_seed(0)) * (update != 0)
    return update + part * update.norm() / noise.norm() * noise
