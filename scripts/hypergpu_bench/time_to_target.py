"""Emulated seconds until a loss is reached on slow, unequal links: rounds that follow the network beside those that do not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.hypergpu_bench import network_cells as cells
from scripts.hypergpu_bench.network_cells import (
    AWARE,
    BATCH,
    CENTRAL,
    DDP,
    EQUAL,
    MODELS,
    PLAIN,
    STEPS,
    WAITING,
    Cell,
    Joined,
    Point,
    Result,
    Run,
    curve_of,
    measured_closing,
    network_for,
    run_all,
)
from scripts.hypergpu_bench.report import INTERVAL, Figure, Measured, interval
from trainer.diloco.round import bench
from trainer.simulation.network import Closing
from trainer.simulation.plots import Bars, Curves
from trainer.simulation.run import stands_for

SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
NODES = 8
MAIN = "wan-hetero"
PROFILES = (MAIN, "lan", "wan-good", "flaky", "asymmetric", "mobile")
QUICK_PROFILES = (MAIN, "lan")
TASKS = {MAIN: ("text", "images")}
"""Of the other profiles: text alone."""
TARGETS = {"text": 2.75, "images": 0.3}
"""Nats of the evaluation split: what plain DiLoCo reaches after about two thirds of its rounds."""
ROUNDS = {"text": 8, "images": 8}
DDP_STEPS = {"text": 240, "images": 240}
DDP_RATES = {"text": (4e-3, 8e-3), "images": (2e-3, 4e-3)}
FAILURE = 0.2
DILOCO_GOAL, DDP_GOAL, THROUGHPUT_GOAL, FAILURES_GOAL = 2.0, 20.0, 90.0, 20.0
WAYS = (AWARE, WAITING, EQUAL, PLAIN, DDP, CENTRAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Race:
    """All ways to train on one profile with one task and seed, as curves; of data parallel the learning rate that is there
    first. `busy` is the part of the nodes' time in which they computed, by way."""

    profile: str
    task: str
    seed: int
    curves: Mapping[str, Sequence[Point]]
    busy: Mapping[str, float]

    def seconds(self, way: str) -> float | None:
        return seconds_to(self.curves[way], TARGETS[self.task])

    def speedup(self, way: str) -> float | None:
        """How many times sooner the network-aware rounds are at the target."""
        ours, theirs = self.seconds(AWARE), self.seconds(way)
        return None if ours is None or theirs is None else theirs / ours

    def throughput(self, way: str) -> float:
        """Samples a second that were accepted into the model, over the whole run."""
        last = self.curves[way][-1]
        return last.samples / last.seconds

    def of_centralized(self, way: str) -> float:
        return 100 * self.throughput(way) / self.throughput(CENTRAL)


def seconds_to(curve: Sequence[Point], target: float) -> float | None:
    """When the loss is down at `target`, on straight lines between points; None when it never is."""
    before = None
    for point in curve:
        if point.loss <= target:
            if before is None:
                return point.seconds
            part = (before.loss - target) / (before.loss - point.loss)
            return before.seconds + part * (point.seconds - before.seconds)
        before = point
    return None


def measure(*, quick: bool) -> Measured:
    seeds, profiles = (QUICK_SEEDS, QUICK_PROFILES) if quick else (SEEDS, PROFILES)
    closing = {task: measured_closing(task) for task in tasks_of(MAIN)}
    runs: list[Run] = [*cells_of(seeds, profiles, closing), *joined_of(seeds)]
    found = run_all(runs)
    races = [race(found, profile, task, seed) for profile in profiles for task in tasks_of(profile) for seed in seeds]
    failing = {task: slower(found, races, task) for task in tasks_of(MAIN)}
    return Measured(
        seeds=seeds, conditions=conditions(closing), rows=rows(races), figures=figures(races, failing), spread=INTERVAL,
        plots=plots(races), more={f"{FAILURE:.0%} of the nodes fail in each round, {MAIN}": failure_rows(failing)},
    )  # fmt: skip


# What is run.


def tasks_of(profile: str) -> tuple[str, ...]:
    return TASKS.get(profile, ("text",))


def cells_of(seeds: Sequence[int], profiles: Sequence[str], closing: Mapping[str, Closing]) -> list[Cell]:
    """Long runs first, so that the cores end together."""
    clean = [
        Cell(task=task, seed=seed, way=way, rounds=ROUNDS[task], profile=profile, nodes=NODES, closing=closing[task])
        for profile in profiles for task in tasks_of(profile) for seed in seeds
        for way in ((AWARE, WAITING, EQUAL, PLAIN) if profile == MAIN else (AWARE, PLAIN))
    ]  # fmt: skip
    return [*clean, *(replace(one, failure=FAILURE) for one in clean if one.profile == MAIN and one.way == AWARE)]


def joined_of(seeds: Sequence[int]) -> list[Joined]:
    return [
        Joined(task=task, seed=seed, rate=rate, steps=DDP_STEPS[task], nodes=NODES)
        for seed in seeds for task in tasks_of(MAIN) for rate in DDP_RATES[task]
    ]  # fmt: skip


