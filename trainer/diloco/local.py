"""The inner loop: H local steps on a node's shard, and the pseudo-gradient they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data import Dataset, SampleInfo, shard_batches
from trainer.diloco.flat import Shapes, count_of, flatten
from trainer.diloco.inner import inner_optimizer, learning_rate, load_vector, local_step
from trainer.models import build_model, parameter_shapes
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import JobSpec


def default_device() -> torch.device:
    """The current CUDA device when there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


class NodeState:
    """What a node keeps between the rounds of one job: the resident model, its optimizer's moments (and how many steps they
    have seen) and the error feedback (n,).

    Throwing the moments away each round costs about 0.1 nats on a small language model, more than any encoding here;
    losing them now and then (a crash) costs nothing, so they are never stored or sent.
    """

    def __init__(self, spec: JobSpec, sample: SampleInfo, *, device: torch.device | None = None) -> None:
        self.device = device or default_device()
        self.model = build_model(spec.model, sample, seed=spec.seed).to(self.device)
        self.shapes: Shapes = parameter_shapes(self.model)
        self.count = count_of(self.shapes)
        self.optimizer = inner_optimizer(self.model, spec.inner)
        self.steps = 0
        self.error: Tensor | None = None

    def params(self) -> Tensor:
        """The resident model's parameters now: (n,) fp32 on the CPU, a copy."""
        return flatten(dict(self.model.named_parameters()))


@dataclass(frozen=True, slots=True)
class LocalResult:
    """`pseudo_gradient` is start minus end, (n,) fp32 on the CPU; `losses` one per step, in nats; `units` samples processed."""

    pseudo_gradient: Tensor
    losses: list[float]
    steps_done: int
    units: int
    seconds: float


def run_local_steps(
    state: NodeState,
    order: WorkOrder,
    base: Tensor,
    dataset: Dataset,
    *,
    on_step: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_segment: Callable[[NodeState, int], None] | None = None,
) -> LocalResult:
    """Train from `base` (n,) fp32 as `order` says; `on_step(step, loss)` after each step, `should_stop()` before each,
    `on_segment(state, steps_done)` before the first step, after every `audit.stride` of them, and after the last.

    The same state, order, base and data give the same result on the same machine. An early stop returns what was done
    (perhaps nothing: `steps_done` 0). Raises HyperGPUError `training.not_finite` (the optimizer starts afresh then) and
    `artifact.wrong_shape` when `base` is not of this model.
    """
    started = time.monotonic()
    load_vector(state, base)
    losses = train(state, order, dataset, range(order.steps), on_step=on_step, should_stop=should_stop, on_segment=on_segment)
    done = len(losses)
    return LocalResult(base - state.params(), losses, done, done * order.spec.inner.batch_size, time.monotonic() - started)


def train(
    state: NodeState,
    order: WorkOrder,
    dataset: Dataset,
    steps: range,
    *,
    on_step: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_segment: Callable[[NodeState, int], None] | None = None,
) -> list[float]:
    """Steps `steps` of `order`, from wherever `state` is: all of them, or (after `inner.restore`) a segment again. Losses."""
    inner, stride = order.spec.inner, order.spec.audit.stride
    batches = shard_batches(
        dataset.train, shard=order.shard, shards=order.shards, seed=order.seed, first=steps.start, steps=len(steps),
        batch_size=inner.batch_size,
    )  # fmt: skip
    losses: list[float] = []
    state.model.train()
    if on_segment is not None:
        on_segment(state, steps.start)
    for step, (inputs, targets) in zip(steps, batches, strict=True):
        if should_stop is not None and should_stop():
            break
        rate = learning_rate(order, step, seen=state.steps)
        with seeded(order.seed, step, state.device):
            loss = local_step(state, inputs.to(state.device), targets.to(state.device), inner, rate=rate, step=step)
        losses.append(loss)
        if on_step is not None:
            on_step(step, loss)
        if on_segment is not None and ((step + 1) % stride == 0 or step + 1 == steps.stop):
            on_segment(state, step + 1)
    return losses


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Dropout and the like follow order and step; the random state of everything else is left as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed * 10_007 + step)
        yield
