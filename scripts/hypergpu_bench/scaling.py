"""Throughput from 2 to 50 unequal nodes on emulated links, and what the coordinator's own work comes to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.hypergpu_bench.network_cells import (
    AWARE,
    BATCH,
    MODELS,
    PLAIN,
    STEPS,
    Cell,
    measured_closing,
    network_for,
    run_all,
)  # fmt: skip
from scripts.hypergpu_bench.report import INTERVAL, Figure, Interval, Measured, interval
from trainer.diloco.round import bench
from trainer.simulation.network import Closing
from trainer.simulation.plots import Curves
from trainer.simulation.rounds import Row
from trainer.simulation.run import stands_for

SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
PROFILE = "wan-hetero"
NODES, QUICK_NODES = (2, 4, 8, 10, 16, 32, 50), (4, 10, 50)
PLAIN_NODES = (2, 8, 16)
ROUNDS, QUICK_ROUNDS = 5, 3
SEQUENCE = 16
"""Bytes of a sample: short ones, so that 50 nodes can really train on this machine."""
TASK = "text"
GOALS = {10: 90.0, 50: 75.0}
SHARE_GOAL = 5.0


def measure(*, quick: bool) -> Measured:
    seeds, counts = (QUICK_SEEDS, QUICK_NODES) if quick else (SEEDS, NODES)
    closing = measured_closing(TASK, sequence=SEQUENCE)
    cells = cells_of(seeds, counts, closing, rounds=QUICK_ROUNDS if quick else ROUNDS)
    found = run_all(cells)
    return Measured(
        seeds=seeds, conditions=conditions(closing), spread=INTERVAL, rows=rows(found), figures=figures(found, counts),
        plots=plots(found),
    )  # fmt: skip


def cells_of(seeds: Sequence[int], counts: Sequence[int], closing: Closing, *, rounds: int) -> list[Cell]:
    """The largest first, so that the cores end together."""

    def cell(seed: int, way: str, nodes: int, rounds: int, profile: str = PROFILE) -> Cell:
        return Cell(
            task=TASK, seed=seed, way=way, rounds=rounds, profile=profile, nodes=nodes, closing=closing, sequence=SEQUENCE
        )  # fmt: skip

    largest_first = sorted(counts, reverse=True)
    return [
        *(cell(seed, AWARE, count, rounds) for count in largest_first for seed in seeds),
        *(cell(seed, PLAIN, count, 2) for count in PLAIN_NODES if count in counts for seed in seeds),
    ]


# What one run says.


def efficiency(run: Cell, result: Sequence[Row]) -> float:
    """Per cent: samples of accepted contributions a second, by what all machines together could train on."""
    machines = network_for(run.profile, seed=run.seed, nodes=run.nodes).machines
    able = sum(machine.at(0.0).samples_per_second for machine in machines)
    return 100 * sum(row.samples for row in result) / result[-1].seconds / able


def round_seconds(result: Sequence[Row]) -> float:
    """Of a round, from the second on: the first one is planned from benchmarks."""
    return (result[-1].seconds - result[0].seconds) / (len(result) - 1)


def closing_seconds(result: Sequence[Row]) -> float:
    return statistics.fmean(row.closing_cpu_s for row in result)


def closing_share(result: Sequence[Row]) -> float:
    """Per cent of a round's length that its close really costs one core of this machine."""
    return 100 * closing_seconds(result) / round_seconds(result)


def closing_of_training(result: Sequence[Row]) -> float:
    """Per cent of the computing of all nodes' steps, both as they really cost the same core: whatever the machine and model."""
    return 100 * sum(row.closing_cpu_s for row in result) / sum(row.training_cpu_s for row in result)


def closing_share_of_a_node(run: Cell, result: Sequence[Row]) -> float:
    """Per cent of a round's length that its close would take a coordinator as fast as the fastest node, for the emulated model:
    closing costs a part of the computing of all nodes' steps, and that node's speed says what these would take it."""
    machines = network_for(run.profile, seed=run.seed, nodes=run.nodes).machines
    fastest = max(machine.at(0.0).samples_per_second for machine in machines)
    return closing_of_training(result) * sum(row.samples for row in result) / result[-1].seconds / fastest


# Of all.

Found = Mapping[Cell, list[Row]]


def of(found: Found, way: str, nodes: int) -> list[tuple[Cell, list[Row]]]:
    return [(run, result) for run, result in found.items() if (run.way, run.nodes) == (way, nodes)]


def counts_of(found: Found, way: str) -> list[int]:
    return sorted({run.nodes for run in found if run.way == way})


def rows(found: Found) -> list[dict[str, Any]]:
    return [row(way, count, of(found, way, count)) for way in (AWARE, PLAIN) for count in counts_of(found, way)]


