"""Another machine's speed, emulated: for demos and tests, where all nodes share one machine. What shows it says so."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from urllib.parse import urlsplit

VARIABLE = "HYPERGPU_EMULATE_SAMPLES_PER_SECOND"
"""Samples a second that the worker trains at most, whatever its device could."""
LOSS = "HYPERGPU_EMULATE_LOSS"
"""Part of the segments that an emulated link loses: behind a shaper the kernel sees a loopback, which loses none."""
WAYS = "HYPERGPU_EMULATE_WAYS"
"""JSON: the port of this machine at which an emulated link leads to another node's endpoint, by its host:port."""
OnStep = Callable[[int, float], None]


def emulated_speed() -> float | None:
    """Samples a second; None: as fast as the device is."""
    return float(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def paced(on_step: OnStep | None, *, samples: int) -> OnStep | None:
    """Called after each step of `samples`, it makes that last as long as on the emulated machine. What one step took longer, the
    next ones make up."""
    if (speed := emulated_speed()) is None:
        return on_step
    began, steps = time.monotonic(), itertools.count(1)

    def pace(step: int, loss: float) -> None:
        time.sleep(max(0.0, began + next(steps) * samples / speed - time.monotonic()))
        if on_step is not None:
            on_step(step, loss)

    return pace


def emulated_loss() -> float | None:
    """None: as measured."""
    return float(os.environ[LOSS]) if os.environ.get(LOSS) else None


def port_of(endpoint: str) -> int:
    """Where another node's endpoint (scheme://host[:port]) is reached from here: at its port, or that of an emulated link."""
    parts = urlsplit(endpoint)
    ways: dict[str, int] = json.loads(os.environ.get(WAYS) or "{}")
    return ways.get(parts.netloc) or parts.port or (443 if parts.scheme == "https" else 80)
