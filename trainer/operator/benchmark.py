"""What the worker's device is, and how fast: a small, real training loop that warms torch up at the same time."""

from __future__ import annotations

import json
import os
import platform
import time
from itertools import islice, repeat
from typing import Any

import torch

from trainer.data import load_dataset, shard_batches
from trainer.diloco.local import NodeState, default_device, device_class, local_step
from trainer.operator.config import Home
from trainer.operator.emulation import emulated_speed
from trainer.operator.version import VERSION
from trainer.protocol.spec import JobSpec

BENCHMARK_SECONDS = 0.7
BATCH_SIZE = 64


def device_facts(home: Home) -> dict[str, Any]:
    """{device, software, samples_per_second}: measured once for each device and torch version, then remembered."""
    if (speed := emulated_speed()) is not None:
        samples_per_second(seconds=0.05)  # warms torch up
        return {"device": f"emulated machine, {speed:g} samples/s", "software": software(), "samples_per_second": speed}
    facts: dict[str, Any] = {"device": device_name(), "software": software()}
    before = json.loads(home.facts.read_text()) if home.facts.exists() else {}
    known = all(before.get(name) == value for name, value in facts.items())
    measured = samples_per_second(seconds=0.05 if known else BENCHMARK_SECONDS)
    return {**facts, "samples_per_second": before["samples_per_second"] if known else measured}


def samples_per_second(*, seconds: float) -> float:
    """Training samples a second of the default small network on the bundled digits, batches of 64."""
    spec = JobSpec()
    dataset = load_dataset(spec.data, files={})
    state = NodeState(spec, dataset.info)
    batches = list(shard_batches(dataset.train, shard=0, shards=1, seed=0, steps=8, batch_size=BATCH_SIZE))
    steps, started = 0, time.monotonic()
    for warm in (True, False):
        steps, started = 0, time.monotonic()
        for inputs, targets in islice((pair for lap in repeat(batches) for pair in lap), len(batches) if warm else None):
            local_step(state, inputs.to(state.device), targets.to(state.device), spec.inner, rate=1e-3)
            steps += 1
            if time.monotonic() - started > seconds:
                break
    return round(steps * BATCH_SIZE / (time.monotonic() - started), 1)


def device_name() -> str:
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def software() -> dict[str, str]:
    return {
        "python": platform.python_version(), "torch": torch.__version__, "hypergpu": VERSION,
        "device_class": device_class(default_device()),
    }  # fmt: skip
