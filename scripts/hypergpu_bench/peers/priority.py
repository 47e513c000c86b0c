"""Who gets the cores: nice, told to the scheduler's session groups too (sched(7), autogroup), without which it means nothing
between programs that have sessions of their own."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

WORKERS = -10
"""Of the training processes of every system: other programs of the machine get what these leave."""
COORDINATOR = -15
BACKGROUND = 19
"""Attestors and evaluations: no round waits for them."""


def give(process: psutil.Process, nice: int) -> None:
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        process.nice(nice)
        group = Path(f"/proc/{process.pid}/autogroup")
        if group.exists() and os.getsid(process.pid) == process.pid:
            group.write_text(str(nice))


def processes_in(namespace: str) -> list[psutil.Process]:
    """What runs in a network namespace."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    found = []
    for pid in listed.stdout.split():
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(pid)))
    return found
