"""Bytes that an operator sends and receives until a loss is reached: data parallel, plain DiLoCo, HyperGPU's encodings."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scripts.hypergpu_bench.report import INTERVAL, Figure, Interval, Measured, interval
from scripts.hypergpu_bench.tasks import NODES, TASKS
from trainer.data import Dataset, shard_batches
from trainer.diloco.encoding import decode
from trainer.diloco.local import NodeState, local_step
from trainer.diloco.reference import Node, order
from trainer.diloco.round import advance, bench, prepare, read_state
from trainer.protocol.limits import expected_evidence
from trainer.protocol.orders import order_seed
from trainer.protocol.rounds import JobWork, RoundWork
from trainer.protocol.spec import AuditSpec, JobSpec
from trainer.protocol.wire import encoded_bytes
from trainer.scoring.scores import measure as measure_on
from trainer.simulation.plots import Bars, Curves

SEEDS = (1, 2, 3)
RING = 2 * (NODES - 1) / NODES
"""Vectors that a ring all-reduce sends for each node, and as many that it receives (Patarasu and Yuan 2009)."""
DDP, DENSE, OURS = "data parallel, fp32", "plain DiLoCo, fp32", "topk 128 up, 256 down"
DDP_RATES = {"text": (4e-3, 8e-3), "images": (2e-3, 4e-3)}
"""Learning rates of data parallel; of each seed and target, the one that needs fewer bytes counts."""
DDP_EVERY = 10
"""Steps between its evaluations."""
HELD_OUT = 400
"""Samples of the evaluation split on which the loss is taken."""
TARGETS = {"text": (2.6, 2.5, 2.4, 2.3, 2.2, 2.1), "images": (0.5, 0.3, 0.2, 0.15, 0.12, 0.1)}
MAIN = {"text": 2.4, "images": 0.2}
BYTES_GOAL, GAP_GOAL = 1_000.0, 1.5
FP32 = {"kind": "fp32"}
SGD = {"optimizer": "sgd", "learning_rate": 1.5}
"""Chosen among 0.85, 1, 1.15, 1.3 and 1.5 on seeds 4 to 6; what is reported are others."""
NESTEROV = {"optimizer": "nesterov", "learning_rate": 0.7, "momentum": 0.5}
AUDITS = AuditSpec()
PLAIN = {"rule": "weighted_mean", "gate": False}


def topk(k: int, levels: int = 2) -> dict[str, Any]:
    return {"kind": "topk", "k": k, "levels": levels, "error_decay": 0.9}


WAYS: Mapping[str, dict[str, Any]] = {
    DENSE: {"encoding": FP32, "downlink": FP32, "outer": NESTEROV, "aggregation": PLAIN},
    "int4 up, int4 down": {"encoding": {"kind": "int4"}, "downlink": {"kind": "int4"}, "outer": NESTEROV},
    "topk 64 up, 256 down": {"encoding": topk(64), "downlink": topk(256), "outer": SGD},
    OURS: {"encoding": topk(128), "downlink": topk(256), "outer": SGD},
    "topk 96 up, 160 down, one level": {"encoding": topk(96, levels=1), "downlink": topk(160, levels=1), "outer": SGD},
}
QUICK = (DENSE, OURS)


class Point(NamedTuple):
    """Where a run stood: steps of each node, bytes that one operator had sent and received, held-out loss in nats."""

    steps: int
    bytes: int
    loss: float


@dataclass(frozen=True, slots=True)
class Run:
    task: str
    way: str
    seed: int
    rate: float | None = None

    def curve(self) -> list[Point]:
        torch.set_num_threads(1)
        points = diloco(self) if self.rate is None else data_parallel(self, self.rate)
        return list(points)


def measure(*, quick: bool) -> Measured:
    seeds = SEEDS[:1] if quick else SEEDS
    ways = QUICK if quick else tuple(WAYS)
    runs = [Run(task, way, seed) for task in TASKS for seed in seeds for way in ways]
    runs += [Run(task, DDP, seed, rate) for task in TASKS for seed in seeds for rate in DDP_RATES[task]]
    curves = run_all(runs)
    return measured(curves, seeds, ways)


def run_all(runs: Sequence[Run]) -> dict[Run, list[Point]]:
    """One thread a run, as many runs at once as there are cores; what is done goes to standard error."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Run, Future[list[Point]]] = {run: pool.submit(run.curve) for run in runs}
        curves = {}
        for number, (run, future) in enumerate(waiting.items(), 1):
            curves[run] = future.result()
            sys.stderr.write(f"{number}/{len(runs)}  {run.task}, {run.way}, seed {run.seed}: {curves[run][-1].loss:.4f} nats\n")
    return curves


