"""One run of the benches `time-to-target` and `scaling`: a job on an emulated network, with real gradients."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from scripts.hypergpu_bench.bytes import DENSE, NESTEROV, WAYS
from scripts.hypergpu_bench.tasks import TASKS
from trainer.network.profiles import load_profile
from trainer.protocol.rounds import JobWork
from trainer.simulation.data_parallel import learn, timed_steps
from trainer.simulation.network import Closing, Network, network_of
from trainer.simulation.rounds import Row
from trainer.simulation.run import simulate

MODELS = {"text": {"layers": 1, "width": 32}, "images": {"channels": [4, 8], "hidden": 16}}
"""Smaller than the tasks' own: many runs are compared."""
STEPS = 40
"""Local steps of a round, as a job has them by default."""
BATCH = 32
DDP_EVERY = 10
"""Steps of data parallel between its evaluations."""

AWARE, WAITING, EQUAL = "network-aware", "network-aware, no overlap", "int4, equal steps"
PLAIN, DDP, CENTRAL = "plain DiLoCo", "data parallel", "centralized"
INT4 = {"encoding": {"kind": "int4"}, "downlink": {"kind": "int4"}, "outer": NESTEROV}
SPECS: Mapping[str, dict[str, Any]] = {
    AWARE: INT4 | {"network": {"overlap": "eager"}}, WAITING: INT4, EQUAL: INT4 | {"network": {"policy": "equal"}},
    PLAIN: WAYS[DENSE],
}  # fmt: skip
"""Of a job by way. All have the same outer optimizer, which the bench `bytes` tuned for the dense one; `EQUAL` is the product
with int4 files that gives all nodes the same steps and waits for them."""


NO_TIME = Closing()


class Point(NamedTuple):
    """Where a run stood: seconds on the virtual clock, samples accepted into the model, loss of the evaluation split (nats)."""

    seconds: float
    samples: int
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A run of rounds. `failure` is each node's chance to crash in a round, None as the profile has it; `closing` the time that
    the coordinator takes itself; `sequence` bytes of a sample of text, None as the task has it."""

    task: str
    seed: int
    way: str
    rounds: int
    profile: str = "wan-hetero"
    nodes: int = 8
    failure: float | None = None
    closing: Closing = NO_TIME
    sequence: int | None = None

    def run(self) -> list[Row]:
        network = network_for(self.profile, seed=self.seed, nodes=self.nodes, failure=self.failure, closing=self.closing)
        return list(simulate(self.job(), network, "diloco" if self.way == PLAIN else "network-aware", seed=self.seed))

    def job(self) -> JobWork:
        job = job_of(self.task, self.seed, rounds=self.rounds, **SPECS[self.way])
        return job if self.sequence is None else short_samples(job, self.sequence)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """Learning by data parallel, which is the same on every network: the loss after each `DDP_EVERY` steps of `nodes` joined
    batches at learning rate `rate`."""

    task: str
    seed: int
    rate: float
    steps: int
    nodes: int = 8

    def run(self) -> list[float]:
        inner = {**TASKS[self.task].spec["inner"], "steps": DDP_EVERY, "batch_size": BATCH, "learning_rate": self.rate}
        job = job_of(self.task, self.seed, rounds=self.steps // DDP_EVERY, inner=inner)
        return [metrics.loss for metrics in learn(job, self.nodes)]


def job_of(task: str, seed: int, *, rounds: int, **overrides: Any) -> JobWork:
    spec = TASKS[task].spec
    chosen = {
        "inner": dict(spec["inner"]) | {"steps": STEPS, "batch_size": BATCH},
        "model": dict(spec["model"]) | {"config": MODELS[task]}, "rounds": {"rounds": rounds, "nodes": 8, "quorum": 2},
    }  # fmt: skip
    return TASKS[task].job(seed=seed, **chosen | overrides)


def short_samples(job: JobWork, sequence: int) -> JobWork:
    """The job with samples of `sequence` bytes of text."""
    data = job.spec.data.model_copy(update={"sequence_length": sequence})
    return replace(job, spec=job.spec.model_copy(update={"data": data}))


def network_for(profile: str, *, seed: int, nodes: int, failure: float | None = None, closing: Closing = NO_TIME) -> Network:
    return network_of(load_profile(profile), seed=seed, nodes=nodes, failure=failure, closing=closing)


def curve_of(rows: Sequence[Row]) -> list[Point]:
    samples = list(accumulate(row.samples for row in rows))
    return [Point(row.seconds, count, row.loss) for row, count in zip(rows, samples, strict=True)]


def data_parallel_curve(losses: Sequence[float], network: Network, *, centralized: bool) -> list[Point]:
    """What was learnt by data parallel, as fast as this network lets it."""
    batch = BATCH * len(network.machines)
    ends = [step.end for step in islice(timed_steps(network, batch, centralized=centralized), DDP_EVERY * len(losses))]
    return [Point(ends[(i + 1) * DDP_EVERY - 1], (i + 1) * DDP_EVERY * batch, loss) for i, loss in enumerate(losses)]


Run = Cell | Joined
Result = Any
"""Rows of a cell, losses of a joined run."""


class Runs(Protocol):
    """What a run depends on; hashable."""

    def run(self) -> Result: ...


R = TypeVar("R", bound=Runs)


def run_all(runs: Sequence[R]) -> dict[R, Result]:
    """One thread a run, as many runs at once as there are cores; what is done goes to standard error."""
    found: dict[R, Result] = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=one_thread) as pool:
        for run, result in zip(runs, pool.map(start, runs), strict=True):
            found[run] = result
            sys.stderr.write(f"{len(found)}/{len(runs)}  {run}\n")
    return found


def measured_closing(task: str, *, sequence: int | None = None) -> Closing:
    """CPU seconds of this machine's one core for a round's close: the line through what it takes with few and with many nodes.
    First rounds, which look at everything, are left out."""
    one_thread()
    few, many = 4, 12
    cost = {}
    for nodes in (few, many):
        rows = Cell(task=task, seed=0, way=WAITING, rounds=2, profile="lan", nodes=nodes, sequence=sequence).run()
        cost[nodes] = statistics.fmean(row.closing_cpu_s for row in rows[1:])
    node_s = max(0.0, (cost[many] - cost[few]) / (many - few))
    return Closing(fixed_s=max(0.0, cost[few] - few * node_s), node_s=node_s)


def one_thread() -> None:
    torch.set_num_threads(1)


def start(run: Runs) -> Result:
    return run.run()
