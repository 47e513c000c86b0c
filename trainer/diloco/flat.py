"""Parameters as one flat fp32 vector, in order of their names: what is encoded, aggregated, hashed and stepped.

Names and shapes matter only where a model or a checkpoint file is at hand; between them everything is elementwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, Tensor]


def count_of(shapes: Shapes) -> int:
    """Parameters in total."""
    return sum(math.prod(shape) for shape in shapes.values())


def flatten(tensors: Mapping[str, Tensor], *, pinned: bool = False) -> Tensor:
    """(n,) fp32 on the CPU; a copy. `pinned`: on its way there from a GPU that goes on meanwhile; it has come when an event that
    is recorded now on the current stream has."""
    parts = [value.detach() for _, value in sorted(tensors.items())]
    if not pinned:
        return torch.cat([part.to("cpu", torch.float32).flatten() for part in parts]) if parts else torch.zeros(0)
    whole = torch.empty(sum(part.numel() for part in parts), pin_memory=True)
    for part, place in zip(parts, whole.split([part.numel() for part in parts]), strict=True):
        place.view(part.shape).copy_(part, non_blocking=True)
    return whole


def unflatten(vector: Tensor, shapes: Shapes) -> Tensors:
    """Views into `vector` (n,), by name."""
    ordered = sorted(shapes.items())
    parts = vector.split([math.prod(shape) for _, shape in ordered])
    return {name: part.view(shape) for (name, shape), part in zip(ordered, parts, strict=True)}
