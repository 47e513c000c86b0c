"""Values in few bits: one scale for a chunk's integer codes, or one or two magnitudes for all kept values of a chunk.

The same input gives the same bytes on every machine: elementwise IEEE operations and integer sums, nothing that depends on
the order of a floating-point sum. Zero has one spelling, so what differs in bytes differs in meaning.

A scale has 16 bits: an fp32 without its sign and its 15 lowest bits, thus 8 bits of exponent and 8 of significand. fp16 has
3 bits more significand, but ends at 6e-8, where pseudo-gradients begin; codes are computed from the rounded scale, so its
rounding costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.diloco.tensorfile import refused

Array = NDArray[Any]
SCALE = np.dtype("<u2")
LEAST_SCALE = 1 << 8
"""2**-126, the smallest normal fp32: scales below it are zero, so that no product is subnormal."""
TOO_LARGE_SCALE = 255 << 8


def write_scales(values: Array) -> Array:
    """fp32 >= 0 rounded to scales (u16), halves up."""
    scales = ((values.view(np.uint32) + np.uint32(0x4000)) >> np.uint32(15)).astype(SCALE)
    return np.where(scales < LEAST_SCALE, SCALE.type(0), scales)


def read_scales(scales: Array) -> Array:
    """fp32 values of scales (u16). Raises HyperGPUError `artifact.not_finite` or `artifact.malformed`."""
    if (scales >= TOO_LARGE_SCALE).any():
        raise refused("not_finite", "A scale is negative, infinite or not a number.")
    if ((scales < LEAST_SCALE) & (scales > 0)).any():
        raise refused("malformed", "A scale is subnormal: it must be zero or at least 2**-126.")
    return scale_values(scales)


def scale_values(scales: Array) -> Array:
    return (scales.astype(np.uint32) << np.uint32(15)).view(np.float32)


def quantize(table: Array, top: int) -> tuple[Array, Array]:
    """Codes -top..top (int8) and one scale (u16) for each row of fp32: a row's largest magnitude gets the code `top`."""
    scales = write_scales(np.abs(table).max(axis=1) / np.float32(top))
    steps = scale_values(scales)[:, None]
    codes = np.rint(table / np.where(steps > 0, steps, np.float32(np.inf)))
    return np.clip(codes, -top, top).astype(np.int8), scales


def dequantize(codes: Array, scales: Array, top: int) -> Array:
    """fp32 (rows, width). Raises HyperGPUError `artifact.not_finite` or `artifact.malformed`."""
    largest = np.maximum(codes.max(axis=1), -codes.min(axis=1).astype(np.int16))
    if (largest != np.where(scales > 0, top, 0)).any():
        raise refused("malformed", f"The largest code of a chunk must be {top}, or 0 where the scale is 0.")
    with np.errstate(over="ignore"):  # the caller refuses what is infinite
        return codes * read_scales(scales)[:, None]


def largest(table: Array, kept: int) -> Array:
    """Indices (rows, kept) of the largest magnitudes of each row of fp32, ascending; of equal ones the first count."""
    magnitudes = np.abs(table).view(np.int32)  # floats >= 0 are ordered as their bits are
    least = np.partition(magnitudes, table.shape[1] - kept, axis=1)[:, -kept, None]
    chosen = magnitudes >= least
    tied = np.flatnonzero(chosen.sum(axis=1) > kept)
    above, equal = magnitudes[tied] > least[tied], magnitudes[tied] == least[tied]
    chosen[tied] = above | (equal & (equal.cumsum(axis=1) <= kept - above.sum(axis=1, keepdims=True)))
    return np.nonzero(chosen)[1].reshape(-1, kept)


def two_levels(values: Array) -> tuple[Array, Array, Array]:
    """Scales (rows, 2), lower first, and for each value of fp32 (rows, kept) whether it is negative and whether it takes the
    higher level (bool). The levels are the means of the two groups with the least squared error (Lloyd 1957, Max 1960)."""
    fixed, exponents = fixed_point(np.abs(values))
    ordered, count = np.sort(fixed, axis=1), fixed.shape[1]
    sums, sizes = ordered.cumsum(axis=1), np.arange(1, count + 1)
    total = sums[:, -1:]
    # Squared error saved by a split behind each value, times a constant. Sums stay below 2**24 * 2**15, products below 2**54.
    gain = (sums * count - sizes * total).astype(np.float64) ** 2 / (sizes * np.maximum(count - sizes, 1))
    high = fixed > np.take_along_axis(ordered, gain.argmax(axis=1)[:, None], axis=1)
    above, sum_above = high.sum(axis=1, keepdims=True), (fixed * high).sum(axis=1, keepdims=True)
    lower = (total - sum_above) // (count - above)
    upper = np.where(above > 0, sum_above // np.maximum(above, 1), lower)
    scales = write_scales(np.ldexp(np.concatenate([lower, upper], axis=1).astype(np.float32), exponents))
    high &= scales[:, :1] < scales[:, 1:]
    return scales, (values < 0) & (np.take_along_axis(scales, high.astype(np.int64), axis=1) > 0), high


def one_level(values: Array) -> tuple[Array, Array]:
    """Scales (rows, 1), the mean magnitude of each row of fp32 (rows, kept), and which values are negative (bool)."""
    fixed, exponents = fixed_point(np.abs(values))
    mean = fixed.sum(axis=1, keepdims=True) // fixed.shape[1]
    scales = write_scales(np.ldexp(mean.astype(np.float32), exponents))
    return scales, (values < 0) & (scales > 0)


def fixed_point(magnitudes: Array) -> tuple[Array, Array]:
    """fp32 >= 0 (rows, n) as integers (int64) below 2**24 times 2**exponent, one exponent (rows, 1) for a row; cut, not
    rounded, so that sums are exact and the same everywhere."""
    bits = magnitudes.view(np.int32)
    exponents = np.maximum(bits >> 23, 1)
    significands = (bits & 0x7FFFFF) | ((bits >> 23 > 0).astype(np.int32) << 23)
    common = exponents.max(axis=1, keepdims=True)
    return (significands >> np.minimum(common - exponents, 31)).astype(np.int64), common - 150


def level_values(scales: Array, negative: Array, high: Array) -> Array:
    """fp32 (rows, kept). Raises HyperGPUError `artifact.not_finite` or `artifact.malformed`."""
    levels = read_scales(scales)
    if (levels[:, 0] > levels[:, 1]).any():
        raise refused("malformed", "The lower level of a chunk is above the higher one.")
    used = high.any(axis=1) & ~high.all(axis=1)
    if (np.where(levels[:, 0] < levels[:, 1], ~used, high.any(axis=1))).any():
        raise refused("malformed", "Two levels must both be used; where they are equal, only the lower is.")
    return signed(np.take_along_axis(levels, high.astype(np.int64), axis=1), negative)


def signed(magnitudes: Array, negative: Array) -> Array:
    """fp32 (rows, kept) from magnitudes (rows, kept) or (rows, 1). Raises HyperGPUError `artifact.malformed`."""
    if (negative & (magnitudes == 0)).any():
        raise refused("malformed", "A zero has a sign.")
    return np.where(negative, -magnitudes, magnitudes)
