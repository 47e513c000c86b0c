"""What the inner loop is made of: its optimizers, its learning rate, and the parts of a model that are treated alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import InnerSpec

BETAS = (0.9, 0.95)
WSD_DECAY = 0.2
"""Part of the job, at its end, in which `wsd` goes down (Hu et al. 2024, arXiv:2404.06395)."""


def inner_optimizers(model: nn.Module, spec: InnerSpec) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2017) for all parameters, or for what Muon leaves; norms and biases do not decay.

    Muon (Jordan et al. 2024; as DiLoCo's inner optimizer: MuLoCo, arXiv:2505.23725) moves a matrix by its momentum made
    orthogonal, here scaled to the length of an AdamW step (Liu et al. 2025, arXiv:2502.16982), so that one learning rate
    and one weight decay serve both. 200 steps of a byte GPT end at 2.40 nats with Muon at 1e-2 (2.47 at 2e-3), and at 2.53 with
    AdamW at 2e-3 (2.56 at 4e-3), of one seed; on a CPU a step takes 1.45 times as long.
    """
    muon = hidden_matrices(model) if spec.optimizer == "muon" else []
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in muon)]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        optimizers.append(
            torch.optim.Muon(muon, lr=spec.learning_rate, weight_decay=spec.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    if rest:
        optimizers.append(torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.learning_rate, betas=BETAS, fused=True))
    return optimizers


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Two-dimensional weights but for embeddings and the head, which is the last one unless a block holds that."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    inside = [p for block in blocks(model) for p in block.parameters()]
    matrices = [p for p in model.parameters() if p.dim() == 2 and not any(p is weight for weight in embeddings)]
    if matrices and not any(matrices[-1] is p for p in inside):
        matrices.pop()
    return matrices


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts of a model, such as the layers of a transformer: outermost elements of module lists and sequences
    that consist of several modules themselves."""
    listed = isinstance(model, nn.ModuleList | nn.Sequential)
    for child in model.children():
        if listed and next(child.children(), None) is not None:
            yield child
        else:
            yield from blocks(child)


def recompute_activations(model: nn.Module) -> None:
    """Blocks keep their inputs only and run forward again in the backward pass (Chen et al. 2016, arXiv:1604.06174)."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


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
