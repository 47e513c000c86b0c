"""Who gets the cores."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import psutil

WORKERS = -10
"""Of the training processes of every system: other programs of the machine get what these leave."""
COORDINATOR = -15
BACKGROUND = 19
"""Attestors and evaluations: no round waits for them."""


def processes_in(namespace: str) -> list[psutil.Process]:
    """What runs in a network namespace."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    found = []
    for pid in listed.stdout.split():
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(pid)))
    return found
