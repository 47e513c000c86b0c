"""The operators of a simulated run: those that work, and those that do something else."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainer.data import Dataset
from trainer.diloco.fragments import encode_fragment, fragment_of
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.trace import Lead, contribute
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder, foreseen
from trainer.protocol.rounds import Submission
from trainer.protocol.spec import JobSpec
from trainer.simulation.attackers import Attack, Sight, mislabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What a node may begin its next order from (`network.overlap` eager): its order, whose base (n,) and upload give a guess of
    the next version, and when (seconds on the clock) its computing ended."""

    order: WorkOrder
    base: Tensor
    upload: bytes
    ended: float


class Operator:
    """A node with what it keeps between rounds. `version` is the model version that it holds, `busy` whether it still works
    on a round that may be closed, `before` its last contribution, `lead` the steps of the next order that it did in advance."""

    def __init__(self, node_id: int, spec: JobSpec, dataset: Dataset, *, seed: int) -> None:
        self.node_id, self.spec, self.dataset = node_id, spec, dataset
        self.random = random.Random(f"{seed}:{node_id}:failures")
        self.version: str | None = None
        self.busy = False
        self.before: Before | None = None
        self.lead = 0
        self.state = NodeState(spec, dataset.info, device=torch.device("cpu"))

    def crash(self) -> None:
        """What it held in memory is lost."""
        self.version = self.before = None
        self.state = NodeState(self.spec, self.dataset.info, device=torch.device("cpu"))

    def contribute(self, order: WorkOrder, base: Tensor, *, ended: float) -> Submission:
        """Honest work by the agent's own functions, its lead included; its computing has ended at `ended`."""
        lead = None
        if self.before is not None and self.lead and (following := foreseen(self.before.order)) is not None:
            lead = Lead.behind(
                self.before.order, following, base=self.before.base, upload=self.before.upload, shapes=self.state.shapes,
                own=self.state.own,
            )  # fmt: skip
            lead.go_on(partial(run_local_steps, self.state, dataset=self.dataset), most=self.lead)
        made = contribute(self.state, order, base, self.dataset, lead=lead if lead is not None and lead.serves(order) else None)
        self.before = Before(order=order, base=base, upload=made.upload, ended=ended)
        return self.submission(order, made.upload)

    def submit(self, order: WorkOrder, update: Tensor) -> Submission:
        fragment = fragment_of(self.state.shapes, self.spec, order.round)
        encoded = encode_fragment(update, order.encoding, fragment, error=self.state.error)
        self.state.error = encoded.error
        return self.submission(order, encoded.data)

    def submission(self, order: WorkOrder, data: bytes) -> Submission:
        return Submission(
            node_id=self.node_id, units=order.units, artifact=sha256_hex(data), data=data, shard=order.shard,
            seed=order.seed, steps=order.steps, encoding=order.encoding,
        )  # fmt: skip


class Gang:
    """The hostile nodes of a round, which tell each other everything. Each claims the full order."""

    def __init__(self, attacks: Mapping[int, Attack], dataset: Dataset, *, seed: int) -> None:
        self.attacks = dict(sorted(attacks.items()))
        self.right, self.wrong = dataset, mislabelled(dataset)
        self.generator = torch.Generator().manual_seed(seed)

    def cheats(self, node_id: int) -> bool:
        """Whether what this node hands in is not what it was ordered to do."""
        return node_id in self.attacks and not (self.attacks[node_id].honest_first and node_id == next(iter(self.attacks)))

    def work(self, node_id: int) -> float:
        """Part of an order that the node really does."""
        return self.attacks[node_id].work if self.cheats(node_id) else 1.0

    def submissions(
        self, operators: Sequence[Operator], orders: Mapping[int, WorkOrder], base: Tensor,
        *, published: Mapping[int, Tensor], aggregate: Tensor | None,
    ) -> dict[int, Submission | None]:  # fmt: skip
        """What those with an order hand in: None for nothing."""
        members = [node for node in self.attacks if node in orders]
        trained = [self.train(operators[node], orders[node], base) for node in members]
        found: dict[int, Submission | None] = {}
        for place, node in enumerate(members):
            inner = orders[node].spec.inner
            sight = Sight(
                place=place, own=trained[place], gang=trained, published=published, aggregate=aggregate, generator=self.generator,
                usual_norm=inner.learning_rate * math.sqrt(orders[node].steps * len(base)),
            )  # fmt: skip
            update = self.attacks[node].craft(sight)
            found[node] = None if update is None else operators[node].submit(orders[node], update)
        return found

    def train(self, operator: Operator, order: WorkOrder, base: Tensor) -> Tensor:
        attack, work = self.attacks[operator.node_id], self.work(operator.node_id)
        if not work:
            return torch.zeros_like(base)
        steps, shard = max(1, round(work * order.steps)), (order.shard + attack.shift) % order.shards
        done = order.model_copy(update={"steps": steps, "shard": shard})
        return run_local_steps(operator.state, done, base, self.wrong if attack.wrong else self.right).pseudo_gradient
