"""The outer step: the aggregated pseudo-gradient moves the model (DiLoCo, arXiv:2311.08105), and goes down to every node once.

What moves the model is the step as it was encoded, with the coordinator's own error feedback, so that whoever holds the version
before and the encoded step holds the version after, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.diloco.encoding import decode, encode
from trainer.protocol.spec import JobSpec, OuterSpec


@dataclass(frozen=True, slots=True)
class OuterState:
    """Parameters, Nesterov momentum (None for SGD) and error feedback of the downlink (None unless it is sparse): (n,) fp32."""

    params: Tensor
    momentum: Tensor | None
    error: Tensor | None

    @classmethod
    def start(cls, params: Tensor, spec: JobSpec) -> OuterState:
        momentum = torch.zeros_like(params) if spec.outer.optimizer == "nesterov" else None
        return cls(params, momentum, torch.zeros_like(params) if spec.downlink.kind == "topk" else None)


class OuterStep(NamedTuple):
    """The state after a step, and the file that takes every node there."""

    state: OuterState
    delta: bytes


def outer_step(state: OuterState, pseudo_gradient: Tensor, spec: JobSpec, *, number: int) -> OuterStep:
    """One step in round `number`; nothing given is changed. Nesterov is that of `torch.optim.SGD` (Sutskever et al. 2013):
    m = momentum * m + g, step = learning_rate * (g + momentum * m). The same arguments give the same bits on every machine."""
    gradient = pseudo_gradient.double()
    momentum, direction = state.momentum, gradient
    if state.momentum is not None:
        momentum = torch.add(torch.mul(state.momentum.double(), spec.outer.momentum), gradient).float()
        direction = torch.add(torch.mul(momentum.double(), spec.outer.momentum), gradient)
    step = torch.mul(direction, learning_rate(spec.outer, number, spec.rounds.rounds)).float()
    encoded = encode(step, spec.downlink, error=state.error)
    return OuterStep(OuterState(torch.sub(state.params, encoded.values), momentum, encoded.error), encoded.data)


def guessed(params: Tensor, own: Tensor, spec: JobSpec, *, number: int) -> Tensor:
    """Where round `number` may lead from `params`, if the others' updates were like one's `own` (n,), decoded: the step without
    its momentum and encoding, which a node does not have. Exact, as `outer_step` is."""
    step = torch.mul(own.double(), learning_rate(spec.outer, number, spec.rounds.rounds)).float()
    return torch.sub(params, step)


def learning_rate(spec: OuterSpec, number: int, rounds: int) -> float:
    """Straight from `learning_rate` in the first round to `final_fraction` of it in the last."""
    progress = number / max(1, rounds - 1)
    return spec.learning_rate * (1 - (1 - spec.final_fraction) * min(1.0, progress))


def apply_delta(params: Tensor, delta: bytes, spec: JobSpec) -> Tensor:
    """The next version from the one before: what every node does. Raises HyperGPUError `artifact.*`."""
    return torch.sub(params, decode(delta, spec.downlink, count=params.numel()).values)
