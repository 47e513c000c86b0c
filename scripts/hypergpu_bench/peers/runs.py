"""One run of one system in network namespaces of its own, and what it came to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from scripts.hypergpu_bench.peers import priority
from scripts.hypergpu_bench.peers.environments import python_of
from scripts.hypergpu_bench.peers.namespaces import counters, inside, namespace, star
from scripts.hypergpu_bench.peers.task_file import WORKERS, job_spec, write_task
from scripts.hypergpu_demo.supervise import StackError
from trainer.protocol.spec import JobSpec

HERE = Path(__file__).parent
PATIENCE, PATIENCE_A_ROUND = 300, 30
"""Seconds for one run; far beyond the slowest on an idle machine."""
PROGRESS_SECONDS = 20
ROUND_ENDS = (
    "SELECT (SELECT max(leased_at) FROM training_assignment WHERE round_id = round.id) AS leased, "
    "(SELECT max(received_at) FROM training_contribution WHERE round_id = round.id) AS received "
    "FROM training_round AS round WHERE leased IS NOT NULL AND received IS NOT NULL ORDER BY round.number"
)
SPARSE: dict[str, Any] = {
    "encoding": {"kind": "topk", "k": 96, "error_decay": 0.95},
    "downlink": {"kind": "topk", "k": 208, "error_decay": 0.95},
    "outer": {"optimizer": "sgd", "learning_rate": 2.0, "final_fraction": 0.4},
    "aggregation": {"rule": "weighted_mean"},
    "network": {"policy": "equal"},
}
"""HyperGPU's settings: error feedback carries the momentum, the outer rate falls as rounds go. Both nodes have the same orders,
as the peers' workers do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`script` and `variant` of a peer in the environment `environment`; an empty one is the product's own (plain torch)."""

    name: str
    script: str
    environment: str = ""
    variant: str = ""


PEERS = (
    Peer("ddp", "ddp.py"),
    Peer("torchft", "torchft_diloco.py", "torchft", "plain"),
    Peer("torchft_streaming", "torchft_diloco.py", "torchft", "streaming"),
    Peer("hivemind_fp32", "hivemind_diloco.py", "hivemind", "fp32"),
    Peer("hivemind_fp16", "hivemind_diloco.py", "hivemind", "fp16"),
    Peer("hivemind_8bit", "hivemind_diloco.py", "hivemind", "8bit"),
    Peer("flower", "flower_fedavgm.py", "flower"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`bytes` on the wire, each counted once with all headers; `loss` held out, nats; `seconds` from the first inner step to
    the last round's end; `inner_rate` steps a second of a worker while it trains. `more` are further facts of the system."""

    name: str
    bytes: int
    loss: float
    steps: int
    seconds: float
    inner_rate: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds


def run_peer(peer: Peer, *, seed: int, rounds: int, die_at: int | None = None) -> Outcome:
    """Raises StackError with the system's last words when it does not come to an end."""
    python = python_of(peer.environment)
    with tempfile.TemporaryDirectory(prefix="hg-peers-") as folder, namespace(f"hg{os.getpid()}-peer") as place:
        task, out = Path(folder) / "task.npz", Path(folder) / "out"
        out.mkdir()
        spec = job_spec(rounds=rounds, seed=seed)
        write_task(task, spec)
        words = {
            "task": task,
            "out": out,
            "variant": peer.variant,
            "inner": spec.inner.steps,
            "workers": WORKERS,
            "nice": priority.WORKERS,
        }
        command = [
            python,
            str(HERE / peer.script),
            *(part for name, value in words.items() for part in (f"--{name}", str(value))),
        ]
        if die_at is not None:
            command += ["--die-at", str(die_at)]
        finish(peer.name, inside(place, command), patience=PATIENCE + PATIENCE_A_ROUND * (rounds if die_at is None else 0))
        found = {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")}
        return outcome_of(peer.name, found, bytes_=counters(place, "lo").sent)


def finish(name: str, command: Sequence[str], *, patience: float = PATIENCE) -> None:
    """Run to the end, with a sign of life now and then. The output goes to a file: pipes that a left-over process holds open
    would never end. Raises StackError with its last words, or after `patience` seconds."""
    with tempfile.NamedTemporaryFile("w+") as log:
        process, began = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True), time.monotonic()
        try:
            while (waited := time.monotonic() - began) < patience:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(min(PROGRESS_SECONDS, patience - waited))
                    break
                sys.stderr.write(f"    {name}: {time.monotonic() - began:.0f} s {progress(Path(log.name).read_text())}\n")
            code = process.poll()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            failed = f"did not end within {patience:.0f} s" if code is None else f"ended with exit code {code}"
            raise StackError(f"{name} {failed}: {Path(log.name).read_text()[-1500:].strip()}")


def progress(log: str) -> str:
    """What a run of HyperGPU has said last of its rounds."""
    return next((line for line in reversed(log.splitlines()) if " rounds " in line), "")


