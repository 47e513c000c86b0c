"""torchft's DiLoCo: pseudo-gradients of H inner steps are averaged by gloo under its fault-tolerant manager.

Variants: `plain` (one fragment, Douillard et al. 2023) and `streaming` (two fragments in turn, each awaited 2 steps later,
Douillard et al. 2025). Outer Nesterov with the papers' 0.7 and 0.9.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

import torch
from task import GPT, Clock, Task, arguments, launch
from torch import nn
from torchft import Manager, ProcessGroupGloo
from torchft.coordination import LighthouseServer
from torchft.local_sgd import DiLoCo

PATIENCE = timedelta(seconds=20)
DELAY = 2
"""Inner steps between the start of a fragment's averaging and the wait for it (streaming)."""


def fragments(model: GPT, variant: str) -> list[nn.Module]:
    if variant != "streaming":
        return [model]
    layers: list[nn.Module] = list(model.layers)
    half = len(layers) // 2
    first = nn.ModuleList([model.embedding, model.position, *layers[:half]])
    return [first, nn.ModuleList([*layers[half:], model.norm])]


def work(options: argparse.Namespace) -> None:
    task, clock = Task(options.task, worker=options.worker), Clock(options)
    inner = task.optimizer()
    parts = fragments(task.model, options.variant)
    outer = [torch.optim.SGD(part.parameters(), lr=0.7, momentum=0.9, nesterov=True) for part in parts]
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=PATIENCE), load_state_dict=lambda state: load(task, inner, state),
        state_dict=lambda: {"model": task.model.state_dict(), "inner": inner.state_dict()},
        min_replica_size=1, use_async_quorum=False, timeout=PATIENCE, quorum_timeout=PATIENCE, rank=0, world_size=1,
        store_addr="127.0.0.1", store_port=store.port, lighthouse_addr=options.meet, replica_id=f"worker_{options.worker}",
        hostname="127.0.0.1", init_sync=False,
    )  # fmt: skip
    delay = DELAY if len(parts) > 1 else 0
    inner.register_step_post_hook(lambda *_: clock.step_ended())  # before DiLoCo's own hook, which averages
    with DiLoCo(manager, parts, inner, outer if len(parts) > 1 else outer[0], options.inner, fragment_sync_delay=delay):
        for step in range(task.steps):
            clock.step_begins()
            task.backward(task.model, inner, step)
            inner.step()
    clock.report(task, members=manager.num_participants())
    manager.shutdown(wait=False)


def load(task: Task, inner: torch.optim.Optimizer, state: dict) -> None:
    task.model.load_state_dict(state["model"])
    inner.load_state_dict(state["inner"])


if __name__ == "__main__":
    given = arguments()
    if given.worker is None:
        lighthouse = LighthouseServer(bind="127.0.0.1:0", min_replicas=1, join_timeout_ms=1000, heartbeat_timeout_ms=2000)
        code = launch(given, meet=lighthouse.address())
        lighthouse.shutdown()
        sys.exit(code)
    work(given)
