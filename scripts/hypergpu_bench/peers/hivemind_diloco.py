"""hivemind's averager under a DiLoCo outer step, as OpenDiloco runs it: pseudo-gradients are averaged peer to peer, each peer
takes the same outer Nesterov step (0.7, 0.9).

Variants: `fp32`, `fp16`, `8bit` (uniform). The library needs numpy < 2.3: with a newer one its 8-bit codec drops half of the
averaging without an error.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from hivemind import DHT, DecentralizedAverager
from hivemind.compression import Float16Compression, NoCompression, Uniform8BitQuantization
from task import Clock, Task, arguments, launch

HOST = ["/ip4/127.0.0.1/tcp/0"]
CODECS = {"fp32": NoCompression, "fp16": Float16Compression, "8bit": Uniform8BitQuantization}
MATCHMAKING_SECONDS, REQUEST_SECONDS = 1.0, 0.5
PATIENCE = 10.0
"""Seconds to find a group; then a peer goes on by itself."""


def work(options: argparse.Namespace) -> None:
    task, clock = Task(options.task, worker=options.worker), Clock(options)
    inner = task.optimizer()
    parameters = list(task.model.parameters())
    base = [parameter.detach().clone() for parameter in parameters]
    outer = torch.optim.SGD(base, lr=0.7, momentum=0.9, nesterov=True)
    dht = DHT(initial_peers=options.meet.split(","), start=True, host_maddrs=HOST)
    averager = DecentralizedAverager(
        [torch.zeros_like(parameter) for parameter in base], dht, start=True, prefix="task", target_group_size=options.workers,
        min_matchmaking_time=MATCHMAKING_SECONDS, request_timeout=REQUEST_SECONDS, compression=CODECS[options.variant](),
        allreduce_timeout=PATIENCE, next_chunk_timeout=PATIENCE,
    )  # fmt: skip
    alone = 0
    for step in range(task.steps):
        clock.step_begins()
        task.backward(task.model, inner, step)
        inner.step()
        clock.step_ended()
        if clock.steps % options.inner == 0:
            alone += not average(averager, parameters, base)
            outer.step()
            with torch.no_grad():
                for parameter, value in zip(parameters, base, strict=True):
                    parameter.copy_(value)
    clock.report(task, rounds_alone=alone)
    time.sleep(1)  # the other may still be reading from this one
    averager.shutdown()
    dht.shutdown()


def average(averager: DecentralizedAverager, parameters: list, base: list) -> bool:
    """Each of `base` gets the averaged pseudo-gradient as its gradient; False when no group was found and it is its own."""
    with averager.get_tensors() as tensors, torch.no_grad():
        for tensor, start, now in zip(tensors, base, parameters, strict=True):
            tensor.copy_(start - now)
    try:
        found = averager.step(timeout=PATIENCE)
    except Exception as error:  # noqa: BLE001  (whatever the library makes of a peer that is gone)
        print(f"averaging failed: {error!r}", file=sys.stderr)
        found = None
    with averager.get_tensors() as tensors:
        for tensor, start in zip(tensors, base, strict=True):
            start.grad = tensor.clone()
    return found is not None and len(found) > 1


if __name__ == "__main__":
    given = arguments()
    if given.worker is None:
        meeting = DHT(start=True, host_maddrs=HOST)
        code = launch(given, meet=",".join(map(str, meeting.get_visible_maddrs())))
        meeting.shutdown()
        sys.exit(code)
    work(given)
