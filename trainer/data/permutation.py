"""Shuffles that every machine computes alike."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def permutation(size: int, *seed: object) -> Tensor:
    """A permutation of 0..size-1 (int64) fixed by `seed`, whatever the torch or NumPy release.

    NumPy's `RandomState` stream is frozen (NEP 19); those of `torch.Generator` and `numpy.random.Generator` are not.
    """
    return torch.from_numpy(stream(*seed).permutation(size).astype(np.int64))


def places(size: int, count: int, *seed: object) -> Tensor:
    """`count` of 0..size-1 (int64), drawn with replacement: takes no memory for the others."""
    return torch.from_numpy(stream(*seed).randint(0, size, count, dtype=np.int64))


def stream(*seed: object) -> np.random.RandomState:
    digest = hashlib.sha256(":".join(str(part) for part in seed).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))
