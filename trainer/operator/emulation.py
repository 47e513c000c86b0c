"""Another machine's speed, emulated: for demos and tests, where all nodes share one machine. What shows it says so."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

VARIABLE = "HYPERGPU_EMULATE_SAMPLES_PER_SECOND"
"""Samples a second that the worker trains at most, whatever its device could."""
LOSS = "HYPERGPU_EMULATE_LOSS"
"""Part of the segments that an emulated link loses: behind a shaper the kernel sees a loopback, which loses none."""
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
