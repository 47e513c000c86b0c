"""HyperGPU beside torch DDP, torchft, hivemind and Flower: bytes, loss and speed on the same task, cores and real sockets."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from scripts.hypergpu_bench.peers.environments import ENVIRONMENTS, REQUIREMENTS
from scripts.hypergpu_bench.peers.namespaces import require_namespaces
from scripts.hypergpu_bench.peers.runs import PEERS, Outcome, Peer, run_hypergpu, run_peer
from scripts.hypergpu_bench.peers.task_file import INNER_STEPS, WORKERS
from scripts.hypergpu_bench.report import INTERVAL, Figure, Measured, interval
from scripts.hypergpu_demo.supervise import StackError
from trainer.simulation.plots import Bars

ROUNDS, LONG_ROUNDS = 8, 50
SEEDS, QUICK_SEEDS = (0, 1, 2), (0,)
LONG_PEERS = ("ddp", "torchft")
KILLED_PEERS = ("ddp", "torchft", "torchft_streaming", "hivemind_fp32", "hivemind_8bit", "flower")
KILL_ROUND = 3
WITHOUT, EAGER = "hypergpu, no audits", "hypergpu, eager"
LABELS = {
    "hypergpu": "hypergpu",
    EAGER: "hypergpu_eager",
    WITHOUT: "hypergpu_no_audits",
    **{peer.name: peer.name for peer in PEERS},
}
OUTCOMES = ENVIRONMENTS / "outcomes.jsonl"
"""Each run of each system, as it ended; of all calls of this bench."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FEWER_BYTES = 40
"""At most this part of torchft's bytes is the goal."""
CONDITIONS = (
    f"{WORKERS} workers, one thread each, one machine; a byte GPT of 363,840 parameters on Tiny Shakespeare, the same starting "
    f"weights, batches (8 x 64 bytes) and held-out text; AdamW 2e-3, {INNER_STEPS} inner steps a round. DDP averages each step.",
    "Peers: outer Nesterov 0.7 and 0.9 as in their papers (Flower: FedAvgM with the same), all workers in one network namespace; "
    "its loopback counts every byte once, with headers. What a worker says to its own helpers over TCP counts too.",
    "HyperGPU's outer settings were tuned for 8 rounds on these very seeds; the peers keep their papers'. In the product's own "
    "code without a network, dense averaging ends at 2.62 with outer Nesterov 0.7 and 0.9 and at 2.50 with plain SGD at 1.0 "
    "(seed 0): a peer tuned likewise would be ahead in loss.",
    f"{LONG_ROUNDS} rounds use the same settings, not tuned for them: the outer rate falls from 2.0 to 0.8 over a job's rounds, "
    "however many they are.",
    "eager (network.overlap): a node begins its next order from its own update while the outer step is made; what that gains in "
    "speed and costs in loss stands beside the plain job, which is what counts.",
    "HyperGPU: coordinator, database, redis, chain and attestors in one namespace, each agent in its own, TLS over a cable "
    "(veth) between; the cables' counters are its bytes, sent and received, with headers and acknowledgements. Top-k 96 of 4,096 "
    "up and 208 down, outer SGD 2.0 falling to 0.8. The data lies on each agent's disk beforehand, as on the peers' workers.",
    "HyperGPU's bytes are those to the last round's end. Replay audits are drawn and answered after a round is settled; "
    "bytes_with_audits adds what they took: at the default rates two or three in so short a job, in which every node is new, "
    "each of which carries several states of the model. The peers audit nothing.",
    "Steps a second: a worker's steps over the time from the first inner step to the last round's end; the inner rate is of the "
    "training loop alone. HyperGPU's coordinator, chain and three attestors share the cores with the workers. Every system's "
    "workers run at nice -10, HyperGPU's coordinator at -15, attestors and the evaluation of rounds at 19: they end later.",
)


