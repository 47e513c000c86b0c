"""Which values of a chunk were sent: k ascending indices as a string of bits whose length follows from k and the chunk alone.

`packed`      every index in as many bits as the largest needs.
`elias_fano`  the low bits as they are; the high parts as a bitmap in which index i sets bit (high part + i). k indices below n
              take about k (2 + log2(n / k)) bits, where choosing k of n needs k (1.44 + log2(n / k)). Elias 1974, Fano 1971.

Bits are kept one per byte here (0 or 1), with the least significant first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.diloco.tensorfile import refused
from trainer.protocol.wire import Coding, bitmap_bits, largest_bits, low_bits

Array = NDArray[Any]


def write_indices(indices: Array, width: int, coding: Coding) -> Array:
    """(rows, kept) int64, ascending within a row and below `width`, as bits (rows, index_bits) uint8."""
    rows, kept = indices.shape
    if coding == "packed":
        return to_bits(indices, largest_bits(width))
    low = low_bits(width, kept)
    bitmap = np.zeros((rows, bitmap_bits(width, kept, low)), np.uint8)
    np.put_along_axis(bitmap, (indices >> low) + np.arange(kept), 1, axis=1)
    return np.concatenate([to_bits(indices & ((1 << low) - 1), low), bitmap], axis=1)


def read_indices(bits: Array, width: int, kept: int, coding: Coding) -> Array:
    """The indices (rows, kept) int64 in bits from a stranger. Raises HyperGPUError `artifact.malformed`."""
    if coding == "packed":
        indices = from_bits(bits, kept, largest_bits(width))
    else:
        low = low_bits(width, kept)
        bitmap = bits[:, kept * low :]
        if (bitmap.sum(axis=1) != kept).any():
            raise refused("malformed", "A chunk has more or fewer indices than it should.")
        places = np.nonzero(bitmap)[1].reshape(-1, kept)
        indices = (places - np.arange(kept)) << low | from_bits(bits[:, : kept * low], kept, low)
    if (indices[:, -1] >= width).any():
        raise refused("malformed", "An index points beyond its chunk.")
    if (indices[:, 1:] <= indices[:, :-1]).any():
        raise refused("malformed", "The indices of a chunk must ascend, each once.")
    return indices


def to_bits(numbers: Array, width: int) -> Array:
    """(rows, n) numbers of `width` bits as (rows, n * width) bits."""
    return ((numbers[:, :, None] >> np.arange(width)) & 1).astype(np.uint8).reshape(len(numbers), -1)


def from_bits(bits: Array, count: int, width: int) -> Array:
    """The inverse of to_bits, int64."""
    numbers = np.zeros((len(bits), count), np.int64)
    for place in range(width):
        numbers |= bits[:, place::width].astype(np.int64) << place
    return numbers
