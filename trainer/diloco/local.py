"""The inner loop: H local steps on a node's shard, and the pseudo-gradient they make."""

from __future__ import annotations

import math
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.data import Dataset, SampleInfo, shard_batches
from trainer.diloco.flat import Shapes, count_of, flatten, unflatten
from trainer.diloco.fragments import Own
from trainer.diloco.inner import inner_optimizers, learning_rate, recompute_activations
from trainer.models import build_model, mean_loss, parameter_shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import InnerSpec, JobSpec

SEEDS = 10_007
"""More than the steps of an order: dropout and the like are drawn for each step of its own, so that a segment can be replayed."""
MOMENTS = {"first": ("exp_avg", "momentum_buffer"), "second": ("exp_avg_sq",)}
"""Names of an optimizer's moments in `torch.optim`: AdamW has both, Muon the first."""


def default_device() -> torch.device:
    """The current CUDA device when there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def device_class(device: torch.device) -> str:
    """Machines of one class drift alike when they compute the same, such as cpu-x86_64-avx512-torch2.13 or
    cuda-NVIDIA-H100-PCIe-sm90-torch2.13: replay audits are calibrated by it. No more than 80 characters."""
    version = "torch" + ".".join(torch.__version__.split(".")[:2])
    if device.type != "cuda":
        return f"cpu-{platform.machine()}-{torch.backends.cpu.get_cpu_capability().lower()}-{version}"
    major, minor = torch.cuda.get_device_capability(device)
    return f"cuda-{torch.cuda.get_device_name(device).replace(' ', '-')[:48]}-sm{major}{minor}-{version}"


class NodeState:
    """What a node keeps between the rounds of one job: the resident model, its optimizers' moments (and how many steps they
    have seen), the error feedback (n,), and with fragments in turn where its `own` parameters are.

    Throwing the moments away each round costs about 0.1 nats on a small language model, more than any encoding here;
    losing them now and then (a crash) costs nothing, so they are never stored or sent.
    """

    def __init__(self, spec: JobSpec, sample: SampleInfo, *, device: torch.device | None = None) -> None:
        self.spec, self.device = spec, device or default_device()
        self.model = self.place(build_model(spec.model, sample, seed=spec.seed))
        self.shapes: Shapes = parameter_shapes(self.model)
        self.count = count_of(self.shapes)
        self.error: Tensor | None = None
        self.own: Own | None = None
        self.forget()

    def forget(self) -> None:
        """A fresh optimizer, as after a crash."""
        self.optimizers, self.steps = inner_optimizers(self.model, self.spec.inner), 0

    def place(self, model: nn.Module) -> nn.Module:
        """The model on its device; `loss(inputs, targets)` is its mean loss from then on."""
        model.to(self.device)
        if self.spec.inner.activation_checkpointing:
            recompute_activations(model)
        self.loss: Callable[[Tensor, Tensor], Tensor] = partial(mean_loss, model)
        if self.spec.inner.compile and self.device.type == "cuda":
            self.compile(model)
        return model

    def compile(self, model: nn.Module) -> None:
        self.loss = torch.compile(self.loss)

    def params(self, *, pinned: bool = False) -> Tensor:
        """The resident model's parameters now: (n,) fp32 on the CPU, a copy; `pinned` as in `flatten`."""
        return flatten({name: self.whole(value) for name, value in self.model.named_parameters()}, pinned=pinned)

    @torch.no_grad()
    def load(self, params: Tensor) -> None:
        """Parameters (n,) into the resident model. Raises HyperGPUError `artifact.wrong_shape` when they are of another one."""
        if params.shape != (self.count,):
            raise HyperGPUError("artifact.wrong_shape", "The base does not hold this model's parameters.")
        values = unflatten(params, self.shapes)
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.placed(values[name], parameter))

    def batch(self, samples: Tensor) -> Tensor:
        """Samples on the device; a GPU fetches them while the host goes on."""
        return samples.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else samples

    def placed(self, value: Tensor, parameter: Tensor) -> Tensor:
        """`value`, which belongs to `parameter`, on the device."""
        return value.to(self.device)

    def whole(self, value: Tensor) -> Tensor:
        """What `placed` gave, back."""
        return value

    def reading(self, loss: Tensor, norm: Tensor) -> Tensor:
        """(2,): loss and gradient norm of the whole batch."""
        return torch.stack((loss, norm))


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
    first: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_segment: Callable[[NodeState, int], None] | None = None,
) -> LocalResult:
    """Train from `base` (n,) fp32 as `order` says; `on_step(step, loss)` after each step (on a GPU: one step later),
    `should_stop()` before each, `on_segment(state, steps_done)` before the first step, after every `audit.stride` of them, and
    after the last. With `first`, the order's steps before that one were done already: `base` is where they led, and the result
    is of the others.

    The same state, order, base and data give the same result on the same machine's CPU; some GPU kernels add in no fixed order.
    An early stop returns what was done (perhaps nothing: `steps_done` 0). Raises HyperGPUError `training.not_finite` (the
    optimizer starts afresh then) and `artifact.wrong_shape` when `base` is not of this model.
    """
    started = time.monotonic()
    state.load(base)
    steps = range(first, order.steps)
    losses = train(state, order, dataset, steps, on_step=on_step, should_stop=should_stop, on_segment=on_segment)
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
    """Steps `steps` of `order` from where `state` is: all of them, or (after `restore`) a segment again. Their losses."""
    inner, stride = order.spec.inner, order.spec.audit.stride
    batches = shard_batches(
        dataset.train, shard=order.shard, shards=order.shards, seed=order.seed, first=steps.start, steps=len(steps),
        batch_size=inner.batch_size,
    )  # fmt: skip
    losses: list[float] = []
    unread: deque[Reading] = deque()

    def read(ahead: int) -> None:
        """The steps that ended, but for the last `ahead`."""
        while len(unread) > ahead:
            step = steps.start + len(losses)
            losses.append(unread.popleft().loss(state, step))
            if on_step is not None:
                on_step(step, losses[-1])

    state.model.train()
    if on_segment is not None:
        on_segment(state, steps.start)
    with own_random_state(state.device):
        for step, (inputs, targets) in zip(steps, batches, strict=True):
            if should_stop is not None and should_stop():
                break
            seed_step(order.seed * SEEDS + step, state.device)
            rate = learning_rate(order, step, seen=state.steps)
            unread.append(Reading(local_step(state, state.batch(inputs), state.batch(targets), inner, rate=rate)))
            read(1 if state.device.type == "cuda" else 0)
            if on_segment is not None and (step + 1) % stride == 0:
                on_segment(state, step + 1)
    read(0)
    done = steps.start + len(losses)
    if on_segment is not None and losses and done % stride:
        on_segment(state, done)
    return losses