def measure(*, quick: bool) -> Measured:
    require_namespaces()
    load, cores = os.getloadavg()[0], os.cpu_count()
    busy = f"Before: a load average of {load:.1f} from other programs on {cores} cores, which slows every row."
    seeds, problems, stopped = QUICK_SEEDS if quick else SEEDS, list[str](), list[str]()
    once = [(name, run, seed) for seed in seeds for name, run in everybody(ROUNDS) if name != WITHOUT or seed == seeds[0]]
    plain = collect(problems, "plain", once)
    killed = collect(stopped, "killed", [] if quick else [(name, run, 0) for name, run in with_one_killed()])
    long = collect(problems, "long", [] if quick else [(name, run, 0) for name, run in for_long()])
    with_data = collect(problems, "with data", [] if quick else [("hypergpu", fetching, 0)])
    if "hypergpu" not in plain:
        raise StackError(f"HyperGPU itself did not get through: {'; '.join(problems)} (what the others did: {OUTCOMES})")
    return Measured(
        seeds=seeds, conditions=(*CONDITIONS, busy, requirements(), *problems), spread=INTERVAL,
        rows=[row(name, outcomes) for name, outcomes in plain.items()],
        figures=figures(plain) | figures(long, after=f"_{LONG_ROUNDS}_rounds") | figures(killed, after="_one_killed"),
        plots=[
            bars(plain, "bytes", "bytes on the wire", log="x"), bars(plain, "loss", "held-out loss, nats"),
            bars(plain, "steps_per_second", "steps a second of a worker"),
        ],
        more={
            title: rows
            for title, rows in {
                "one worker killed in round 4": [
                    *(row(name, outcomes) for name, outcomes in killed.items()),
                    *({"system": "stops", "why": why} for why in stopped),
                ],
                f"{LONG_ROUNDS} rounds": [row(name, outcomes) for name, outcomes in long.items()],
                "the agents fetch the data from the coordinator": [row(name, outcomes) for name, outcomes in with_data.items()],
                "what HyperGPU's runs were made of (seed 0)": [
                    inside_of(plain[name][0]) for name in ("hypergpu", EAGER, WITHOUT) if name in plain
                ],
                "CPU seconds by program, to the last settlement (seed 0)": [plain["hypergpu"][0].more["cpu_seconds"]],
            }.items()
            if rows
        },
    )  # fmt: skip


Run = Callable[[int], Outcome]


def everybody(rounds: int) -> list[tuple[str, Run]]:
    return [
        ("hypergpu", lambda seed: run_hypergpu("hypergpu", seed=seed, rounds=rounds)),
        (EAGER, lambda seed: run_hypergpu(EAGER, seed=seed, rounds=rounds, eager=True)),
        (WITHOUT, lambda seed: run_hypergpu(WITHOUT, seed=seed, rounds=rounds, audits=False)),
        *((peer.name, lambda seed, peer=peer: run_peer(peer, seed=seed, rounds=rounds)) for peer in PEERS),
    ]


def with_one_killed() -> list[tuple[str, Run]]:
    at = KILL_ROUND * INNER_STEPS + INNER_STEPS // 2
    return [
        ("hypergpu", lambda seed: run_hypergpu("hypergpu", seed=seed, rounds=ROUNDS, kill_in_round=KILL_ROUND)),
        *(
            (peer.name, lambda seed, peer=peer: run_peer(peer, seed=seed, rounds=ROUNDS, die_at=at))
            for peer in named(KILLED_PEERS)
        ),
    ]


def for_long() -> list[tuple[str, Run]]:
    return [
        ("hypergpu", lambda seed: run_hypergpu("hypergpu", seed=seed, rounds=LONG_ROUNDS)),
        (EAGER, lambda seed: run_hypergpu(EAGER, seed=seed, rounds=LONG_ROUNDS, eager=True)),
        *((peer.name, lambda seed, peer=peer: run_peer(peer, seed=seed, rounds=LONG_ROUNDS)) for peer in named(LONG_PEERS)),
    ]


def fetching(seed: int) -> Outcome:
    return run_hypergpu("hypergpu", seed=seed, rounds=ROUNDS, download_data=True)


def named(names: Sequence[str]) -> list[Peer]:
    return [peer for peer in PEERS if peer.name in names]


