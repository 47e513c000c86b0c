"""torch DistributedDataParallel over gloo: gradients of every step are averaged. The synchronous baseline."""

from __future__ import annotations

import argparse
import sys

import torch.distributed as dist
from task import Clock, Task, arguments, launch
from torch.nn.parallel import DistributedDataParallel


def work(options: argparse.Namespace) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://{options.meet}", rank=options.worker, world_size=options.workers)
    task, clock = Task(options.task, worker=options.worker), Clock(options)
    model, optimizer = DistributedDataParallel(task.model), task.optimizer()
    for step in range(task.steps):
        clock.step_begins()
        task.backward(model, optimizer, step)
        optimizer.step()
        clock.step_ended()
    clock.report(task)


if __name__ == "__main__":
    given = arguments()
    if given.worker is None:
        sys.exit(launch(given, meet="127.0.0.1:29500"))
    work(given)
