"""Starts processes, waits for facts, restarts what dies, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from trainer.operator.processes import set_nice

BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
CALM_SECONDS = 10
"""Who ran this long before dying is restarted at once again."""
GRACE_SECONDS = 6
"""After SIGTERM; then SIGKILL."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class StackError(Exception):
    """Why the processes do not run, in one line for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """`ready` is a fact that can be asked again and again. A `vital` one is never restarted: without it all must end.
    `early` ones are stopped last. A `nice` one gets the cores that others leave."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool] = lambda: True
    vital: bool = False
    early: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0


@dataclass(slots=True)
class Running:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    log_start: int
    restart_at: float | None = None
    deaths: int = 0


class Supervisor:
    """Use as a context manager. `marker` (name, value) is put into every child's environment, so that even orphans of a
    killed child are found at the end."""

    def __init__(
        self, *, cwd: Path, env: Mapping[str, str], marker: tuple[str, str], logs: Path, say: Callable[[str], None]
    ) -> None:
        self.cwd, self.logs, self.say, self.marker = cwd, logs, say, marker
        self.env = {**env, marker[0]: marker[1]}
        self.running: dict[str, Running] = {}
        self.restarts: dict[str, int] = {}
        self.failure: StackError | None = None
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.watcher = threading.Thread(target=self.watch, name="supervisor", daemon=True)
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Supervisor:
        kill_marked(self.marker)
        self.watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self, *programs: Program) -> None:
        with self.lock:
            for program in programs:
                self.running[program.name] = self.spawn(program)

    def spawn(self, program: Program) -> Running:
        path = self.log(program.name)
        with path.open("ab") as output:
            process = subprocess.Popen(
                list(program.command), cwd=self.cwd, env={**self.env, **program.env}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent if LIBC else None,
            )  # fmt: skip
            if program.nice:
                set_nice(process.pid, program.nice)
            return Running(program, process, time.monotonic(), output.tell())

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def said(self, name: str, text: str) -> bool:
        """Whether the newest start of `name` has written `text` to its log."""
        running = self.running.get(name)
        if running is None:
            return False
        with self.log(name).open("rb") as log:
            log.seek(running.log_start)
            return text.encode() in log.read()

    def pid(self, name: str) -> int:
        return self.running[name].process.pid

    def wait(self, *names: str, seconds: float = 60) -> None:
        """Until all are ready. Raises StackError when one stays away, with the last line of its log."""
        until = time.monotonic() + seconds
        waiting = list(names)
        while waiting:
            self.check()
            waiting = [name for name in waiting if not self.running[name].program.ready()]
            if waiting and time.monotonic() > until:
                raise StackError(f"{waiting[0]} was not ready within {seconds:.0f} s. {self.last_words(waiting[0])}")
            time.sleep(0.03 if waiting else 0)

    def check(self) -> None:
        """Raises StackError once a vital process has died."""
        if self.failure:
            raise self.failure

    def last_words(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").strip().splitlines() or ["(its log is empty)"]
        return f"Its last line: {lines[-1][:300]}  (log: {self.log(name)})"

    # What goes on meanwhile.

    def watch(self) -> None:
        while not self.stopping.wait(0.1):
            with self.lock:
                for running in list(self.running.values()):
                    self.look_after(running)

    def look_after(self, running: Running) -> None:
        now = time.monotonic()
        if running.restart_at is not None:
            if now >= running.restart_at:
                again = self.spawn(running.program)
                again.deaths = running.deaths
                self.running[running.program.name] = again
            return
        if running.process.poll() is None:
            return
        name, how = running.program.name, manner_of_death(running.process.returncode)
        kill_group(running.process.pid, signal.SIGKILL)  # what it left behind
        if running.program.vital:
            self.failure = self.failure or StackError(f"{name} {how}, and nothing works without it. {self.last_words(name)}")
            return
        if now - running.started > CALM_SECONDS:
            running.deaths = 0
        wait = BACKOFF_SECONDS[min(running.deaths, len(BACKOFF_SECONDS) - 1)]
        running.deaths += 1
        running.restart_at = now + wait
        self.restarts[name] = self.restarts.get(name, 0) + 1
        self.say(f"{name} {how}; starting it again.")

    def stop(self) -> None:
        """End every process, the early ones last, and whatever they left behind."""
        self.stopping.set()
        if self.watcher.is_alive():
            self.watcher.join()
        with self.lock:
            everyone = list(self.running.values())
            end([running.process for running in everyone if not running.program.early])
            end([running.process for running in everyone if running.program.early])
            self.running.clear()
        kill_marked(self.marker)


def die_with_parent() -> None:
    """In the child: the kernel sends SIGTERM when the supervisor is gone, however it ended (prctl(2), Linux)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def manner_of_death(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def kill_group(pid: int, number: int) -> None:
    """Signal a process and all of its group; the group's number outlives its leader."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, some patience, SIGKILL; whole groups."""
    for process in processes:
        kill_group(process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            continue
    for process in processes:
        kill_group(process.pid, signal.SIGKILL)
        process.wait()


def kill_marked(marker: tuple[str, str]) -> None:
    """End every process that carries `marker` in its environment: orphans of children that were killed."""
    marked = [process for process in psutil.process_iter() if process.pid != os.getpid() and carries(process, marker)]
    for process in marked:
        process.kill()
    psutil.wait_procs(marked, timeout=3)


def carries(process: psutil.Process, marker: tuple[str, str]) -> bool:
    try:
        return process.environ().get(marker[0]) == marker[1]
    except (psutil.Error, OSError):
        return False
