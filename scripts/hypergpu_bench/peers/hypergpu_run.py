"""One job through HyperGPU's own processes, in a hub's namespace; each agent runs in a leaf's. Started by `hypergpu.py`.

Everything is the product's: coordinator behind TLS, database, redis, Celery workers, three attestors, a chain, agents that
were registered on chain and bid. Only the network is made: cables between namespaces of one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from scripts.hypergpu_bench.peers import priority
from scripts.hypergpu_bench.peers.namespaces import HUB_ADDRESS, Counters, counters, inside, parse_counters
from scripts.hypergpu_bench.peers.task_file import TEXT
from scripts.hypergpu_demo.market import Market
from scripts.hypergpu_demo.ports import Ports
from scripts.hypergpu_demo.stack import ATTESTORS, Stack
from scripts.hypergpu_demo.supervise import Program, StackError
from trainer.operator.processes import set_nice
from trainer.protocol.canonical import sha256_hex

PORTS = Ports(8000)
ENDED = ("completed", "stopped", "failed", "closed")
SETTLE_SECONDS, SETTLE_SECONDS_A_ROUND = 300, 30
"""Patience after the last round, when the clock has stopped: attestors, who come last in line for the cores, have yet to judge
most of them."""
BACKGROUND = (*ATTESTORS, "evaluation")
POLL_SECONDS, WATCHFUL_SECONDS = 1.0, 0.1
"""Between two looks at the job; before a kill it is looked at often."""
IS_LEASED = (
    "SELECT 1 FROM training_assignment AS slot JOIN training_round AS round ON slot.round_id = round.id "
    "WHERE round.job_id = ? AND round.number = ? AND slot.state = 'leased'"
)


class PeersStack(Stack):
    """The demo's processes, with the agents across a cable and TLS on it."""

    def __init__(self, state: Path, *, leaves: list[str]) -> None:
        self.leaves = leaves
        self.certificate, self.key = state / "tls.pem", state / "tls.key"
        state.mkdir(parents=True, exist_ok=True)
        self.make_certificate()
        os.environ["SSL_CERT_FILE"] = str(self.certificate)
        super().__init__(
            state, ports=PORTS, operators=len(leaves), say=say, url=f"https://{HUB_ADDRESS}:{PORTS.web}",
            settings={"HYPERGPU_HOSTS": HUB_ADDRESS},
        )  # fmt: skip

    def make_certificate(self) -> None:
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-keyout", str(self.key), "-out", str(self.certificate), "-subj", "/CN=bench"),
            *("-addext", f"subjectAltName=IP:{HUB_ADDRESS}"),
        ]
        subprocess.run(command, check=True, capture_output=True)

    def web(self) -> Program:
        program = super().web()
        command = [HUB_ADDRESS if word == "127.0.0.1" else word for word in program.command]
        return replace(program, command=[*command, "--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)])

    def agent(self, number: int) -> Program:
        program = super().agent(number)
        return replace(program, command=inside(self.leaves[number - 1], program.command))

    def start(self) -> None:
        super().start()
        self.processes.start(self.celery("evaluation", "evaluation,audit", "--pool", "solo"))

    def compute(self) -> Program:
        """Without evaluations and audits, for which no round waits: they have a worker of their own."""
        return self.celery("compute", "compute", "--pool", "solo")

    def preload(self, files: list[Path]) -> None:
        """Data that the operators have already, as the peers' workers do."""
        for number in range(1, self.operators + 1):
            cache = self.agent_home(number) / "cache"
            cache.mkdir(parents=True, exist_ok=True)
            for file in files:
                (cache / sha256_hex(file.read_bytes())).write_bytes(file.read_bytes())

    def kill_node(self, number: int) -> None:
        """kill -9 for all that runs in a leaf, for good."""
        with self.processes.lock:
            self.processes.running.pop(f"agent {number}")
            for process in priority.processes_in(self.leaves[number - 1]):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--spec", type=Path, required=True, help="JSON of the job's specification")
    parser.add_argument("--leaves", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--download-data", action="store_true", help="the agents fetch the data from the coordinator")
    parser.add_argument("--kill-in-round", type=int, help="kill the last node in the middle of this round, counted from 0")
    options = parser.parse_args()
    set_nice(os.getpid(), priority.COORDINATOR)
    try:
        stack = PeersStack(options.state, leaves=options.leaves)
        with stack:
            options.out.write_text(json.dumps(run(stack, json.loads(options.spec.read_text()), options)))
    except StackError as error:
        sys.exit(str(error))


def run(stack: PeersStack, spec: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    if not options.download_data:
        stack.preload([TEXT])
    stack.start()
    set_priorities(stack, background=priority.COORDINATOR)
    market = Market(stack)
    market.api.sign_in(stack.keys.wallet("requester"), market.domain.chain_id)
    nodes = market.join_operators()
    stack.wait_for_workers()
    market.wait_for_agents(nodes)
    market.upload({"text": TEXT})
    set_priorities(stack)
    before = measured(stack)
    job = market.post_job("peers", spec)
    last = follow(stack, market, job["id"], options)
    trained = measured(stack)
    set_priorities(stack, background=priority.COORDINATOR)
    settled = follow_settlement(
        market, job["id"], seconds=SETTLE_SECONDS + SETTLE_SECONDS_A_ROUND * spec["rounds"]["rounds"],
        audited=options.kill_in_round is None,
    )  # fmt: skip
    return {"job": last, "settled": settled, "before": before, "trained": trained, "after": measured(stack)}


def set_priorities(stack: PeersStack, *, background: int = priority.BACKGROUND) -> None:
    """Workers as the peers' are; the coordinator above them, what no round waits for below until training has ended."""
    with stack.processes.lock:
        programs = {name: running.process.pid for name, running in stack.processes.running.items()}
    for name, pid in programs.items():
        if not name.startswith("agent"):
            set_nice(pid, background if name in BACKGROUND else priority.COORDINATOR)
    for leaf in stack.leaves:
        for process in priority.processes_in(leaf):
            set_nice(process.pid, priority.WORKERS)


def follow(stack: PeersStack, market: Market, job_id: int, options: argparse.Namespace) -> dict[str, Any]:
    """The job's snapshot once its last round has been aggregated. Watched in the database: a page's whole snapshot every second
    would take a core from the rounds of a long job."""
    doomed, said = options.kill_in_round, 0
    with closing(sqlite3.connect(stack.state / "hypergpu.sqlite3")) as rows:
        while True:
            stack.processes.check()
            state, ended = rows.execute("SELECT state, round FROM jobs_job WHERE id = ?", [job_id]).fetchone()
            if ended > said:
                said = ended
                say(f"{ended} rounds trained")
            if doomed is not None and rows.execute(IS_LEASED, [job_id, doomed]).fetchone():
                stack.kill_node(len(stack.leaves))
                doomed = None
            if state in ENDED:
                snapshot: dict[str, Any] = market.api.get(f"jobs/{job_id}")
                return snapshot
            time.sleep(POLL_SECONDS if doomed is None else WATCHFUL_SECONDS)


def follow_settlement(market: Market, job_id: int, *, seconds: float, audited: bool) -> dict[str, Any]:
    """The job's snapshot once all is paid and, if `audited`, every audit is answered: a dead node answers none, for ten minutes.
    Raises StackError after `seconds`."""
    until, said = time.monotonic() + seconds, -1
    while time.monotonic() < until:
        snapshot: dict[str, Any] = market.api.get(f"jobs/{job_id}")
        if is_settled(snapshot, audited=audited):
            return snapshot
        settled = sum(one["state"] == "settled" for one in snapshot["rounds"])
        if settled > said:
            said = settled
            say(f"{settled} of {len(snapshot['rounds'])} rounds settled, the clock has stopped")
        time.sleep(POLL_SECONDS)
    raise StackError(f"Waited {seconds:.0f} s for the job to be settled.")


def is_settled(snapshot: dict[str, Any], *, audited: bool) -> bool:
    ended = snapshot["job"]["state"] in ("closed", "failed")
    judged = not audited or all(one["state"] not in ("requested", "answered") for one in snapshot["audits"])
    return ended and judged and all(one["metric"] for one in snapshot["rounds"])


def measured(stack: PeersStack) -> dict[str, Any]:
    """Bytes of each leaf's cable and of the hub's inner loopback, CPU seconds by program, and the time."""
    cables = [counters(leaf, "eth0") for leaf in stack.leaves]
    with stack.processes.lock:
        cpu = {name: cpu_seconds(running.process.pid) for name, running in stack.processes.running.items()}
    inner = counters_here("lo")
    return {
        "at": time.time(), "cpu": cpu, "loopback": inner.sent,
        "cables": [{"up": cable.sent, "down": cable.received, "packets": cable.packets} for cable in cables],
    }  # fmt: skip


def counters_here(interface: str) -> Counters:
    return parse_counters(Path("/proc/net/dev").read_text(), interface)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living descendants."""
    try:
        root = psutil.Process(pid)
        return sum(sum(process.cpu_times()[:2]) for process in [root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0.0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
