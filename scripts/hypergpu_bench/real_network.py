"""Real sockets beside the virtual clock: the demo on an emulated network, adaptive and as plain DiLoCo."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from scripts.hypergpu_bench.report import ROOT, Figure, Measured
from scripts.hypergpu_demo import recipes
from scripts.hypergpu_demo.ports import free_ports
from scripts.hypergpu_demo.supervise import StackError
from trainer.network.profiles import load_profile
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import InnerSpec, parse_spec
from trainer.simulation.network import Closing, network_of
from trainer.simulation.plots import Bars
from trainer.simulation.rounds import Row
from trainer.simulation.run import PolicyName, simulate

PROFILE = "wan-hetero"
TIME = load_profile(PROFILE).time_scale
"""Emulated seconds in a real one."""
POLICIES: dict[str, PolicyName] = {"adaptive": "network-aware", "equal": "diloco"}
"""Of the demo, and the virtual clock's name for the same."""
ROUNDS, QUICK_ROUNDS = {"adaptive": 4, "equal": 2}, {"adaptive": 3, "equal": 1}
"""By policy. One of plain DiLoCo's takes two minutes, and all of them take the same."""
SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
BATCH = InnerSpec().batch_size
WITHIN = 0.25
"""Of the measured time that a prediction may be off."""


def measure(*, quick: bool) -> Measured:
    seeds, lengths = QUICK_SEEDS if quick else SEEDS, QUICK_ROUNDS if quick else ROUNDS
    torch.set_num_threads(1)
    rows, each = [], []
    for seed in seeds:
        for policy, rounds in lengths.items():
            real = demo(policy, seed=seed, rounds=rounds)
            print(f"{policy}, seed {seed}: rounds of {[round(one['actual_seconds'], 1) for one in real]} s", flush=True)
            clock = virtual(policy, seed=seed, rounds=rounds, closing=closing_of(real))
            rows.append(compared(policy, seed, real, clock) | {"load": round(os.getloadavg()[1], 1)})
            each += [round_row(policy, seed, one) for one in real]
    figures = {
        "order_holds": Figure(value=part(order_holds(rows, seeds)), unit="part of the seeds", goal=1.0),
        "clock_off_median": off_figure([row["clock off"] for row in rows]),
        "speedup_real": gain(rows, "samples/s", of="adaptive", by="equal", unit="times plain DiLoCo's samples/s"),
        "speedup_clock": gain(rows, "clock's samples/s", of="adaptive", by="equal", unit="times plain DiLoCo's samples/s"),
        "round_real": gain(rows, "round s", of="equal", by="adaptive", unit="times the adaptive round's seconds"),
        "round_clock": gain(rows, "clock's round s", of="equal", by="adaptive", unit="times the adaptive round's seconds"),
    }  # fmt: skip
    for policy in POLICIES:
        predicted = [one for one in each if one["policy"] == policy and one["off"] is not None]
        figures[f"plan_off_median_{policy}"] = off_figure([one["off"] for one in predicted])
        figures[f"plan_within_quarter_{policy}"] = within(predicted, "rounds")
        if later := [one for one in predicted if one["round"] > 0]:
            figures[f"plan_within_quarter_{policy}_later"] = within(later, "rounds after the first")
    return Measured(
        seeds=seeds,
        conditions=[
            f"Real: the demo's processes, sockets and gradients, on this machine. Emulated: the links of {PROFILE} and the speed "
            f"of its machines; a second stands for {TIME:g}, and times here are real seconds.",
            "A round lasts from its opening to its close. What the coordinator then computes is told beside it, and given to the "
            "virtual clock as it was measured.",
            "plan: what the round's own plan predicted from what was measured of links and machines (equal parts are predicted "
            "too), the first one from what nodes claim of speeds and from assumed links. load: of the machine in those five "
            "minutes; beyond its cores, real processes wait for each other.",
            "samples/s: of work that was handed in, with what the coordinator computes between two rounds.",
            f"clock: the same job on the virtual clock, whose times are divided by {TIME:g}.",
        ],
        rows=rows, figures=figures, more={"rounds": each}, plots=plots(each),
    )  # fmt: skip


