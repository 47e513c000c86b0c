"""How busy machines are on a link of 100 Mb/s and 150 ms when a step takes a second, by model size: with and without overlap, and
with fragments of the model in turn; what these cost in loss, and what they move."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.hypergpu_bench.network_cells import (
    AWARE,
    BATCH,
    INT4,
    MODELS,
    PLAIN,
    SPECS,
    STEPS,
    WAITING,
    job_of,
    measured_closing,
    run_all,
    short_samples,
)  # fmt: skip
from scripts.hypergpu_bench.report import INTERVAL, Figure, Measured, interval
from scripts.hypergpu_bench.scaling import shown
from trainer.diloco.round import bench
from trainer.network.profiles import load_profile
from trainer.protocol.rounds import JobWork
from trainer.simulation.network import Closing, Network, network_of
from trainer.simulation.plots import Bars
from trainer.simulation.rounds import Row
from trainer.simulation.run import simulate, stands_for

SEEDS = (1, 2, 3)
PROFILE = str(Path(__file__).with_name("wan-100.json"))
SIZES = {"124M": 124_000_000, "350M": 350_000_000, "1B": 1_000_000_000}
"""Parameters of the model that is emulated: its bytes, and steps of a second whatever its size (machines as fast as it takes)."""
MAIN = "124M"
HALVES, QUARTERS, HALVES_EAGER, QUARTERS_EAGER = (
    f"{parts} fragments, {overlap}" for overlap in ("no overlap", "overlap") for parts in (2, 4)
)  # fmt: skip
TURNS = {HALVES: (2, "none"), QUARTERS: (4, "none"), HALVES_EAGER: (2, "eager"), QUARTERS_EAGER: (4, "eager")}
"""Fragments and overlap."""
NAMES = {
    AWARE: "eager", WAITING: "none", PLAIN: "plain_diloco", HALVES: "none_2_fragments", QUARTERS: "none_4_fragments",
    HALVES_EAGER: "eager_2_fragments", QUARTERS_EAGER: "eager_4_fragments",
}  # fmt: skip
WAYS = {
    MAIN: (AWARE, WAITING, PLAIN, HALVES, QUARTERS, HALVES_EAGER, QUARTERS_EAGER),
    "350M": (AWARE, WAITING),
    "1B": (AWARE, WAITING, HALVES_EAGER, QUARTERS_EAGER),
}
ROUNDS, QUICK_ROUNDS = 6, 4
TASK = "text"
SEQUENCE = 16
"""Bytes of a sample: short ones, so that many nodes can really train on this machine."""
GOAL = 95.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Steady:
    """A run of eight machines alike."""

    seed: int
    way: str
    size: str
    rounds: int
    closing: Closing

    def job(self) -> JobWork:
        spec = SPECS.get(self.way) or INT4 | {"network": turns(*TURNS[self.way])}
        return short_samples(job_of(TASK, self.seed, rounds=self.rounds, **spec), SEQUENCE)

    def network(self) -> Network:
        profile = load_profile(PROFILE).model_copy(update={"parameters": SIZES[self.size]})
        return network_of(profile, seed=self.seed, closing=self.closing)

    def run(self) -> list[Row]:
        return list(simulate(self.job(), self.network(), "diloco" if self.way == PLAIN else "network-aware", seed=self.seed))


def turns(fragments: int, overlap: str) -> dict[str, Any]:
    return {"fragments": fragments, "overlap": overlap, "most_stale": 0}


Found = Mapping[Steady, list[Row]]


def measure(*, quick: bool) -> Measured:
    closing = measured_closing(TASK, sequence=SEQUENCE)
    found: Found = run_all(runs(closing, QUICK_ROUNDS if quick else ROUNDS, sizes=[MAIN] if quick else list(SIZES)))
    return Measured(
        seeds=SEEDS, conditions=conditions(found), spread=INTERVAL, rows=rows(found), figures=figures(found), plots=plots(found)
    )


def runs(closing: Closing, rounds: int, *, sizes: Sequence[str]) -> list[Steady]:
    return [
        Steady(seed=seed, way=way, size=size, rounds=rounds, closing=closing)
        for size in sizes for way in WAYS[size] for seed in SEEDS
    ]  # fmt: skip


def lengths(result: Sequence[Row]) -> list[float]:
    """Emulated seconds of the rounds from the third on: the first is planned from benchmarks, and what the second begins with is
    done in the first one's time."""
    return [after.seconds - before.seconds for before, after in pairwise(result[1:])]


def busy(result: Sequence[Row]) -> float:
    """Per cent of the nodes' time in those rounds in which they compute."""
    lasting = lengths(result)
    return 100 * sum(row.busy * seconds for row, seconds in zip(result[2:], lasting, strict=True)) / sum(lasting)


