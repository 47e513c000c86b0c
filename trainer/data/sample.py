"""What one sample looks like, and a fixed part of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """Shape of one sample: (channels, height, width) of an image, (length,) of a byte sequence; `classes` to predict."""

    kind: Literal["image", "bytes"]
    shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True, slots=True)
class Split:
    """Part of a dataset in its stored dtype; `take` gives what a model eats.

    Images: inputs (n, channels, height, width) uint8 or float32, targets (n,) int64.
    Bytes: inputs and targets (n, length) uint8, each target the byte that follows its input.
    """

    kind: Literal["image", "bytes"]
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples at `indices` (int64): images as float32 in 0..1 when stored as bytes, byte sequences as int64."""
        inputs, targets = self.inputs[indices], self.targets[indices]
        if self.kind == "bytes":
            return inputs.long(), targets.long()
        return (inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs), targets


@dataclass(frozen=True, slots=True)
class Dataset:
    """`train` is cut into shards, `score` judges contributions, `eval` gives the published metric only."""

    info: SampleInfo
    train: Split
    score: Split
    eval: Split
