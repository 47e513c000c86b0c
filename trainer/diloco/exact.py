"""Arithmetic that gives the same bits on every machine.

Sums of floating-point numbers depend on their order, and their order on the width of a processor's vectors. So sums are taken
over integers, which add up exactly in any order; what remains in floating point is elementwise, one rounding an operation
(IEEE 754), never fused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GRID_BITS = 31
"""Fixed-point values are integers below 2**31 in magnitude: finer than the 24 bits of fp32 within 7 bits of the largest."""
WEIGHT_BITS = 20
"""Weights are integers in units of 2**-20. Value times weight, over 2**11 nodes, stays below 2**62."""
SKETCH_BITS = 15
COLUMNS = 1 << 20
"""Values at a time: products of two sketches stay below 2**30, their sums over a block below 2**50, so float64 (53 bits) holds
each partial sum exactly, whatever order the matrix product takes."""


BLOCK = 1 << 23
"""Values of all vectors together in memory at a time, as float64: 64 MiB."""


def exponent_of(vector: Tensor) -> int:
    """The least e with every |value| < 2**e; 0 when all are zero."""
    largest = vector.abs().max().item() if vector.numel() else 0.0
    return math.frexp(largest)[1] if largest else 0


def to_grid(vector: Tensor, exponent: int, bits: int = GRID_BITS) -> Tensor:
    """fp32 or float64 to integers (in float64) on the grid of 2**(exponent - bits), ties to even; |result| <= 2**bits.
    Scaling by powers of two is exact."""
    return torch.mul(vector.double(), math.ldexp(1.0, bits - exponent)).round_()


def gram(vectors: Sequence[Tensor]) -> list[list[float]]:
    """Dot products between all `vectors` (n,) fp32, each rounded to 15 bits below its own largest magnitude.

    Sums of integers, scaled at the end: equal on every machine, whatever order a matrix product takes.
    """
    exponents = [exponent_of(vector) for vector in vectors]
    totals = [[0] * len(vectors) for _ in vectors]
    columns = min(COLUMNS, max(1, BLOCK // max(1, len(vectors))))
    for start in range(0, vectors[0].numel() if vectors else 0, columns):
        parts = zip(vectors, exponents, strict=True)
        block = torch.stack([to_grid(vector[start : start + columns], exponent, SKETCH_BITS) for vector, exponent in parts])
        for row, sums in enumerate((block @ block.T).tolist()):
            totals[row] = [total + int(part) for total, part in zip(totals[row], sums, strict=True)]
    return [
        [math.ldexp(total, one + other - 2 * SKETCH_BITS) for total, other in zip(row, exponents, strict=True)]
        for row, one in zip(totals, exponents, strict=True)
    ]


def dot(a: Tensor, b: Tensor) -> float:
    """The dot product of two vectors (n,) fp32 as in `gram`."""
    return gram([a, b])[0][1]
