"""Disjoint shards of the train split, as endless seeded batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.data.permutation import permutation
from trainer.data.sample import Split
from trainer.protocol.errors import HyperGPUError


def shard_indices(split: Split, *, shard: int, shards: int) -> Tensor:
    """Indices of shard `shard` of `shards`: the same in every round, disjoint, together the whole split.

    Raises HyperGPUError `data.no_such_shard` (out of range, or more shards than samples).
    """
    if not 0 <= shard < shards or shards > len(split):
        raise HyperGPUError("data.no_such_shard", f"There is no shard {shard} of {shards} in {len(split)} samples.", shard=shard)
    return permutation(len(split), "shards")[shard::shards]


def shard_batches(
    split: Split, *, shard: int, shards: int, seed: int, steps: int, batch_size: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples of `batch_indices`: `steps` batches of inputs and targets."""
    return map(
        split.take, batch_indices(split, shard=shard, shards=shards, seed=seed, steps=steps, batch_size=batch_size, first=first)
    )


def batch_indices(
    split: Split, *, shard: int, shards: int, seed: int, steps: int, batch_size: int, first: int = 0
) -> Iterator[Tensor]:
    """`steps` batches of exactly `batch_size` indices (int64) of one shard, in an order fixed by `seed`, from batch number
    `first` on.

    A used-up shard starts over in a new order; a batch may lie across that border.
    """
    indices = shard_indices(split, shard=shard, shards=shards)
    queue = torch.empty(0, dtype=torch.int64)
    lap = 0
    for step in range(first + steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, indices[permutation(len(indices), "order", seed, lap)]])
            lap += 1
        if step >= first:
            yield queue[:batch_size]
        queue = queue[batch_size:]