def row(way: str, count: int, runs: Sequence[tuple[Cell, list[Row]]]) -> dict[str, Any]:
    results = [result for _, result in runs]
    return {
        "way": way, "nodes": count, "efficiency %": shown(interval([efficiency(*run) for run in runs])),
        "samples/s": statistics.fmean(sum(row.samples for row in result) / result[-1].seconds for result in results),
        "round s": statistics.fmean(map(round_seconds, results)),
        "closing CPU s": shown(interval([closing_seconds(result) for result in results])),
        "closing, % of a round": shown(interval([closing_share(result) for result in results])),
        "closing, % of training": shown(interval([closing_of_training(result) for result in results])),
        "closing by the fastest node, % of a round": shown(interval([closing_share_of_a_node(*run) for run in runs])),
        "refused": sum(len(row.refused) for result in results for row in result),
        "late": sum(len(row.late) for result in results for row in result),
        "loss": statistics.fmean(result[-1].loss for result in results),
        "by_seed": {"efficiency": [efficiency(*run) for run in runs], "closing": [closing_seconds(r) for r in results]},
    }  # fmt: skip


def figures(found: Found, counts: Sequence[int]) -> dict[str, Figure]:
    def figure(values: Sequence[float], unit: str, goal: float | None) -> Figure:
        mean, low, high = interval(values)
        return Figure(value=mean, unit=unit, goal=goal, low=low, high=high)

    largest = max(counts)
    results = [result for _, result in of(found, AWARE, largest)]
    return {
        **{
            f"efficiency_{count}": figure([efficiency(*run) for run in of(found, AWARE, count)], "%", GOALS.get(count))
            for count in counts
        },
        f"coordinator_share_{largest}": figure(
            [closing_share_of_a_node(*one) for one in of(found, AWARE, largest)],
            "% of a round, as fast as the fastest node",
            SHARE_GOAL,
        ),
        f"coordinator_share_{largest}_small_model": figure(
            [closing_share(one) for one in results], "% of a round, closing the model that is really trained", None
        ),
        f"coordinator_of_training_{largest}": figure(
            [closing_of_training(one) for one in results], "% of all nodes' steps", None
        ),
    }


def shown(found: Interval) -> str:
    return f"{found.mean:.3g}" if found.low is None else f"{found.mean:.3g} ±{found.mean - found.low:.2g}"


def conditions(closing: Closing) -> list[str]:
    job = Cell(task=TASK, seed=1, way=AWARE, rounds=1, sequence=SEQUENCE).job()
    network, size = network_for(PROFILE, seed=1, nodes=8), bench(job).size
    return [
        f"Machines and links of {PROFILE} in its proportions, around one coordinator whose 10 Gb/s all share. Byte GPT "
        f"{MODELS[TASK]} on tiny Shakespeare, samples of {SEQUENCE} bytes, {STEPS} local steps of {BATCH} samples in the mean.",
        stands_for(network, job.spec, size),
        "Efficiency: samples of accepted contributions (refused ones count as nothing) a second over the whole run, by what all "
        "machines together train on in a second when nothing ever waits.",
        f"The coordinator's own time is on the clock: {closing.fixed_s:.3g} s a round and {closing.node_s:.3g} s a contribution, "
        "which is what judging, aggregating and the outer step take one core of this machine (CPU seconds, measured before), for "
        f"the model of {size:,} parameters that is really trained. It is not multiplied: for the emulated model it stands for a "
        "coordinator that is as many times faster than this core as the model is larger.",
        "coordinator_share: of the emulated model, by a coordinator that computes as fast as the profile's fastest node: "
        "closing's part of the computing of all nodes' accepted steps, which would take that node so long at its own speed, by "
        "the length of a round. Above 100 it could not keep up. The clock does not charge it: efficiency holds for a coordinator "
        "that is as many times faster as it takes. coordinator_share_..._small_model: CPU seconds of closing the small model by "
        "the emulated length of a round. coordinator_of_training assumes nothing of machines: CPU seconds of closing by those of "
        "all nodes' steps, in the same process.",
        "One process a run, one thread. Evaluation of the model is part of closing here.",
    ]  # fmt: skip


def plots(found: Found) -> list[Curves]:
    def line(way: str, quantity: Any) -> list[tuple[float, ...]]:
        points: list[tuple[float, ...]] = []
        for count in counts_of(found, way):
            values = [quantity(run, result) for run, result in of(found, way, count)]
            points.append((float(count), statistics.fmean(values), min(values), max(values)))
        return points

    return [
        Curves(
            title="accepted samples a second by what all machines can", x="nodes", y="%", log="x",
            lines={way: line(way, efficiency) for way in (AWARE, PLAIN) if counts_of(found, way)},
        ),
        Curves(
            title="closing a round on one core", x="nodes", y="CPU seconds",
            lines={AWARE: line(AWARE, lambda _, result: closing_seconds(result))},
        ),
    ]  # fmt: skip
