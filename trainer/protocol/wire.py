"""Sizes of files in the wire format (docs/wire-format.md): arithmetic on the encoding alone, for whoever plans with bytes."""

from __future__ import annotations

from typing import Literal

from trainer.protocol.spec import EncodingSpec

HEADER_BYTES = 64
SCALE_BYTES = 2
Coding = Literal["elias_fano", "packed"]


def encoded_bytes(count: int, spec: EncodingSpec) -> int:
    """Length of every file with `count` values: also the limit for uploads."""
    return HEADER_BYTES + sum(rows * record_bytes(width, spec) for rows, width in grid(count, spec))


def grid(count: int, spec: EncodingSpec) -> list[tuple[int, int]]:
    """Chunks in order, as (how many, of how many values)."""
    if spec.kind != "topk":
        whole, rest = divmod(count, spec.chunk)
        sizes = [(whole, spec.chunk), (1, rest)]
    else:
        chunks = max(1, -(-count // spec.chunk))
        width, longer = divmod(count, chunks)
        sizes = [(longer, width + 1), (chunks - longer, width)]
    return [(rows, width) for rows, width in sizes if rows and width]


def record_bytes(width: int, spec: EncodingSpec) -> int:
    """Bytes of a chunk of `width` values."""
    if spec.kind == "fp32":
        return 4 * width
    if spec.kind == "bf16":
        return 2 * width
    if spec.kind == "int8":
        return SCALE_BYTES + width
    if spec.kind == "int4":
        return SCALE_BYTES + (width + 1) // 2
    kept = min(spec.k, width)
    return spec.levels * SCALE_BYTES + (index_bits(width, kept, spec.indices) + spec.levels * kept + 7) // 8


def index_bits(width: int, kept: int, coding: Coding) -> int:
    """Bits for `kept` indices below `width`."""
    if coding == "packed":
        return kept * largest_bits(width)
    low = low_bits(width, kept)
    return kept * low + bitmap_bits(width, kept, low)


def largest_bits(width: int) -> int:
    return (width - 1).bit_length()


def low_bits(width: int, kept: int) -> int:
    """floor(log2(width / kept))"""
    return (width // kept).bit_length() - 1


def bitmap_bits(width: int, kept: int, low: int) -> int:
    return kept + ((width - 1) >> low)
