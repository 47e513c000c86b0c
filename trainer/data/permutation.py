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
    digest = hashlib.sha256(":".join(str(part) for part in seed).encode()).digest()
    state = np.random.RandomState(np.frombuffer(digest, dtype="<u4"))
    return torch.from_numpy(state.permutation(size).astype(np.int64))