def diloco(run: Run) -> Iterator[Point]:
    """A job through the product's own nodes, files, aggregation and outer step; all are honest, so nobody is judged.
    Nodes are alike, so node 0's uploads are anyone's."""
    job = TASKS[run.task].job(seed=run.seed, **WAYS[run.way])
    spec, at, first = job.spec, bench(job), prepare(job)
    nodes = [Node(job, node_id, None) for node_id in range(NODES)]
    work = RoundWork(
        job=job, chain_job_id=0, number=0, base=first.base, params=first.params, outer_state=first.outer_state,
        previous_aggregate=None, submissions=[],
    )  # fmt: skip
    state, total = read_state(work), 0
    for number in range(spec.rounds.rounds):
        files = [node.contribute(order(spec, work, node.node_id)) for node in nodes]
        updates = {file.node_id: decode(file.data, file.encoding, count=at.size) for file in files}
        after = advance(replace(work, submissions=files), state, updates, list(updates), shapes=at.shapes)
        for node in nodes:
            node.follow(after.delta, number)
        state, work = after.state, replace(work, number=number + 1, base=after.version)
        total += len(files[0].data) + len(after.delta)
        yield Point(work.number * spec.inner.steps, total, held_out_loss(job, state.params))


def data_parallel(run: Run, rate: float) -> Iterator[Point]:
    """Per step one gradient of the joined batch: the same samples as DiLoCo's nodes take, in the same order."""
    job = TASKS[run.task].job(seed=run.seed)
    spec, at = job.spec, bench(job)
    state = NodeState(spec, at.dataset.info)
    for step, (inputs, targets) in enumerate(joined_batches(spec, at.dataset), 1):
        warm = min(1.0, step / max(1, spec.inner.warmup_steps))
        local_step(state, inputs, targets, spec.inner, rate=rate * warm)
        if step % DDP_EVERY == 0:
            yield Point(step, round(step * 2 * RING * 4 * at.size), held_out_loss(job, state.params()))


def held_out_loss(job: JobWork, params: Tensor) -> float:
    """Nats, on the same samples for every way."""
    at = bench(job)
    samples = at.dataset.eval.take(torch.arange(min(HELD_OUT, len(at.dataset.eval))))
    return measure_on(at.model, at.shapes, params, *samples).loss