def demo(policy: str, *, seed: int, rounds: int) -> list[dict[str, Any]]:
    """The rounds of a run of scripts/demo. Raises StackError when it did not report any."""
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        report = Path(folder) / "report.json"
        command = [
            *(sys.executable, "scripts/demo.py", "--network", PROFILE, "--policy", policy, "--once", "--seed", str(seed)),
            *("--rounds", str(rounds), "--port", str(free_ports().web), "--state", f"{folder}/state", "--json", str(report)),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise StackError(f"The demo did not come to its end: {(done.stderr or done.stdout).strip()[-300:]}")
        found: list[dict[str, Any]] = json.loads(report.read_text())["network"]["rounds"]
    return found


def closing_of(real: Sequence[dict[str, Any]]) -> Closing:
    """The coordinator's own time for a round, in emulated seconds."""
    return Closing(fixed_s=TIME * statistics.median(one["closing_seconds"] for one in real))


def virtual(policy: str, *, seed: int, rounds: int, closing: Closing) -> list[Row]:
    profile = load_profile(PROFILE)
    nodes = len(profile.members())
    spec = recipes.spec(
        job="digits", model=None, rounds=rounds, operators=nodes, files={}, policy=policy, emulated=True, seed=seed
    )
    network = network_of(profile, seed=seed, closing=closing)
    return list(simulate(JobWork(spec=parse_spec(spec), files={}), network, POLICIES[policy], seed=seed))


def compared(policy: str, seed: int, real: Sequence[dict[str, Any]], clock: Sequence[Row]) -> dict[str, Any]:
    """Medians over the rounds, in real seconds, without what the coordinator computes; samples a second with it."""
    closing = statistics.median(one["closing_seconds"] for one in real)
    ends = [0.0, *(row.seconds / TIME for row in clock)]
    predicted = statistics.median(later - sooner - closing for sooner, later in pairwise(ends))
    actual = statistics.median(one["actual_seconds"] for one in real)
    offs = [off for one in real if (off := off_by(one)) is not None]
    return {
        "seed": seed, "policy": policy, "round s": actual, "closing s": closing,
        "plan's round s": statistics.median(one["predicted_seconds"] or 0.0 for one in real),
        "plan off": statistics.median(offs) if offs else None, "clock's round s": predicted,
        "clock off": abs(predicted / actual - 1),
        "samples/s": sum(map(samples, real)) / real[-1]["ended_seconds"],
        "clock's samples/s": sum(row.samples for row in clock) / ends[-1],
    }  # fmt: skip


def samples(one: dict[str, Any]) -> int:
    """That a round got in time for it, or late from an earlier one."""
    return BATCH * sum(node["steps"] for node in one["nodes"] if node["state"] == "handed_in")


def accuracy(one: dict[str, Any]) -> float:
    return float(one["metric"]["accuracy"]) if one["metric"] else 0.0


def off_by(one: dict[str, Any]) -> float | None:
    return None if one["predicted_seconds"] is None else abs(one["predicted_seconds"] / one["actual_seconds"] - 1)


def round_row(policy: str, seed: int, one: dict[str, Any]) -> dict[str, Any]:
    steps = [node["steps"] for node in one["nodes"]]
    return {
        "seed": seed, "policy": policy, "round": one["round"], "predicted s": one["predicted_seconds"],
        "s": one["actual_seconds"], "off": off_by(one), "least steps": min(steps), "most steps": max(steps),
        "accepted": one["accepted"], "accuracy": accuracy(one),
    }  # fmt: skip


def off_figure(values: Sequence[float]) -> Figure:
    return Figure(
        value=statistics.median(values), unit="part of the measured round", goal=WITHIN, low=min(values), high=max(values)
    )


def within(rounds: Sequence[dict[str, Any]], what: str) -> Figure:
    return Figure(value=part([one["off"] <= WITHIN for one in rounds]), unit=f"part of the {len(rounds)} {what}", goal=1.0)


def order_holds(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[bool]:
    """By seed: the policy whose rounds the clock says are shorter has the shorter ones."""
    found = {(row["seed"], row["policy"]): row for row in rows}
    return [
        (found[seed, "adaptive"]["clock's round s"] < found[seed, "equal"]["clock's round s"])
        == (found[seed, "adaptive"]["round s"] < found[seed, "equal"]["round s"])
        for seed in seeds
    ]


def gain(rows: Sequence[dict[str, Any]], column: str, *, of: str, by: str, unit: str) -> Figure:
    """One policy's values by the other's, seed by seed."""
    over, under = ([row[column] for row in rows if row["policy"] == policy] for policy in (of, by))
    values = [one / other for one, other in zip(over, under, strict=True)]
    return Figure(value=statistics.fmean(values), unit=unit, low=min(values), high=max(values))


def part(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def plots(each: Sequence[dict[str, Any]]) -> list[Bars]:
    """Each round's seconds as they were predicted and as they were measured."""
    shown = {
        f"{policy}, seed {seed}, round {one['round']}": one
        for policy in POLICIES for seed in sorted({one["seed"] for one in each})
        for one in each if (one["policy"], one["seed"]) == (policy, seed) and one["predicted s"] is not None
    }  # fmt: skip
    bars = {name: (one["predicted s"] / one["s"],) for name, one in shown.items()}
    return [Bars(title="predicted seconds of a round by its measured ones", x="measured: 1", bars=bars, goal=1.0)]
