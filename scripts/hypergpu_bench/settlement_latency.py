"""Seconds from a receipt's hand-in to its final credit, through the product's processes."""

from __future__ import annotations

import json
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
    "Waits count from the start of the receipt's intake to the transaction in which the indexer records the final log. "
    "A round settles as a whole, so its first receipt waits for its last.",
)


@dataclass(frozen=True, slots=True)
class Mode:
    """`figures` says under which names the issue asks for this mode's figures; the others carry the mode as suffix."""

    name: str
    nodes: int
    rounds: int
    quick_nodes: int


MODES = (Mode("batched", 1_000, 3, 60), Mode("per-receipt", 120, 3, 20))


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
    found = {mode.name: run_mode(mode, quick=quick) for mode in MODES}
    rows = [row(name, one, result["chain"]) for name, result in found.items() for one in result["rounds"]]
    return Measured(
        seeds=(SEED,), conditions=CONDITIONS, rows=rows, figures=figures(found),
        more={"read from the final chain": [{"mode": name, **result["chain"]} for name, result in found.items()]},
    )  # fmt: skip


def run_mode(mode: Mode, *, quick: bool) -> dict[str, Any]:
    """Rounds and what the chain says of them. Raises StackError when it does not get through."""
    state = Path(tempfile.mkdtemp(prefix="hg-bench-"))
    nodes, rounds = (mode.quick_nodes, 1) if quick else (mode.nodes, mode.rounds)
    settings = {
        "HYPERGPU_SETTLEMENT_MODE": mode.name,
        # Nodes on paper send no heartbeats.
        "HYPERGPU_LEASE_SECONDS": "3600",
        "HYPERGPU_OFFLINE_SECONDS": "3600",
    }
    out = state / "found.json"
    sizes = ("--nodes", str(nodes), "--rounds", str(rounds), "--seed", str(SEED))
    with PaperStack(state, ports=free_ports(), operators=0, say=say, settings=settings) as stack:
        stack.start()
        command = [sys.executable, "-m", "scripts.hypergpu_bench.latency_run", *sizes, "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, env=stack.processes.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"Mode {mode.name} (its logs stay in {state}/logs): {done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    shutil.rmtree(state)
    return found


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


# What it came to.


def row(mode: str, one: dict[str, Any], chain: dict[str, Any]) -> dict[str, Any]:
    waits = one["waits"]
    return {
        "mode": mode, "round": one["round"], "receipts": len(waits), "p50_seconds": percentile(waits, 50),
        "p95_seconds": percentile(waits, 95), "longest_seconds": round(max(waits), 2), "seconds": round(one["seconds"], 2),
        "receipts_per_second": round(len(waits) / one["seconds"], 1),
        "stages": {stage: round(seconds, 2) for stage, seconds in one["stages"].items()},
    }  # fmt: skip


def figures(found: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    """Those of `batched` under the plain names, those of each mode with its name behind; `low` and `high` are the least and
    the most of a round."""
    named: dict[str, Figure] = {}
    for mode, result in found.items():
        suffix = "_" + mode.replace("-", "_")
        rounds, chain = result["rounds"], result["chain"]
        waits = [wait for one in rounds for wait in one["waits"]]
        for percent in (50, 95):
            of_rounds = [percentile(one["waits"], percent) for one in rounds]
            named[f"handin_to_final_seconds_p{percent}{suffix}"] = Figure(
                value=percentile(waits, percent), unit="s", goal=GOAL_SECONDS, low=min(of_rounds), high=max(of_rounds)
            )
        named[f"handin_to_final_seconds_max{suffix}"] = Figure(value=round(max(waits), 2), unit="s", goal=GOAL_SECONDS)
        speeds = [len(one["waits"]) / one["seconds"] for one in rounds]
        named[f"receipts_per_second{suffix}"] = Figure(
            value=round(statistics.mean(speeds), 1), unit="receipts/s", low=round(min(speeds), 1), high=round(max(speeds), 1)
        )
        named[f"receipts_in_a_round{suffix}"] = Figure(value=len(rounds[0]["waits"]), unit="receipts")
        named[f"lost{suffix}"] = Figure(value=chain["lost"], unit="receipts", goal=0)
        named[f"paid_twice{suffix}"] = Figure(value=chain["paid_twice"], unit="receipts", goal=0)
    transactions = found["per-receipt"]["chain"]["per_receipt_transactions"] / len(found["per-receipt"]["rounds"])
    plain = {name.removesuffix("_batched"): figure for name, figure in named.items() if name.endswith("_batched")}
    of_all = {
        "per_receipt_transactions": Figure(value=transactions, unit="transactions in a round", goal=100),
        "lost": total(found, "lost"),
        "paid_twice": total(found, "paid_twice"),
    }
    return plain | of_all | named


def total(found: dict[str, dict[str, Any]], name: str) -> Figure:
    return Figure(value=sum(result["chain"][name] for result in found.values()), unit="receipts", goal=0)


def percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)