def joined_batches(spec: JobSpec, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    for number in range(spec.rounds.rounds):
        shards = [
            shard_batches(
                dataset.train, shard=shard, shards=NODES, seed=order_seed(spec, number, shard), steps=spec.inner.steps,
                batch_size=spec.inner.batch_size,
            )
            for shard in range(NODES)
        ]  # fmt: skip
        for parts in zip(*shards, strict=True):
            inputs, targets = zip(*parts, strict=True)
            yield torch.cat(inputs), torch.cat(targets)


# From curves to tables.

Runs = Mapping[Run, Sequence[Point]]


def bytes_to(curve: Sequence[Point], target: float) -> int | None:
    """What had been moved when the held-out loss was first at `target` or below, at the end of a round."""
    return next((point.bytes for point in curve if point.loss <= target), None)


def moved(curves: Runs, task: str, way: str, seed: int, target: float) -> int | None:
    """Of several learning rates (data parallel) the one that needs least."""
    reached = [bytes_to(curve, target) for run, curve in curves.items() if (run.task, run.way, run.seed) == (task, way, seed)]
    return min((found for found in reached if found is not None), default=None)


def shown(task: str, way: str, steps: int) -> float:
    """Bytes of evidence that replay audits at the default rates ask of a node for its first `steps` of a job, in the mean."""
    job = TASKS[task].job(**WAYS[way])
    return expected_evidence(job.spec, bench(job).size, rounds=steps // job.spec.inner.steps)


def audited_ratios(curves: Runs, task: str, way: str, seeds: Sequence[int], target: float) -> list[float]:
    """As `ratios`, with that evidence counted as this way's."""
    found = []
    for seed in seeds:
        point = next((point for point in curves[Run(task, way, seed)] if point.loss <= target), None)
        if point is not None and (theirs := moved(curves, task, DDP, seed, target)) is not None:
            found.append(theirs / (point.bytes + shown(task, way, point.steps)))
    return found


def final(curves: Runs, task: str, way: str, seed: int) -> float:
    """Loss at the end, after the same samples for every way; the best of several learning rates."""
    return min(curve[-1].loss for run, curve in curves.items() if (run.task, run.way, run.seed) == (task, way, seed))


def ratios(curves: Runs, task: str, way: str, seeds: Sequence[int], target: float) -> list[float]:
    """Data parallel's bytes over this way's, of each seed with which both reach the target."""
    pairs = [(moved(curves, task, DDP, seed, target), moved(curves, task, way, seed, target)) for seed in seeds]
    return [theirs / ours for theirs, ours in pairs if theirs is not None and ours is not None]


def gaps(curves: Runs, task: str, way: str, seeds: Sequence[int], *, beside: str) -> list[float]:
    """Final loss above that of `beside` with the same seed, in percent."""
    return [100 * (final(curves, task, way, seed) / final(curves, task, beside, seed) - 1) for seed in seeds]


def measured(curves: Runs, seeds: Sequence[int], ways: Sequence[str]) -> Measured:
    rows = [
        reaching(curves, task, way, seeds, target) for task in TASKS for target in TARGETS[task] for way in (DDP, *ways)
    ]  # fmt: skip
    finals = [ending(curves, task, way, seeds) for task in TASKS for way in (DDP, *ways)]
    figures = {
        name: figure
        for task, suffix in (("text", ""), ("images", "_images"))
        for name, figure in of_task(curves, task, suffix, seeds)
    }
    return Measured(
        seeds=seeds, conditions=conditions(), rows=rows, figures=figures, spread=INTERVAL,
        more={"equal tokens": finals, "links": [link(task_way, *size) for task_way in (DDP, *ways) for size in SIZES]},
        plots=plots(curves, seeds, ways),
    )  # fmt: skip


def reaching(curves: Runs, task: str, way: str, seeds: Sequence[int], target: float) -> dict[str, Any]:
    found = [moved(curves, task, way, seed, target) for seed in seeds]
    known = [value / 1e6 for value in found if value is not None]
    over = ratios(curves, task, way, seeds, target)
    return {
        "task": task, "target_nats": target, "way": way, "seeds_reached": f"{len(known)} of {len(seeds)}",
        **spread("megabytes", known), **spread("times_fewer", over if way != DDP else []),
        **spread("times_fewer_with_audits", audited_ratios(curves, task, way, seeds, target) if way not in (DDP, DENSE) else []),
    }  # fmt: skip


def ending(curves: Runs, task: str, way: str, seeds: Sequence[int]) -> dict[str, Any]:
    [curve, *_] = [curve for run, curve in curves.items() if (run.task, run.way, run.seed) == (task, way, seeds[0])]
    row = {"task": task, "way": way, **spread("loss_nats", [final(curves, task, way, seed) for seed in seeds])}
    row |= spread("above_dense_percent", gaps(curves, task, way, seeds, beside=DENSE))
    row |= spread("above_data_parallel_percent", gaps(curves, task, way, seeds, beside=DDP))
    row["megabytes"] = curve[-1].bytes / 1e6
    if way != DDP:
        job = TASKS[task].job(**WAYS[way])
        for direction, encoding in (("up", job.spec.encoding), ("down", job.spec.downlink)):
            row[f"bytes_{direction}"] = encoded_bytes(bench(job).size, encoding)
            if encoding.kind == "topk":
                packed = encoding.model_copy(update={"indices": "packed"})
                row[f"bytes_{direction}_packed"] = encoded_bytes(bench(job).size, packed)
    return row


def spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    mean, low, high = interval(values) if values else (None, None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def of_task(curves: Runs, task: str, suffix: str, seeds: Sequence[int]) -> Iterator[tuple[str, Figure]]:
    target = MAIN[task]
    fewer = ratios(curves, task, OURS, seeds, target)
    above = interval(gaps(curves, task, OURS, seeds, beside=DENSE))
    behind = interval(gaps(curves, task, OURS, seeds, beside=DDP))
    if fewer:
        yield f"bytes_to_target_ratio_vs_ddp{suffix}", figure(interval(fewer), f"times fewer, to {target} nats", BYTES_GOAL)
        audited = interval(audited_ratios(curves, task, OURS, seeds, target))
        yield f"bytes_with_audits_ratio_vs_ddp{suffix}", figure(audited, f"times fewer, to {target} nats, with evidence", None)
    yield f"loss_gap_percent_vs_dense_diloco{suffix}", figure(above, "% of the loss in nats", GAP_GOAL)
    yield f"loss_gap_percent_vs_ddp{suffix}", figure(behind, "% of the loss in nats", None)


def figure(found: Interval, unit: str, goal: float | None) -> Figure:
    return Figure(value=found.mean, unit=unit, goal=goal, low=found.low, high=found.high)


class Size(NamedTuple):
    """A model and a machine that the byte counts are put beside; nothing of that size was trained here."""

    parameters: float
    step_seconds: float
    local_steps: int


SIZES = (Size(124e6, 0.5, 30), Size(1e9, 2.0, 30), Size(7e9, 6.0, 100))
HIDDEN = 0.1
"""Transfers may take this part of the time that the steps take."""


def link(way: str, parameters: float, step_seconds: float, local_steps: int) -> dict[str, Any]:
    """Mbit/s each way with which transfers take a tenth of the time of the steps."""
    if way == DDP:
        up = down = RING * 4 * parameters
        local_steps = 1
    else:
        spec = TASKS["text"].job(**WAYS[way]).spec
        up, down = (encoded_bytes(round(parameters), encoding) for encoding in (spec.encoding, spec.downlink))
    allowed = HIDDEN * step_seconds * local_steps
    return {
        "way": way, "parameters": f"{parameters / 1e6:,.0f} M", "step_seconds": step_seconds, "steps_of_a_round": local_steps,
        "mbit_per_second_up": 8e-6 * up / allowed, "mbit_per_second_down": 8e-6 * down / allowed,
    }  # fmt: skip


def conditions() -> list[str]:
    counts = {task: bench(TASKS[task].job()).size for task in TASKS}
    text, images = (TASKS[task].job().spec for task in ("text", "images"))
    return [
        f"text: byte GPT, {counts['text']:,} parameters, tiny Shakespeare, {NODES} nodes, batch {text.inner.batch_size} x "
        f"{text.data.sequence_length} bytes, {text.rounds.rounds} rounds of {text.inner.steps} steps. images: CNN, "
        f"{counts['images']:,} parameters, the 10,000 images of MNIST's test part, {NODES} nodes, batch "
        f"{images.inner.batch_size}, {images.rounds.rounds} rounds of {images.inner.steps} steps. Loss on held-out data.",
        "Bytes are those of one operator, sent and received: the sizes of the real files of pseudo-gradients and outer steps, as "
        f"the product's own round engine makes them; of data parallel {2 * RING:g} fp32 vectors a step (a ring all-reduce of "
        f"{NODES}). HTTP, receipts and signatures are counted in the bench `peers`, on real sockets.",
        "Replay audits are counted in bytes_with_audits_ratio_vs_ddp and times_fewer_with_audits alone: with the evidence that "
        "chance asks of a node for the rounds until the target, in the mean, at the default rates "
        f"({AUDITS.newcomer_rate:g} in the first {AUDITS.newcomer_rounds} rounds of a job, {AUDITS.rate:g} then; "
        f"{AUDITS.segments} segments), of a size by the product's own functions. It is nearly all that a newcomer sends. Data "
        "parallel and plain DiLoCo are not audited.",
        f"Data parallel takes the same samples in steps of the joined batch ({NODES} times as large), AdamW as the nodes'; its "
        f"learning rate is the best of {DDP_RATES['text']} for text, {DDP_RATES['images']} for images, for each seed and target "
        "anew. Plain DiLoCo: mean, no gate, full fp32 vectors up and down, its outer optimizer tuned for itself. That of sparse "
        f"ways: SGD at {SGD['learning_rate']}, chosen on seeds that are not among the reported ones.",
        f"The figures are of {OURS}. Inner learning rates are the tasks', the same for all ways of DiLoCo.",
        f"The main targets are {MAIN['text']} and {MAIN['images']} nats: levels that plain DiLoCo passes after about two "
        "thirds of its rounds, so that compressed ways can reach them too. All levels of a fixed list are in the table, those "
        "that DiLoCo does not reach too.",
        "One process, nothing is timed. The table `links` says what the bytes stand for: the link with which transfers take a "
        "tenth of the time of the steps, for sizes of models and step times that were not trained here; local steps as stated.",
    ]  # fmt: skip


def plots(curves: Runs, seeds: Sequence[int], ways: Sequence[str]) -> list[Curves | Bars]:
    losses: list[Curves | Bars] = [
        Curves(
            title=f"{task}: held-out loss over bytes of one operator", x="MB sent and received", y="nats", log="x",
            lines={way: mean_curve(curves, task, way, seeds) for way in (DDP, *ways)},
        )
        for task in TASKS
    ]  # fmt: skip
    bars: list[Curves | Bars] = []
    for task, target in MAIN.items():
        fewer = {way: ratios(curves, task, way, seeds, target) for way in ways}
        bars.append(
            Bars(
                title=f"{task}: fewer bytes than data parallel to {target} nats", x="times", log="x", goal=BYTES_GOAL,
                bars={way: (statistics.fmean(values), min(values), max(values)) for way, values in fewer.items() if values},
            )
        )  # fmt: skip
    return losses + bars


def mean_curve(curves: Runs, task: str, way: str, seeds: Sequence[int]) -> list[tuple[float, ...]]:
    """Mean over seeds, with the least and the most; of several learning rates the one with the best end on average."""
    rates = {run.rate for run in curves if (run.task, run.way) == (task, way)}
    choices = [[curves[Run(task, way, seed, rate)] for seed in seeds] for rate in rates]
    best = min(choices, key=lambda runs: sum(curve[-1].loss for curve in runs))
    points = [(group[0].bytes / 1e6, [point.loss for point in group]) for group in zip(*best, strict=True)]
    return [(megabytes, statistics.fmean(losses), min(losses), max(losses)) for megabytes, losses in points]