def race(found: Mapping[Run, Result], profile: str, task: str, seed: int) -> Race:
    curves, busy = {}, {}
    for run, result in found.items():
        if (run.task, run.seed) != (task, seed):
            continue
        if isinstance(run, Cell) and run.profile == profile and run.failure is None:
            curves[run.way] = curve_of(result)
            lengths = [row.seconds - began for row, began in zip(result, [0.0, *(row.seconds for row in result)], strict=False)]
            busy[run.way] = sum(row.busy * lasting for row, lasting in zip(result, lengths, strict=True)) / result[-1].seconds
    for way in (DDP, CENTRAL):
        tried = [
            cells.data_parallel_curve(result, network_for(profile, seed=seed, nodes=NODES), centralized=way == CENTRAL)
            for run, result in found.items() if isinstance(run, Joined) and (run.task, run.seed) == (task, seed)
        ]  # fmt: skip
        curves[way] = min(tried, key=lambda curve: seconds_to(curve, TARGETS[task]) or float("inf"))
    return Race(profile=profile, task=task, seed=seed, curves=curves, busy=busy)


# What it came to.


def rows(races: Sequence[Race]) -> list[dict[str, Any]]:
    return [
        row(group, way) for group in grouped(races).values() for way in WAYS if way in group[0].curves
    ]  # fmt: skip


def grouped(races: Sequence[Race]) -> dict[tuple[str, str], list[Race]]:
    """By profile and task, one entry a seed."""
    groups: dict[tuple[str, str], list[Race]] = {}
    for one in races:
        groups.setdefault((one.profile, one.task), []).append(one)
    return groups


def row(group: Sequence[Race], way: str) -> dict[str, Any]:
    one = group[0]
    seconds = [time for race in group if (time := race.seconds(way)) is not None]
    ratios = [ratio for race in group if (ratio := race.speedup(way)) is not None]
    busy = [race.busy[way] for race in group if way in race.busy]
    return {
        "profile": one.profile, "task": one.task, "way": way, "target": TARGETS[one.task],
        "reached": f"{len(seconds)} of {len(group)}",
        "seconds": statistics.fmean(seconds) if seconds else None, "aware is faster, times": shown(ratios),
        "throughput % of centralized": shown([race.of_centralized(way) for race in group]),
        "nodes busy %": 100 * statistics.fmean(busy) if busy else None,
        "samples to target": statistics.fmean(needed) if (needed := samples_to(group, way)) else None,
        "final loss": statistics.fmean(race.curves[way][-1].loss for race in group),
        "by_seed": {"seconds": seconds, "faster": ratios, "throughput": [race.throughput(way) for race in group]},
    }  # fmt: skip


def samples_to(group: Sequence[Race], way: str) -> list[float]:
    """The axis of steps: samples in the model at the target."""
    curves = [[Point(point.samples, point.samples, point.loss) for point in race.curves[way]] for race in group]
    return [count for curve in curves if (count := seconds_to(curve, TARGETS[group[0].task])) is not None]


