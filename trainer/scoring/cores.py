"""Measuring several versions of a model at once, a core each: nodes wait for a round's scores."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")


def on_cores(model: nn.Module, tasks: Sequence[Callable[[nn.Module], Result]]) -> list[Result]:
    """What each task makes of a model of its own, in order. A task lends its model's architecture to other parameters
    (`torch.func.functional_call` puts them into the module, so threads cannot share one) and computes with as many threads as
    ever, so its result is the same bits as without others beside it. A GPU is one core."""
    workers = min(len(tasks), cores()) if next(model.parameters()).device.type == "cpu" else 1
    if workers <= 1:
        return [task(model) for task in tasks]
    lent: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        lent.put(twin(model))

    def done(task: Callable[[nn.Module], Result]) -> Result:
        mine = lent.get()
        try:
            return task(mine)
        finally:
            lent.put(mine)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(done, tasks))


def cores() -> int:
    """How many computations of torch's own number of threads this process has cores for."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS does not say
    return max(1, ours // torch.get_num_threads())


def twin(model: nn.Module) -> nn.Module:
    """The same modules around the same parameters: a copy costs no memory to speak of."""
    shared: dict[int, object] = {id(value): value for value in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)
