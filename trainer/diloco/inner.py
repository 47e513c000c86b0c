"""One local step: the optimizer, its learning rate, and the gradient it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.diloco.flat import flatten, unflatten
from trainer.models import loss_and_correct
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import InnerSpec

if TYPE_CHECKING:
    from trainer.diloco.local import NodeState

BETAS = (0.9, 0.95)
WSD_DECAY = 0.2
"""Part of the job, at its end, in which `wsd` goes down (Hu et al. 2024, arXiv:2404.06395, take a tenth to a fifth)."""


def inner_optimizer(model: nn.Module, spec: InnerSpec) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017); matrices decay, norms and biases do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.learning_rate, betas=BETAS, fused=True)


def learning_rate(order: WorkOrder, step: int, *, seen: int) -> float:
    """Of step `step` (from 0) of `order`: the schedule at this part of the job, times the warm-up of an optimizer that has
    seen `seen` steps. A node that is asked for fewer steps goes through the same part of the schedule."""
    spec = order.spec.inner
    progress = (order.round + step / order.steps) / order.spec.rounds.rounds
    warm = min(1.0, (seen + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
    return spec.learning_rate * warm * scheduled(spec, progress)


def scheduled(spec: InnerSpec, progress: float) -> float:
    """Factor of the learning rate when `progress` (0 to 1) of the job is done: 1 at its start, `final_fraction` at its end."""
    if spec.schedule == "constant":
        return 1.0
    cosine, wsd = (1 + math.cos(math.pi * progress)) / 2, min(1.0, (1 - progress) / WSD_DECAY)
    height = cosine if spec.schedule == "cosine" else wsd
    return spec.final_fraction + (1 - spec.final_fraction) * height


def local_step(state: NodeState, inputs: Tensor, targets: Tensor, spec: InnerSpec, *, rate: float, step: int) -> float:
    """One step at learning rate `rate`, with the gradient clipped to `clip_norm`; the loss before it, in nats.

    Raises HyperGPUError `training.not_finite`; the optimizer starts afresh then.
    """
    state.optimizer.zero_grad(set_to_none=True)
    loss, _ = loss_and_correct(state.model, inputs, targets)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), spec.clip_norm)
    value = loss.item()
    if not (math.isfinite(value) and math.isfinite(norm.item())):
        state.optimizer, state.steps = inner_optimizer(state.model, spec), 0
        raise HyperGPUError(
            "training.not_finite", f"The loss or its gradient is not a number at step {step}: lower the learning rate.", step=step
        )
    state.steps += 1
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    return value


def optimizer_vectors(state: NodeState) -> dict[str, Tensor]:
    """{"first": (n,), "second": (n,)}: moments as flat fp32 CPU vectors, zeros before the first step."""
    vectors = {}
    for kind, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
        held = {name: state.optimizer.state[p].get(key) for name, p in state.model.named_parameters()}
        vectors[kind] = flatten(
            {name: torch.zeros(state.shapes[name]) if value is None else value for name, value in held.items()}
        )
    return vectors


@torch.no_grad()
def restore(state: NodeState, params: Tensor, vectors: dict[str, Tensor], steps: int) -> None:
    """Put the node where a snapshot was taken: parameters (n,), what `optimizer_vectors` gave, and the steps it had seen."""
    load_vector(state, params)
    first, second = (unflatten(vectors[kind], state.shapes) for kind in ("first", "second"))
    for name, parameter in state.model.named_parameters():
        state.optimizer.state[parameter] = {
            "step": torch.tensor(float(steps), device=state.device),
            "exp_avg": first[name].to(state.device, copy=True),
            "exp_avg_sq": second[name].to(state.device, copy=True),
        }
    state.steps = steps


@torch.no_grad()
def load_vector(state: NodeState, params: Tensor) -> None:
    """Parameters (n,) into the resident model. Raises HyperGPUError `artifact.wrong_shape` when they are of another one."""
    if params.shape != (state.count,):
        raise HyperGPUError("artifact.wrong_shape", "The base does not hold this model's parameters.")
    values = unflatten(params, state.shapes)
    for name, parameter in state.model.named_parameters():
        parameter.copy_(values[name])
