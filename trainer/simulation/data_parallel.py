"""Per-step data parallelism on the virtual clock: what DiLoCo is compared with.

`ddp`: equal batches, gradients summed by a ring all-reduce in fp32 over the nodes' own links. Each node sends 4 n / P bytes in
each of 2 (P - 1) phases (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"), on
connections that stay open. A node sends what its backward pass has done already, and here all of that costs no time: a step
lasts as long as its computing or its all-reduce, whichever is longer. It waits for nodes that join later, and loses the step in
flight when one leaves for good (it is elastic, and restores from memory). All of that is better than most set-ups are.
`centralized`: the same on a LAN, with the batch split by speed. Either way all nodes together take one step on one big batch,
and that is how it is computed: what is learnt does not depend on the network, only the time does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch

from trainer.diloco.checkpoint import initial_params
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.round import bench
from trainer.network.links import Machine, transferred
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder, order_seed
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import JobSpec
from trainer.scoring.scores import Metrics, evaluate
from trainer.simulation.network import Network, on_a_lan
from trainer.simulation.rounds import Row


def run_data_parallel(job: JobWork, network: Network, *, centralized: bool) -> Iterator[Row]:
    """A row for each `inner.steps` steps. Raises HyperGPUError `simulation.deserted` when all nodes have left."""
    size, every = len(network.machines), job.spec.inner.steps
    steps, began = timed_steps(network, job.spec.inner.batch_size * size, centralized=centralized), 0.0
    for number, metrics in enumerate(learn(job, size)):
        taken = [next(steps) for _ in range(every)]
        now, sent = taken[-1].end, sum(step.sent for step in taken)
        yield Row(
            round=number, seconds=now, **asdict(metrics), samples=size * job.spec.units_per_round, sent=sent, received=sent,
            busy=sum(step.computing for step in taken) / (size * (now - began)),
        )  # fmt: skip
        began = now


def learn(job: JobWork, size: int) -> Iterator[Metrics]:
    """Metrics on the evaluation split after each `inner.steps` steps of `size` joined batches, real gradients."""
    at, spec = bench(job), as_one(job.spec, size)
    state, params = NodeState(spec, at.dataset.info, device=torch.device("cpu")), initial_params(spec, at.dataset.info)
    for number in range(spec.rounds.rounds):
        params = params - run_local_steps(state, order_of(spec, number), params, at.dataset).pseudo_gradient
        yield evaluate(at.model, at.shapes, params, at.dataset.eval)


def timed_steps(network: Network, batch: int, *, centralized: bool) -> Iterator[Step]:
    """One step of `batch` samples after another, without end, on the virtual clock. Raises HyperGPUError
    `simulation.deserted` when all nodes have left."""
    machines = on_a_lan(network) if centralized else network.machines
    now = 0.0
    while True:
        step = one_step(machines, now, batch, 4 * network.parameters, by_speed=centralized)
        now = step.end
        yield step


def as_one(spec: JobSpec, size: int) -> JobSpec:
    """The job for one worker with the batch of all."""
    batch = size * spec.inner.batch_size
    inner = spec.inner.model_validate(spec.inner.model_dump() | {"batch_size": batch, "micro_batch": None})
    return spec.model_copy(update={"inner": inner})


def order_of(spec: JobSpec, number: int) -> WorkOrder:
    return WorkOrder(
        job_id=0, round=number, node_id=0, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=0, shards=1,
        seed=order_seed(spec, number, 0), steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


class Step(NamedTuple):
    """When it ends; seconds that its nodes compute, and bytes that they send, in sum."""

    end: float
    computing: float
    sent: float


def one_step(machines: Sequence[Machine], start: float, batch: int, size: float, *, by_speed: bool) -> Step:
    """One step of all that have not left for good, again without those that leave in it. Raises `simulation.deserted`."""
    while members := [machine for machine in machines if not machine.gone(start)]:
        computed = computed_at(members, start, batch, by_speed=by_speed)
        end = max(*computed, ring(members, [start] * len(members), size))
        if not math.isinf(end):
            return Step(end, sum(computed) - len(members) * start, len(members) * ring_bytes(size, len(members)))
        start = min(machine.times[-1] for machine in members if machine.times[-1] > start)
    raise HyperGPUError("simulation.deserted", "All nodes have left: nobody is there to train any more.")


def computed_at(machines: Sequence[Machine], start: float, batch: int, *, by_speed: bool) -> list[float]:
    """When each machine has done its part of a batch: an equal one, or one in proportion to its speed now."""
    speeds = [machine.at(start).samples_per_second for machine in machines]
    total = sum(speeds)
    equal = not by_speed or not total
    shares = [batch / len(machines) if equal else batch * speed / total for speed in speeds]
    return [machine.computed(start, share) for machine, share in zip(machines, shares, strict=True)]


def ring(machines: Sequence[Machine], ready: Sequence[float], size: float) -> float:
    """When an all-reduce of `size` bytes is over everywhere that each machine enters at its own `ready` time."""
    count, now = len(machines), list(ready)
    for _ in range(2 * (count - 1)):
        arrived = [
            math.inf if math.isinf(now[sender])
            else transferred(machines[sender], machines[(sender + 1) % count], now[sender], size / count, round_trips=0.5)
            for sender in range(count)
        ]  # fmt: skip
        now = [max(arrived[node], arrived[node - 1]) for node in range(count)]
    return max(now)


def ring_bytes(size: float, count: int) -> float:
    """What each of `count` nodes sends, and receives, in an all-reduce of `size` bytes."""
    return 2 * (count - 1) / count * size