def collect(problems: list[str], what: str, runs: Sequence[tuple[str, Run, int]]) -> dict[str, list[Outcome]]:
    """Outcomes by name, each kept as soon as it is there. What does not run, for whatever reason, is named in `problems`, and the
    others go on."""
    found: dict[str, list[Outcome]] = {}
    broken = set[str]()
    for at, (name, run, seed) in enumerate(runs, 1):
        if name in broken:
            continue
        try:
            outcome = run(seed)
        except Exception as error:  # noqa: BLE001  (one system must not lose what the others did)
            broken.add(name)
            why = last_line(str(error)) if isinstance(error, StackError) else repr(error)
            problems.append(f"{name} ({what}, seed {seed}) did not get through: {why}")
            keep({"what": what, "system": name, "seed": seed, "problem": problems[-1]})
            sys.stderr.write(f"{problems[-1]}\n")
            continue
        found.setdefault(name, []).append(outcome)
        keep({"what": what, "system": name, "seed": seed, **asdict(outcome)})
        sys.stderr.write(
            f"[{at}/{len(runs)}] {what}, seed {seed}, {name}: {outcome.bytes:,} bytes, loss {outcome.loss:.4f}, "
            f"{outcome.steps_per_second:.1f} steps/s\n"
        )
    return found


def keep(row: dict[str, Any]) -> None:
    """A run takes half an hour: what it has measured outlives whatever ends it."""
    OUTCOMES.parent.mkdir(parents=True, exist_ok=True)
    with OUTCOMES.open("a") as file:
        file.write(json.dumps({"at": round(time.time()), **row}) + "\n")


def last_line(text: str) -> str:
    """Without the colours of terminals."""
    return COLOURS.sub("", text.strip().splitlines()[-1])[:300]


def row(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means over seeds."""
    count = len(outcomes)
    return {
        "system": name,
        "bytes": round(sum(one.bytes for one in outcomes) / count),
        "loss": round(sum(one.loss for one in outcomes) / count, 4),
        "steps_per_second": round(sum(one.steps_per_second for one in outcomes) / count, 2),
        "inner_steps_per_second": round(sum(one.inner_rate for one in outcomes) / count, 2),
        "seconds": round(sum(one.seconds for one in outcomes) / count, 2),
        "bytes_with_audits": round(sum(one.more.get("bytes_with_audits", one.bytes) for one in outcomes) / count),
        "seeds": count,
    }  # fmt: skip


def inside_of(outcome: Outcome) -> dict[str, Any]:
    return {"system": outcome.name} | {name: value for name, value in outcome.more.items() if not isinstance(value, dict)}


def figures(found: dict[str, list[Outcome]], *, after: str = "") -> dict[str, Figure]:
    """HyperGPU is held to torchft's means: a fortieth of its bytes, its loss, its speed. `after` ends the names."""
    torchft = row("torchft", found["torchft"]) if "torchft" in found else {}
    goals = {
        "bytes": torchft.get("bytes", math.nan) / FEWER_BYTES, "loss": torchft.get("loss"),
        "steps_per_second": torchft.get("steps_per_second"),
    }  # fmt: skip
    named: dict[str, Figure] = {}
    for name, label in LABELS.items():
        for quantity, unit in (("bytes", "B"), ("loss", "nats"), ("steps_per_second", "steps/s")):
            if name in found:
                mean, low, high = interval([float(getattr(one, quantity)) for one in found[name]])
                goal = goals[quantity] if label.startswith("hypergpu") and torchft else None
                named[f"{quantity}_{label}{after}"] = Figure(value=mean, unit=unit, goal=goal, low=low, high=high)
    whole = [float(one.more["bytes_with_audits"]) for one in found.get("hypergpu", []) if "bytes_with_audits" in one.more]
    if whole:
        mean, low, high = interval(whole)
        named[f"bytes_hypergpu_with_audits{after}"] = Figure(value=mean, unit="B", low=low, high=high)
    return named


def bars(plain: dict[str, list[Outcome]], quantity: str, title: str, *, log: Literal["", "x"] = "") -> Bars:
    means = {name: interval([float(getattr(one, quantity)) for one in outcomes]) for name, outcomes in plain.items()}
    shown = {name: (mean,) if low is None or high is None else (mean, low, high) for name, (mean, low, high) in means.items()}
    return Bars(title=title, x=title, bars=shown, log=log)


def requirements() -> str:
    pins = sorted({line for file in REQUIREMENTS.glob("*.txt") for line in file.read_text().splitlines() if "==" in line})
    return f"Peers' environments hold: {', '.join(pins)}."
