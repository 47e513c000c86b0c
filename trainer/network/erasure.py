"""An erasure code: from `k` plain pieces of equal length up to 256 - k redundant ones; any `k` of all give the plain ones back.

Systematic Reed-Solomon over GF(2^8) with a Cauchy matrix, every square part of which can be inverted (Bloemer et al. 1995, "An
XOR-based erasure-resilient coding scheme"). In plain Python, since web processes load no numpy: multiplying a piece by a constant
is `bytes.translate`, adding two is an exclusive or of two large integers, both at the speed of C. (zfec does the same, but under
the GPL.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

POLYNOMIAL = 0x11D
"""x^8 + x^4 + x^3 + x^2 + 1, of which 2 is a primitive element."""


def powers() -> list[int]:
    """2^0 to 2^254, twice."""
    found, value = [], 1
    for _ in range(255):
        found.append(value)
        value = (value << 1) ^ (POLYNOMIAL if value & 0x80 else 0)
    return found * 2


EXP = powers()
LOG = {value: power for power, value in enumerate(EXP[:255])}


def multiply(one: int, other: int) -> int:
    return EXP[LOG[one] + LOG[other]] if one and other else 0


def inverse(value: int) -> int:
    """Raises KeyError for 0."""
    return EXP[255 - LOG[value]]


def coefficient(pieces: int, index: int, column: int) -> int:
    """Of plain piece `column` in redundant piece `index`, which counts on from `pieces`."""
    return inverse(index ^ column)  # index >= pieces > column: never equal, all distinct


@cache
def times(factor: int) -> bytes:
    """The table of a multiplication, for bytes.translate."""
    return bytes(multiply(factor, value) for value in range(256))


def redundant(pieces: Sequence[bytes], index: int) -> bytes:
    """Redundant piece `index` (len(pieces) to 255) of plain ones of one length."""
    total = 0
    for column, piece in enumerate(pieces):
        total ^= number(piece.translate(times(coefficient(len(pieces), index, column))))
    return total.to_bytes(len(pieces[0]), "little")


def rebuild(found: Mapping[int, bytes], pieces: int) -> list[bytes]:
    """The plain pieces from any `pieces` of all, by index, of one length. Raises ValueError when there are fewer."""
    missing = [index for index in range(pieces) if index not in found]
    used = [index for index in sorted(found) if index >= pieces][: len(missing)]
    if len(used) < len(missing):
        raise ValueError(f"{pieces} pieces are needed, {len(found)} are there")
    length = len(next(iter(found.values())))
    rows = [[coefficient(pieces, index, column) for column in missing] for index in used]
    sums = []
    for index in used:
        total = number(found[index])
        for column in range(pieces):
            if column in found:
                total ^= number(found[column].translate(times(coefficient(pieces, index, column))))
        sums.append(total.to_bytes(length, "little"))
    solved = dict(zip(missing, solve(rows, sums), strict=True))
    return [found[index] if index in found else solved[index] for index in range(pieces)]


def solve(rows: list[list[int]], sums: list[bytes]) -> list[bytes]:
    """The unknowns of a linear system over GF(2^8) by elimination: no pivot of a Cauchy matrix is 0."""
    for place in range(len(rows)):
        factor = inverse(rows[place][place])
        rows[place] = [multiply(factor, value) for value in rows[place]]
        sums[place] = sums[place].translate(times(factor))
        for other in range(len(rows)):
            factor = rows[other][place]
            if other == place or not factor:
                continue
            rows[other] = [value ^ multiply(factor, taken) for value, taken in zip(rows[other], rows[place], strict=True)]
            sums[other] = added(sums[other], sums[place].translate(times(factor)))
    return sums


def added(one: bytes, other: bytes) -> bytes:
    return (number(one) ^ number(other)).to_bytes(len(one), "little")


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")
