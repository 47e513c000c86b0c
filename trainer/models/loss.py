"""One loss for every architecture: cross-entropy over classes, of images or of next bytes."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def mean_loss(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats (scalar, differentiable): all that training needs of `loss_and_correct`."""
    return F.cross_entropy(model(inputs).flatten(0, -2).float(), targets.flatten())


def sample_losses(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sample in nats, (batch,); of a sequence the mean over its positions. Logits as below."""
    logits = model(inputs)
    each = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="none")
    return each.view(len(targets), -1).mean(1)


def loss_and_correct(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats (scalar, differentiable) and the number of right predictions (scalar int64).

    Logits are (batch, classes) for targets (batch,), or (batch, length, classes) for targets (batch, length).
    """
    logits = model(inputs).flatten(0, -2).float()
    targets = targets.flatten()
    return F.cross_entropy(logits, targets), (logits.argmax(-1) == targets).sum()