def local_step(state: NodeState, inputs: Tensor, targets: Tensor, spec: InnerSpec, *, rate: float) -> Tensor:
    """One step at learning rate `rate`, with the gradient clipped to `clip_norm`. Loss and gradient norm before it: (2,) fp32
    on the device."""
    state.model.zero_grad()
    loss = gradient(state, inputs, targets, spec)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), spec.clip_norm)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    state.steps += 1
    return state.reading(loss, norm)


def gradient(state: NodeState, inputs: Tensor, targets: Tensor, spec: InnerSpec) -> Tensor:
    """Adds the gradient of the batch's mean loss to the parameters', a micro-batch at a time; that loss."""
    size = spec.micro_batch or len(inputs)
    total = torch.zeros((), device=state.device)
    for some, wanted in zip(inputs.split(size), targets.split(size), strict=True):
        with torch.autocast(state.device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
            loss = state.loss(some, wanted) * (len(some) / len(inputs))
        loss.backward()
        total += loss.detach()
    return total


class Reading:
    """Loss and gradient norm of a step, on their way to the host. A GPU is given its next step before they are asked for."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.arrived = values, None
        if values.device.type == "cuda":
            self.values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def loss(self, state: NodeState, step: int) -> float:
        """Raises HyperGPUError `training.not_finite`; `state` has a fresh optimizer then."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm = self.values.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            state.forget()
            message = f"The loss or its gradient is not a number at step {step}: lower the learning rate."
            raise HyperGPUError("training.not_finite", message, step=step)
        return loss


class Snapshot(NamedTuple):
    """Copies of parameters, first and second moments, (n,) fp32 each, and the steps that the optimizer has seen. From a GPU they
    are under way until `arrived`; it takes its next steps meanwhile."""

    params: Tensor
    first: Tensor
    second: Tensor
    seen: int
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, state: NodeState) -> Snapshot:
        pinned = state.device.type == "cuda"
        params = state.params(pinned=pinned)
        vectors = optimizer_vectors(state, pinned=pinned)
        arrived = torch.cuda.Event() if pinned else None
        if arrived is not None:
            arrived.record()
        return cls(params, vectors["first"], vectors["second"], state.steps, arrived)

    def wait(self) -> None:
        if self.arrived is not None:
            self.arrived.synchronize()


def optimizer_vectors(state: NodeState, *, pinned: bool = False) -> dict[str, Tensor]:
    """{"first": (n,), "second": (n,)}: moments as flat fp32 CPU vectors. Zeros before the first step, and second moments of
    what Muon moves are zeros always. `pinned` as in `flatten`."""
    held: dict[Tensor, dict[str, Tensor]] = {p: values for o in state.optimizers for p, values in o.state.items()}
    vectors = {}
    for kind, keys in MOMENTS.items():
        tensors = {}
        for name, parameter in state.model.named_parameters():
            found = [value for key, value in held.get(parameter, {}).items() if key in keys]
            tensors[name] = state.whole(found[0]) if found else torch.zeros(state.shapes[name])
        vectors[kind] = flatten(tensors, pinned=pinned)
    return vectors


@torch.no_grad()
def restore(state: NodeState, params: Tensor, vectors: dict[str, Tensor], steps: int) -> None:
    """Put the node where a snapshot was taken: parameters (n,), what `optimizer_vectors` gave, and the steps it had seen."""
    state.load(params)
    first, second = (unflatten(vectors[kind], state.shapes) for kind in MOMENTS)
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    for optimizer in state.optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            one, two = (state.placed(v[names[parameter]], parameter).clone() for v in (first, second))
            optimizer.state[parameter] = (
                {"step": torch.tensor(float(steps), device=state.device), "exp_avg": one, "exp_avg_sq": two}
                if isinstance(optimizer, torch.optim.AdamW)
                else {"momentum_buffer": one}
            )
    state.steps = steps


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """The random state of everything else is left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_step(seed: int, device: torch.device) -> None:
    """Cheaper than `torch.manual_seed`, which looks for devices that are not here."""
    torch.default_generator.manual_seed(seed % 2**63)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed % 2**63)
