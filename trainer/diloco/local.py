"""The inner loop: H local AdamW steps on a node's shard, and the pseudo-gradient they make."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data import Dataset, SampleInfo, shard_batches
from trainer.diloco.encoding import Shapes, Tensors
from trainer.models import build_model, loss_and_correct, parameter_shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import InnerSpec, JobSpec

BETAS = (0.9, 0.95)
WARM_UP_STEPS = 20
"""Steps over which a fresh AdamW comes to its learning rate; its first moments say little. At 3e-3 a byte GPT ends 600 steps
at a loss of 2.11 nats with it and 2.33 without; digits do not notice."""


def default_device() -> torch.device:
    """The current CUDA device when there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


class NodeState:
    """What a node keeps between the rounds of one job: the resident model, AdamW's moments (and how many steps they have seen)
    and the error feedback.

    Throwing the moments away each round costs about 0.1 nats on a small language model, more than any encoding here;
    losing them now and then (a crash) costs nothing, so they are never stored or sent.
    """

    def __init__(self, spec: JobSpec, sample: SampleInfo, *, device: torch.device | None = None) -> None:
        self.device = device or default_device()
        self.model = build_model(spec.model, sample, seed=spec.seed).to(self.device)
        self.shapes: Shapes = parameter_shapes(self.model)
        self.optimizer = inner_optimizer(self.model, spec.inner)
        self.steps = 0
        self.error: Tensors | None = None


@dataclass(frozen=True, slots=True)
class LocalResult:
    """`pseudo_gradient` is start minus end (fp32, CPU); `losses` one per step, in nats; `units` samples processed."""

    pseudo_gradient: Tensors
    losses: list[float]
    steps_done: int
    units: int
    seconds: float


def inner_optimizer(model: nn.Module, spec: InnerSpec) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017); matrices decay, norms and biases do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.learning_rate, betas=BETAS, fused=True)


def run_local_steps(
    state: NodeState,
    order: WorkOrder,
    base: Tensors,
    dataset: Dataset,
    *,
    on_step: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LocalResult:
    """Train from `base` as `order` says; `on_step(step, loss)` after each step, `should_stop()` before each.

    The same state, order, base and data give the same result on the same machine. An early stop returns what was done
    (perhaps nothing: `steps_done` 0). Raises HyperGPUError `training.not_finite` (AdamW starts afresh then) and
    `artifact.wrong_shape` when `base` is not of this model.
    """
    started = time.monotonic()
    inner = order.spec.inner
    load_params(state, base)
    batches = shard_batches(
        dataset.train, shard=order.shard, shards=order.shards, seed=order.seed, steps=inner.steps, batch_size=inner.batch_size
    )
    losses: list[float] = []
    state.model.train()
    with seeded(order.seed, state.device):
        for step, (inputs, targets) in enumerate(batches):
            if should_stop is not None and should_stop():
                break
            losses.append(local_step(state, inputs.to(state.device), targets.to(state.device), inner, step=step))
            if on_step is not None:
                on_step(step, losses[-1])
    moved = {name: base[name] - value.detach().cpu() for name, value in state.model.named_parameters()}
    done = len(losses)
    return LocalResult(moved, losses, done, done * inner.batch_size, time.monotonic() - started)


def local_step(state: NodeState, inputs: Tensor, targets: Tensor, inner: InnerSpec, *, step: int) -> float:
    """One AdamW step with the gradient clipped to `clip_norm`; the loss before it."""
    state.optimizer.zero_grad(set_to_none=True)
    loss, _ = loss_and_correct(state.model, inputs, targets)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), inner.clip_norm)
    value = loss.item()
    if not (math.isfinite(value) and math.isfinite(norm.item())):
        state.optimizer, state.steps = inner_optimizer(state.model, inner), 0
        raise HyperGPUError(
            "training.not_finite", f"The loss or its gradient is not a number at step {step}: lower the learning rate.", step=step
        )
    state.steps += 1
    for group in state.optimizer.param_groups:
        group["lr"] = inner.learning_rate * min(1.0, state.steps / WARM_UP_STEPS)
    state.optimizer.step()
    return value


@torch.no_grad()
def load_params(state: NodeState, base: Tensors) -> None:
    shapes = {name: tuple(value.shape) for name, value in base.items()}
    if shapes != dict(state.shapes):
        raise HyperGPUError("artifact.wrong_shape", "The base checkpoint does not hold this model's parameters.")
    for name, parameter in state.model.named_parameters():
        parameter.copy_(base[name])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and the like follow `seed`; the random state of everything else is left as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