def outcome_of(name: str, found: dict[str, dict[str, Any]], *, bytes_: int) -> Outcome:
    """From what the processes of a peer wrote: the loss is the server's where there is one, else the workers' mean."""
    workers = [one for stem, one in found.items() if stem.startswith("worker")]
    if not workers:
        raise StackError(f"{name} left no result.")
    losses = [one["loss"] for one in found.values() if "loss" in one]
    server = found.get("server", {})
    return Outcome(
        name=name, bytes=bytes_, loss=server.get("loss", fmean(losses)), steps=max(one["steps"] for one in workers),
        seconds=max(one["ended"] for one in found.values()) - min(one["began"] for one in workers),
        inner_rate=fmean(one["steps"] / one["inner_seconds"] for one in workers),
        more={"workers_at_the_end": len(workers)},
    )  # fmt: skip


def run_hypergpu(
    name: str, *, seed: int, rounds: int, audits: bool = True, eager: bool = False, kill_in_round: int | None = None,
    download_data: bool = False,
) -> Outcome:  # fmt: skip
    """The product's own path. Raises StackError; the logs then stay where it says."""
    more: dict[str, Any] = {} if audits else {"audit": {"rate": 0.0, "newcomer_rate": 0.0}}
    if eager:
        more["network"] = SPARSE["network"] | {"overlap": "eager"}
    spec = job_spec(rounds=rounds, seed=seed, **(SPARSE | more))
    state = Path(tempfile.mkdtemp(prefix="hg-peers-"))
    out, file = state / "out.json", state / "spec.json"
    file.write_text(spec.model_dump_json())
    with star(f"hg{os.getpid()}", WORKERS) as (hub, leaves):
        command = [sys.executable, "-m", "scripts.hypergpu_bench.peers.hypergpu_run", "--state", str(state / "stack")]
        command += ["--spec", str(file), "--out", str(out), "--leaves", *leaves]
        command += ["--download-data"] if download_data else []
        command += [] if kill_in_round is None else ["--kill-in-round", str(kill_in_round)]
        try:
            finish(name, inside(hub, command), patience=2 * (PATIENCE + PATIENCE_A_ROUND * rounds))
        except StackError as error:
            raise StackError(f"{error} (logs: {state}/stack/logs)") from error
    outcome = read_run(name, json.loads(out.read_text()), spec, state / "stack" / "hypergpu.sqlite3")
    shutil.rmtree(state, ignore_errors=True)  # a process that is being killed may still write
    return outcome


def read_run(name: str, found: dict[str, Any], spec: JobSpec, database: Path) -> Outcome:
    """`bytes` on every cable, both ways, from the job's posting to its last round's end. Nodes answer audits later:
    `bytes_with_audits` go on to the last one's end, or to the settlement."""
    before, trained, after, job = found["before"], found["trained"], found["after"], found["settled"]
    cables = [
        {way: end[way] - start[way] for way in ("up", "down", "packets")}
        for start, end in zip(before["cables"], trained["cables"], strict=True)
    ]
    whole = sum(
        end[way] - start[way] for start, end in zip(before["cables"], after["cables"], strict=True) for way in ("up", "down")
    )
    with closing(sqlite3.connect(database)) as rows:
        trainings = rows.execute("SELECT committed_at, seconds FROM training_contribution").fetchall()
        ends = rows.execute(ROUND_ENDS).fetchall()
    began = min(moment(at) - seconds for at, seconds in trainings)
    ended = max(moment(one["aggregated_at"]) for one in job["rounds"] if one["aggregated_at"])
    rate = spec.inner.steps * len(trainings) / sum(seconds for _, seconds in trainings)
    return Outcome(
        name=name, bytes=sum(cable["up"] + cable["down"] for cable in cables), loss=job["job"]["metric"]["loss"],
        steps=spec.inner.steps * spec.rounds.rounds, seconds=ended - began, inner_rate=rate,
        more={
            "bytes_of_each_node": [cable["up"] + cable["down"] for cable in cables],
            "packets": sum(cable["packets"] for cable in cables),
            "loopback_bytes_in_the_coordinator": trained["loopback"] - before["loopback"],
            "contributions": len(trainings),
            "seconds_from_last_receipt_to_next_leases": pause([(moment(leased), moment(received)) for leased, received in ends]),
            "audits": len(job["audits"]),
            "audits_passed": sum(one["state"] == "passed" for one in job["audits"]),
            "bytes_with_audits": whole,
            "settled_seconds_after_the_last_round": round(after["at"] - trained["at"], 1),
            "cpu_seconds": cpu_table(before["cpu"], after["cpu"]),
        },
    )  # fmt: skip


def pause(rounds: Sequence[tuple[float, float]]) -> float | None:
    """Median seconds in which nodes wait between rounds, from when each was leased to the last node and when its last receipt
    came; None for one round."""
    waits = [leased - received for (_, received), (leased, _) in pairwise(rounds)]
    return round(median(waits), 3) if waits else None


def cpu_table(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {program: round(seconds - before.get(program, 0.0), 1) for program, seconds in after.items()}


def moment(text: str) -> float:
    """Unix seconds of an ISO time; without a zone it is UTC, as the database keeps it."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