def shown(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, low, _ = interval(values)
    return f"{mean:.3g}" if low is None else f"{mean:.3g} ±{mean - low:.2g}"


def figures(races: Sequence[Race], failing: Mapping[str, Sequence[float | None]]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for profile in dict.fromkeys(race.profile for race in races):
        of = [group for (name, _), group in grouped(races).items() if name == profile]
        goals = (DILOCO_GOAL, DDP_GOAL, THROUGHPUT_GOAL) if profile == MAIN else (None, None, None)
        name = profile.replace("-", "_")
        found |= {
            f"speedup_vs_diloco_{name}": least(of, lambda race: race.speedup(PLAIN), "times", goals[0]),
            f"speedup_vs_ddp_{name}": least(of, lambda race: race.speedup(DDP), "times", goals[1]),
            f"throughput_vs_centralized_{name}": least(of, lambda race: race.of_centralized(AWARE), "%", goals[2]),
        }
        if profile == MAIN:
            found["speedup_vs_equal_steps_wan_hetero"] = least(of, lambda race: race.speedup(EQUAL), "times", None)
    costs = max((interval([one if one is not None else 100.0 for one in values]), task) for task, values in failing.items())
    found["slowdown_with_20_percent_failing_percent"] = Figure(
        value=costs[0].mean, unit=f"% of time to target ({costs[1]})", goal=FAILURES_GOAL, low=costs[0].low, high=costs[0].high
    )
    return found


def least(groups: Sequence[Sequence[Race]], quantity: Callable[[Race], float | None], unit: str, goal: float | None) -> Figure:
    """Of the task where it is least, the mean over seeds with its interval; a run that never gets there counts as 0."""
    found = [(interval([quantity(race) or 0.0 for race in group]), group[0].task) for group in groups]
    one, task = min(found, key=lambda pair: pair[0].mean)
    return Figure(value=one.mean, unit=f"{unit} ({task})", goal=goal, low=one.low, high=one.high)


def slower(found: Mapping[Run, Result], races: Sequence[Race], task: str) -> list[float | None]:
    """Per cent of time that failing nodes cost until the target, by seed; None where it is not reached."""
    clean = {race.seed: race.seconds(AWARE) for race in races if (race.profile, race.task) == (MAIN, task)}
    costs: list[float | None] = []
    for run, result in found.items():
        if isinstance(run, Cell) and run.failure is not None and run.task == task:
            hit, unharmed = seconds_to(curve_of(result), TARGETS[task]), clean[run.seed]
            costs.append(None if hit is None or unharmed is None else 100 * (hit / unharmed - 1))
    return costs


def failure_rows(failing: Mapping[str, Sequence[float | None]]) -> list[dict[str, Any]]:
    return [
        {
            "task": task, "time to target more %": shown([one for one in costs if one is not None]),
            "not reached": costs.count(None), "by_seed": {"slower": list(costs)},
        }
        for task, costs in failing.items()
    ]  # fmt: skip


def conditions(closing: Mapping[str, Closing]) -> list[str]:
    jobs = {task: Cell(task=task, seed=1, way=AWARE, rounds=1).job() for task in tasks_of(MAIN)}
    spec, network = jobs["text"].spec, network_for(MAIN, seed=1, nodes=NODES)
    return [
        f"text: byte GPT {MODELS['text']} on tiny Shakespeare; images: CNN {MODELS['images']} on MNIST's test part; {NODES} nodes"
        f" with {STEPS} local steps of {BATCH} samples in the mean, {ROUNDS['text']} rounds. On {MAIN} both, elsewhere text.",
        *(f"{task}: {stands_for(network, job.spec, bench(job).size)}" for task, job in jobs.items()),
        "Real: local steps, encodings, checks, scores, aggregation, outer steps. The network-aware rounds are planned by "
        "trainer.network.policy, the code of the live coordinator, from what the run's own traffic has shown of each node (a "
        "wrong first benchmark and probe, then transfers with jitter and outages), not from the profile; late work counts with "
        "its discount; a node begins its next order while one travels (overlap eager). "
        "Encodings: int4 both ways where the link allows, less where not. All rounds have one outer optimizer: "
        f"{spec.outer.optimizer} {spec.outer.learning_rate:g}, momentum {spec.outer.momentum:g}.",
        "plain DiLoCo: equal steps, fp32 both ways, mean without a gate, waits for all. int4, equal steps: the product without "
        "its adaption to the network, so compression counts for both. data parallel: one gradient of the joined batch a step, "
        "fp32 ring all-reduce over the same links, perfectly overlapped with computing; its learning rate is the best of "
        f"{DDP_RATES['text']} (text), {DDP_RATES['images']} (images) for each seed. centralized: the same machines on a 10 Gb/s "
        "LAN, the batch split by speed, all-reduce overlapped: no way to train on these machines is faster.",
        "Throughput: samples of accepted contributions (refused ones count as nothing) by seconds of the run. Data parallel "
        "learns more from a sample, since it takes a step for each joined batch: centralized is at the target before any DiLoCo, "
        "and data parallel may be where links are fast. Both are in the table.",
        "A figure is of the task with the lesser value; a run that is not at the target in its rounds counts as 0 times faster. "
        "TCP: one connection, Mathis' limit on lossy paths; no slow start. On the clocks of all rounds is the time that closing "
        "one takes a core of this machine for the model that is really trained: "
        + ", ".join(f"{one.seconds(NODES):.2g} s with all nodes ({task})" for task, one in closing.items())
        + "; what that stands for is said by the bench scaling.",
    ]  # fmt: skip


def plots(races: Sequence[Race]) -> list[Curves | Bars]:
    panels: list[Curves | Bars] = []
    for task in tasks_of(MAIN):
        group = [race for race in races if (race.profile, race.task) == (MAIN, task)]
        for x, axis in (("emulated seconds", 0), ("samples in the model", 1)):
            ways = [way for way in WAYS if axis == 0 or way in (AWARE, WAITING, EQUAL, PLAIN)]
            panels.append(
                Curves(
                    title=f"{task}, {MAIN}: loss over {x}", x=x, y="nats", log="x" if axis == 0 else "",
                    lines={way: mean_curve(group, way, axis) for way in ways},
                )
            )  # fmt: skip
    for way, goal in ((PLAIN, DILOCO_GOAL), (DDP, DDP_GOAL)):
        bars = {
            f"{profile} ({task})": spread(ratios)
            for (profile, task), group in grouped(races).items()
            if (ratios := [ratio for race in group if (ratio := race.speedup(way)) is not None])
        }
        panels.append(Bars(title=f"network-aware sooner at the target than {way}", x="times", bars=bars, goal=goal, log="x"))
    return panels


def spread(values: Sequence[float]) -> tuple[float, ...]:
    return (statistics.fmean(values), min(values), max(values))


def mean_curve(group: Sequence[Race], way: str, axis: int) -> list[tuple[float, ...]]:
    """Mean over seeds of both axes, with the least and most loss."""
    return [
        (statistics.fmean(point[axis] for point in points), *spread([point.loss for point in points]))
        for points in zip(*(race.curves[way] for race in group), strict=True)
    ]
