"""Seconds from a receipt's hand-in to its final credit, through the product's processes."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.hypergpu_bench.report import Figure, Measured
from scripts.hypergpu_demo.ports import free_ports
from scripts.hypergpu_demo.stack import ATTESTORS, BLOCK_SECONDS, ROOT, SERVICES, Stack
from scripts.hypergpu_demo.supervise import Program, StackError

GOAL_SECONDS = 30.0
SEED = 1
CONDITIONS = (
    f"One machine with everything on it, anvil with {BLOCK_SECONDS} s blocks; a payment counts when its block is finalized.",
    "Real: database, redis, Celery workers (coordinator's, three attestors with a key each), chain follower, contracts; "
    "wallets, registration, bids, receipts and every signature; intake by its service functions, in one process.",
    "Synthetic: no training and no scoring. A contribution is 29 bytes, its quality a function of its hash.",
    "batched: one round of one job with 1,000 nodes. ten_jobs: 100 nodes each, at once. per_receipt: one round, 120 nodes.",
    "Waits count from the start of the receipt's intake to the transaction in which the indexer records the final log. "
    "A round settles as a whole, so its first receipt waits for its last.",
)


@dataclass(frozen=True, slots=True)
class Load:
    """`jobs` jobs of `nodes` nodes each hand in one receipt for each node, in the settlement mode `mode`."""

    name: str
    mode: str
    jobs: int
    nodes: int
    quick_nodes: int


LOADS = (
    Load("batched", "batched", jobs=1, nodes=1_000, quick_nodes=60),
    Load("ten_jobs", "batched", jobs=10, nodes=100, quick_nodes=6),
    Load("per_receipt", "per-receipt", jobs=1, nodes=120, quick_nodes=20),
)
ROUNDS = 1
SPREAD = "the shortest and the longest wait"


class PaperStack(Stack):
    """The demo's processes without page and agents; workers judge on paper."""

    def start(self) -> None:
        run = self.processes
        run.start(self.redis(), self.chain())
        run.wait("redis", "chain")
        self.fund("requester", *SERVICES)
        self.prepare()
        run.start(self.control(), self.compute(), self.chain_follower(), *(self.attestor(name) for name in ATTESTORS))
        self.wait_for_workers()

    def celery(self, *names: Any, **settings: Any) -> Program:
        program = super().celery(*names, **settings)
        celery = list(program.command).index("celery")
        command = [*program.command[:celery], "scripts.hypergpu_bench.paper_worker", *program.command[celery + 3 :]]
        return replace(program, command=command)


def measure(*, quick: bool) -> Measured:
    others, cores = os.getloadavg()[0], os.cpu_count()
    busy = f"Before: a load average of {others:.1f} from other programs on {cores} cores; this ran at nice {os.nice(0)}."
    found = {load.name: run_load(load, quick=quick) for load in LOADS}
    rows = [row(load, one) for load in LOADS for one in found[load.name]["rounds"]]
    return Measured(
        seeds=(SEED,), conditions=(*CONDITIONS, busy), rows=rows, figures=figures(found),
        spread=SPREAD, more={"read from the final chain": [{"load": name, **result["chain"]} for name, result in found.items()]},
    )  # fmt: skip


def run_load(load: Load, *, quick: bool) -> dict[str, Any]:
    """Rounds and what the chain says of them. Raises StackError when it does not get through."""
    state = Path(tempfile.mkdtemp(prefix="hg-bench-"))
    nodes = load.quick_nodes if quick else load.nodes
    settings = {
        "HYPERGPU_SETTLEMENT_MODE": load.mode,
        # Nodes on paper send no heartbeats.
        "HYPERGPU_LEASE_SECONDS": "3600",
        "HYPERGPU_OFFLINE_SECONDS": "3600",
    }
    out = state / "found.json"
    numbers = {"--jobs": load.jobs, "--nodes": nodes, "--rounds": ROUNDS, "--seed": SEED}
    sizes = [str(part) for option in numbers.items() for part in option]
    with PaperStack(state, ports=free_ports(), operators=0, say=say, settings=settings) as stack:
        stack.start()
        command = [sys.executable, "-m", "scripts.hypergpu_bench.latency_run", *sizes, "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, env=stack.processes.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{load.name} (its logs stay in {state}/logs): {done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    shutil.rmtree(state)
    return found


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


# What it came to.


def row(load: Load, one: dict[str, Any]) -> dict[str, Any]:
    waits = one["waits"]
    return {
        "load": load.name, "mode": load.mode, "jobs": load.jobs, "receipts": len(waits), "p50_seconds": percentile(waits, 50),
        "p95_seconds": percentile(waits, 95), "longest_seconds": round(max(waits), 2), "seconds": round(one["seconds"], 2),
        "receipts_per_second": round(len(waits) / one["seconds"], 1),
        "stages": {stage: round(seconds, 2) for stage, seconds in one["stages"].items()},
    }  # fmt: skip


def figures(found: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    """Those of `batched` under the plain names, those of every load with its name behind; `low` and `high` are the shortest
    and the longest wait."""
    named: dict[str, Figure] = {}
    for name, result in found.items():
        chain = result["chain"]
        waits = [wait for one in result["rounds"] for wait in one["waits"]]
        for percent in (50, 95):
            named[f"handin_to_final_seconds_p{percent}_{name}"] = Figure(
                value=percentile(waits, percent), unit="s", goal=GOAL_SECONDS, low=round(min(waits), 2), high=round(max(waits), 2)
            )
        speed = len(waits) / sum(one["seconds"] for one in result["rounds"])
        named[f"receipts_per_second_{name}"] = Figure(value=round(speed, 1), unit="receipts/s")
        named[f"handed_in_{name}"] = Figure(value=len(waits), unit="receipts")
        named[f"lost_{name}"] = Figure(value=chain["lost"], unit="receipts", goal=0)
        named[f"paid_twice_{name}"] = Figure(value=chain["paid_twice"], unit="receipts", goal=0)
    plain = {name.removesuffix("_batched"): figure for name, figure in named.items() if name.endswith("_batched")}
    transactions = found["per_receipt"]["chain"]["per_receipt_transactions"]
    of_all = {
        "per_receipt_transactions": Figure(value=transactions, unit="transactions in one round", goal=100),
        "lost": total(found, "lost"),
        "paid_twice": total(found, "paid_twice"),
    }
    return plain | of_all | named


def total(found: dict[str, dict[str, Any]], name: str) -> Figure:
    return Figure(value=sum(result["chain"][name] for result in found.values()), unit="receipts", goal=0)


def percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)
