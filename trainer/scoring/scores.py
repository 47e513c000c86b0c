"""Held-out scores: what an update does to the loss, and how good a checkpoint is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainer.data import Split
from trainer.data.permutation import permutation
from trainer.diloco.flat import Shapes, unflatten
from trainer.models import loss_and_correct, sample_losses
from trainer.protocol.errors import HyperGPUError
from trainer.scoring.quality import Score

BATCH = 64
"""Samples in one forward pass."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Mean cross-entropy in nats and the part of right predictions (classes of images, next bytes of text)."""

    loss: float
    accuracy: float


def draw_batch(split: Split, *, seed: str, size: int) -> tuple[Tensor, Tensor]:
    """`size` different samples (all of them if there are fewer). `seed` is a hash over the round's commitments, so that
    nobody knows the batch when committing and everybody can draw it again afterwards."""
    return split.take(permutation(len(split), "score", seed)[:size])


def improvement(before: Tensor, after: Tensor) -> Score:
    """From the losses of the same samples at the base and after the update (at `STEP_SCALE`), (samples,) float64 each.

    Raises HyperGPUError `contribution.diverges` if the loss after the update is not a number.
    """
    gains, count = before - after, len(before)
    if not math.isfinite(loss_after := after.mean().item()):
        raise HyperGPUError("contribution.diverges", "The held-out loss after this update is not a number.")
    error = gains.std().item() / math.sqrt(count) if count > 1 else 0.0
    return Score(before.mean().item(), loss_after, gains.mean().item(), error)


@torch.inference_mode()
def each_loss(model: nn.Module, shapes: Shapes, params: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Loss of each sample in nats at `params` (n,): (samples,) float64 on the CPU. `model` lends its architecture (of `shapes`)
    and device; its own parameters are neither used nor changed."""
    device = next(model.parameters()).device
    placed = {name: value.to(device) for name, value in unflatten(params, shapes).items()}
    was_training = model.training
    model.eval()
    parts = [
        sample_losses(lambda batch: functional_call(model, placed, (batch,)), some.to(device), wanted.to(device)).double().cpu()
        for some, wanted in zip(inputs.split(BATCH), targets.split(BATCH), strict=True)
    ]
    model.train(was_training)
    return torch.cat(parts)


def evaluate(model: nn.Module, shapes: Shapes, params: Tensor, split: Split) -> Metrics:
    """Metrics of `params` (n,) over a whole split; `model` as in `each_loss`."""
    return measure_batches(model, unflatten(params, shapes), (split.take(part) for part in torch.arange(len(split)).split(BATCH)))


def measure(model: nn.Module, shapes: Shapes, params: Tensor, inputs: Tensor, targets: Tensor) -> Metrics:
    return measure_batches(model, unflatten(params, shapes), zip(inputs.split(BATCH), targets.split(BATCH), strict=True))


@torch.inference_mode()
def measure_batches(model: nn.Module, params: Mapping[str, Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Metrics:
    device = next(model.parameters()).device
    placed = {name: value.to(device) for name, value in params.items()}
    was_training = model.training
    model.eval()
    loss_sum = correct = predictions = 0.0
    for inputs, targets in batches:
        loss, right = loss_and_correct(
            lambda batch: functional_call(model, placed, (batch,)), inputs.to(device), targets.to(device)
        )
        loss_sum += loss.item() * targets.numel()
        correct += right.item()
        predictions += targets.numel()
    model.train(was_training)
    return Metrics(loss_sum / predictions, correct / predictions)
