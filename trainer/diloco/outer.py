"""The outer step: the aggregated pseudo-gradient moves the checkpoint (DiLoCo, arXiv:2311.08105)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from trainer.diloco.encoding import Tensors
from trainer.protocol.spec import OuterSpec


@dataclass(frozen=True, slots=True)
class OuterState:
    """Global parameters and the outer momentum, fp32 by name; momentum is empty for SGD and before the first Nesterov step."""

    params: Tensors
    momentum: Tensors = field(default_factory=dict)


def outer_step(state: OuterState, pseudo_gradient: Tensors, spec: OuterSpec) -> OuterState:
    """The state after one step; nothing given is changed. Nesterov is that of `torch.optim.SGD` (Sutskever et al. 2013):
    m = momentum * m + g, p = p - learning_rate * (g + momentum * m)."""
    if spec.optimizer == "sgd":
        direction, momentum = pseudo_gradient, state.momentum
    else:
        momentum = {
            name: torch.add(gradient, state.momentum[name], alpha=spec.momentum) if name in state.momentum else gradient.clone()
            for name, gradient in pseudo_gradient.items()
        }
        direction = {name: torch.add(gradient, momentum[name], alpha=spec.momentum) for name, gradient in pseudo_gradient.items()}
    params = {name: torch.add(value, direction[name], alpha=-spec.learning_rate) for name, value in state.params.items()}
    return OuterState(params, momentum)