def samples_a_second(result: Sequence[Row]) -> float:
    return sum(row.samples for row in result[2:]) / sum(lengths(result))


def grouped(found: Found) -> dict[tuple[str, str], list[list[Row]]]:
    groups: dict[tuple[str, str], list[list[Row]]] = {}
    for run, result in found.items():
        groups.setdefault((run.size, run.way), []).append(result)
    return groups


def rows(found: Found) -> list[dict[str, Any]]:
    return [
        {
            "parameters": size, "way": way, "nodes busy %": shown(interval([busy(result) for result in results])),
            "round s": statistics.fmean(statistics.fmean(lengths(result)) for result in results),
            "samples/s": statistics.fmean(map(samples_a_second, results)),
            "MB up, node and round": megabytes(results, "sent"), "MB down": megabytes(results, "received"),
            "most MB": most_megabytes(results),
            "loss": statistics.fmean(result[-1].loss for result in results),
            "late": sum(len(row.late) for result in results for row in result),
            "refused": sum(len(row.refused) for result in results for row in result),
            "by_seed": {"busy": [busy(result) for result in results], "loss": [result[-1].loss for result in results]},
        }
        for (size, way), results in grouped(found).items()
    ]  # fmt: skip


def megabytes(results: Sequence[Sequence[Row]], way: str) -> float:
    """Emulated, in the mean over all nodes and the rounds that count."""
    return statistics.fmean(getattr(row, way) / nodes() / 1e6 for result in results for row in result[2:])


def most_megabytes(results: Sequence[Sequence[Row]]) -> float:
    """Emulated, of a node up and down in the round with most."""
    return max((row.sent + row.received) / nodes() / 1e6 for result in results for row in result[2:])


def nodes() -> int:
    return load_profile(PROFILE).nodes[0].count


def figures(found: Found) -> dict[str, Figure]:
    """Of the main size as the issue asks; of others with their size behind."""
    named = {}
    for (size, way), results in grouped(found).items():
        mean, low, high = interval([busy(result) for result in results])
        name = f"busy_percent_{NAMES[way]}" + ("" if size == MAIN else f"_{size.lower()}")
        goal = GOAL if way in (AWARE, QUARTERS_EAGER) else None
        named[name] = Figure(value=mean, unit=f"% of the nodes' time, {size} parameters", goal=goal, low=low, high=high)
        if size == MAIN and way != PLAIN:
            mean, low, high = interval([result[-1].loss for result in results])
            named[f"loss_{NAMES[way]}"] = Figure(value=mean, unit="nats, held out, at equal samples", low=low, high=high)
    return named


def conditions(found: Found) -> list[str]:
    one = next(iter(found))
    job = one.job()
    return [
        f"Eight machines alike on 100 Mb/s both ways, 150 ms there and back (5 ms jitter, loss 1e-6), around a coordinator whose "
        f"10 Gb/s all share. Byte GPT {MODELS[TASK]} on tiny Shakespeare, samples of {SEQUENCE} bytes, {STEPS} local steps of "
        f"{BATCH} samples in the mean.",
        stands_for(one.network(), job.spec, bench(job).size),
        "Other sizes: the same step of one second, on machines that are as much faster; only the bytes are more.",
        "Busy: the part of the nodes' time in which they compute, from the third round on, when all begin ahead. Everything else "
        "is fetching, sending, waiting for the others and for the coordinator, which takes "
        f"{one.closing.seconds(8):.2g} s a round: what closing one takes a core of this machine for the model that is trained.",
        "An order's computing counts in its own round, also what was done of it in the time of the round before: where that "
        "varies, a run may come out a little above 100.",
        f"{AWARE}: overlap eager. {WAITING}: the same rounds with overlap none. Both take the encoding that the link carries: "
        f"int4 or sparser up, int4 down. {PLAIN}: fp32 both ways, all wait for all.",
        "Fragments: one of the model's so many parts is synchronised in a round, in turn, so each after as many rounds. All ways "
        "take the same samples; smaller files let the policy take a denser encoding. Most MB: of a node, up and down, in the "
        "round with most.",
    ]


def plots(found: Found) -> list[Bars]:
    bars = {
        f"{size}, {way}": (statistics.fmean(values), min(values), max(values))
        for (size, way), results in grouped(found).items() if (values := [busy(result) for result in results])
    }  # fmt: skip
    return [Bars(title="nodes busy: 100 Mb/s, 150 ms, steps of 1 s", x="% of their time", bars=bars, goal=GOAL)]
