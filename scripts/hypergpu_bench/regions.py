"""What a near node that carries uploads gains, and where it gains nothing: single uploads over TCP flows, and whole rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from scripts.hypergpu_bench.report import INTERVAL, Figure, Measured, interval
from scripts.hypergpu_bench.transfers import CORE, SIZES, carried
from trainer.diloco.round import bench
from trainer.network.links import machine_of, server_of
from trainer.network.policy import Settings, plan_round
from trainer.network.profiles import NodeSpec, Profile, load_profile
from trainer.network.shaper import Lane
from trainer.network.transfers import CONNECTIONS, PIECES_PER_CONNECTION, Transfer, whole
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import InnerSpec, JobSpec, RoundSpec
from trainer.simulation.network import network_of
from trainer.simulation.plots import Bars
from trainer.simulation.rounds import Rounds, Row
from trainer.simulation.run import sized

PROFILE = "regions"
SHARING = 4
"""Uploads that a gatherer's uplink has at once: three near nodes' and its own."""
SEEDS, QUICK_SEEDS = 40, 5
ROUND_SEEDS, QUICK_ROUND_SEEDS = (0, 1, 2), (0,)
ROUNDS = 8
DIRECT, NEAR = "direct", "by a near node"
REGIONS = ("lossy", "narrow", "good")
SEVERAL = Transfer(connections=CONNECTIONS, pieces=CONNECTIONS * PIECES_PER_CONNECTION, spare=0, reason=whole("").reason)


def measure(*, quick: bool) -> Measured:
    torch.set_num_threads(1)
    seeds, round_seeds = range(QUICK_SEEDS if quick else SEEDS), QUICK_ROUND_SEEDS if quick else ROUND_SEEDS
    uploads = [upload_row(link, update, way, seeds) for update in SIZES for link in links() for way in (DIRECT, NEAR)]
    runs = [round_row(name, way, seed) for name in profiles() for way in (DIRECT, NEAR) for seed in round_seeds]
    figures = {
        f"speedup_{link}_{update}".replace(" ", "_"): gain(
            [row for row in uploads if (row["link"], row["update"]) == (link, update)], "times", unit="times direct"
        )
        for update in SIZES for link in links()
    }  # fmt: skip
    for name in profiles():
        rates = [
            {"way": way, "rates": [row["samples/s"] for row in runs if (row["profile"], row["way"]) == (name, way)]}
            for way in (NEAR, DIRECT)
        ]
        figures[f"samples_per_second_{name}".replace(" ", "_")] = gain(rates, "rates", unit="times direct")
    for row in uploads:
        del row["times"]
    return Measured(
        seeds=list(seeds),
        conditions=[
            "Emulated: nodes of three regions of the profile `regions`, 260, 200 and 80 ms from the coordinator, each near a "
            "node with a good way out. Uploads go over TCP flows as trainer/network/shaper.py has them (Mathis's rate, "
            f"retransmission timeouts), {CONNECTIONS} connections either way; {SHARING} uploads share the near node's uplink. "
            "All of these are sent by it, also where the policy would not.",
            f"Rounds: the product's own on the virtual clock, {ROUNDS} of them, an MLP on digits whose bytes stand for 124 M "
            f"parameters, seeds {', '.join(map(str, round_seeds))}, with and without near nodes that carry uploads and share "
            "outer steps, as the policy decides. The clock has one connection a transfer: one with a sixteenth of the loss "
            f"stands for {CONNECTIONS} (Mathis). In `near nodes away` those are cut off for 100 s every 200 s, on average.",
        ],
        rows=uploads, figures=figures, more={"rounds": runs}, plots=[bars(figures)], spread=INTERVAL,
    )  # fmt: skip


def gain(rows: Sequence[dict[str, Any]], values: str, *, unit: str) -> Figure:
    """Of the first row's values by the second's, seed by seed."""
    found = interval([one / other for one, other in zip(rows[0][values], rows[1][values], strict=True)])
    return Figure(value=found.mean, unit=unit, low=found.low, high=found.high)


def bars(figures: dict[str, Figure]) -> Bars:
    shown = {
        name: tuple(one for one in (figure.value, figure.low, figure.high) if one is not None) for name, figure in figures.items()
    }
    return Bars(title="by a near node", x="times direct", bars=shown, goal=1.0, log="x")


# Single uploads.


def links() -> dict[str, tuple[int, NodeSpec]]:
    """Each link with the place of its region's gatherer in the profile."""
    inside = load_profile(PROFILE).inside()
    lossy, narrow, good = (next(spec for spec in inside if (spec.region, spec.public) == (name, False)) for name in REGIONS)
    return {
        "far_loss_1": (0, lossy), "far_loss_01": (0, lossy.model_copy(update={"loss": 0.001})),
        "far_clean": (0, lossy.model_copy(update={"loss": 0.000001})), "narrow": (4, narrow), "good": (8, good),
    }  # fmt: skip


