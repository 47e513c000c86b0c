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


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """(n,) fp32 on the CPU; a copy."""
    parts = [value.detach().to("cpu", torch.float32).flatten() for _, value in sorted(tensors.items())]
    return torch.cat(parts) if parts else torch.zeros(0)


def unflatten(vector: Tensor, shapes: Shapes) -> Tensors:
    """Views into `vector` (n,), by name."""
    ordered = sorted(shapes.items())
    parts = vector.split([math.prod(shape) for _, shape in ordered])
    return {name: part.view(shape) for (name, shape), part in zip(ordered, parts, strict=True)}
