"""Child processes that never outlive their agent, however it dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from trainer.operator.config import write_json

MAX_LOG_BYTES = 5_000_000
WATCH_SECONDS = 0.5
GROUP_TRIES, GROUP_SECONDS = 20, 0.05
"""The kernel takes one change of a session's nice value in 0.1 s from all users but root."""


def start_child(command: Sequence[str], *, log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, so that Ctrl-C reaches the agent alone, which then stops its children.

    Where `setpriv` exists (Linux) the kernel ends the child with its parent; elsewhere the worker watches its parent.
    """
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        os.replace(log, log.with_suffix(".old"))
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    if (nice := os.nice(0)) > 0:  # the agent's own, as its operator wanted
        set_nice(child.pid, nice)
    return child


def set_nice(pid: int, nice: int) -> None:
    """Give a process its nice value and, if it leads a session, that session too: where the kernel weighs sessions against each
    other (sched(7), autogroup), a process's own value counts only within its own.

    A process that is gone is left alone. Raises PermissionError for less than it has without the right to it.
    """
    group = Path(f"/proc/{pid}/autogroup")
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        psutil.Process(pid).nice(nice)
        for _ in range(GROUP_TRIES if group.exists() and os.getsid(pid) == pid else 0):
            try:
                group.write_text(str(nice))
                return
            except BlockingIOError:
                time.sleep(GROUP_SECONDS)


def kill_child(child: subprocess.Popen[bytes] | None) -> None:
    """End a child at once: nothing that matters lives in one only."""
    if child is not None and child.poll() is None:
        child.kill()
        child.wait()


def remember_children(path: Path, children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Write each child's pid and start time, which together name a process for good."""
    running = [psutil.Process(child.pid) for child in children if child.poll() is None]
    write_json(path, [{"pid": process.pid, "created": process.create_time()} for process in running])


def kill_remembered(path: Path) -> list[int]:
    """End children of an agent that was killed; the pids that still ran."""
    if not path.exists():
        return []
    ended = []
    for entry in json.loads(path.read_text()):
        try:
            process = psutil.Process(entry["pid"])
            if process.create_time() == entry["created"]:
                process.kill()
                process.wait(10)
                ended.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    path.unlink()
    return ended


def end_with_parent(parent: int, sibling: int) -> None:
    """For a thread of a child: end this process, and `sibling`, which cannot watch, as soon as the parent is gone."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    with suppress(ProcessLookupError):
        os.kill(sibling, signal.SIGKILL)
    os._exit(1)