def upload_row(link: str, update: str, way: str, seeds: Sequence[int]) -> dict[str, Any]:
    place, spec = links()[link]
    times = [uploaded(place, spec, SIZES[update], way, seed=f"{link}:{seed}") for seed in seeds]
    ordered = sorted(times)
    return {
        "link": link, "loss": spec.loss, "Mbit/s": spec.up_bps / 1e6, "update": update, "way": way,
        "p50 s": statistics.median(times), "p95 s": ordered[int(0.95 * (len(ordered) - 1))], "times": times,
    }  # fmt: skip


def uploaded(gatherer: int, spec: NodeSpec, size: int, way: str, *, seed: str) -> float:
    """Emulated seconds until the file is whole."""
    profile, core = load_profile(PROFILE), server_of(CORE, sharing=1)
    if way == DIRECT:
        legs = [(machine_of(profile.to_core(spec), seed=seed), core)]
    else:
        carrier = profile.inside()[gatherer]
        shared = carrier.model_copy(update={"up_bps": carrier.up_bps / SHARING})
        legs = [
            (machine_of(spec, seed=seed), machine_of(carrier, seed=f"{seed}:near")),
            (machine_of(profile.to_core(shared), seed=f"{seed}:near"), core),
        ]
    return carried([Lane(*leg) for leg in legs], size, SEVERAL, seed=seed)[0]


# Whole rounds.


def profiles() -> dict[str, Profile]:
    """The profile with four connections as one, the same with near nodes that come and go, and without a loss."""
    found = load_profile(PROFILE)

    def with_loss(factor: float) -> Profile:
        nodes = tuple(spec.model_copy(update={"loss": factor * spec.loss}) for spec in found.nodes)
        return found.model_copy(update={"nodes": nodes})

    lossy = with_loss(1 / CONNECTIONS**2)
    away = tuple(
        spec.model_copy(update={"outage_every_s": 200.0, "outage_s": 100.0}) if spec.public else spec for spec in lossy.nodes
    )
    return {"lossy": lossy, "near nodes away": lossy.model_copy(update={"nodes": away}), "without loss": with_loss(0.0)}


def round_row(name: str, way: str, seed: int) -> dict[str, Any]:
    rows = run(profiles()[name], gather=way == NEAR, seed=seed)
    samples = sum(row.samples for row in rows)
    return {
        "profile": name, "way": way, "seed": seed, "samples/s": samples / rows[-1].seconds, "seconds": rows[-1].seconds,
        "computing": statistics.fmean(row.busy for row in rows), "loss": rows[-1].loss,
        "nodes in the last round": len(rows[-1].units),
    }  # fmt: skip


def run(profile: Profile, *, gather: bool, seed: int, rounds: int = ROUNDS) -> list[Row]:
    network = network_of(profile, seed=seed)
    nodes = len(network.machines)
    spec = JobSpec(inner=InnerSpec(), rounds=RoundSpec(nodes=nodes, quorum=nodes // 2, rounds=rounds), seed=seed)
    job = JobWork(spec=sized(spec, nodes), files={})
    count = bench(job).size
    plan = partial(plan_round, spec=job.spec, count=count, scale=network.parameters / count, settings=Settings(gather=gather))
    return list(Rounds(job, network, plan, seed=seed))
