"""How vectors of parameters' size travel: the wire format of docs/wire-format.md.

A file is a header of 64 bytes and one record for each chunk of the vector. Its length follows from the number of values and
the specification, so a file of a wrong size is refused before it is read. Decoding and encoding are exact: whoever encodes
the same vector gets the same bytes, on any machine, so a stranger can derive again what a coordinator published.

Top k with decayed error feedback and 2-bit values is SparseLoCo's recipe (arXiv:2508.15706); error feedback is due to Seide
et al. 2014.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.diloco.indices import read_indices, write_indices
from trainer.diloco.tensorfile import refused
from trainer.diloco.values import SCALE, dequantize, largest, level_values, one_level, quantize, read_scales, signed, two_levels
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.wire import HEADER_BYTES, SCALE_BYTES, encoded_bytes, grid, index_bits, record_bytes

Array = NDArray[Any]
MAGIC = b"HGPG"
HEADER = struct.Struct("<4sBBBBIQ12x32s")
KINDS = ("fp32", "bf16", "int8", "int4", "topk")
ONE_LEVEL = len(KINDS) + 1
"""The kind in the header of topk files with one level, which came with version 2; files of the others are of version 1."""
CODINGS = ("packed", "elias_fano")
ZERO_TRACE = bytes(32)
TOP_INT8, TOP_INT4 = 127, 7
"""Codes lie in -top..top, so that a value and its negative cost the same error."""
LIMIT = np.float32(2.0**126)
"""What is encoded lies below, so that no rounding up reaches infinity."""
BLOCK = 2**20
"""About as many values are worked on at once: memory beyond the result stays small."""


@dataclass(frozen=True)
class Header:
    """The first 64 bytes. `kind` and `indices` are numbers of the format; fields that a kind does not use are 0."""

    kind: int
    chunk: int
    k: int
    indices: int
    count: int
    trace: bytes


class Encoded(NamedTuple):
    """A file, the values (n,) fp32 that decoding gives, and the error (n,) for the next call (topk, else None)."""

    data: bytes
    values: Tensor
    error: Tensor | None


class Update(NamedTuple):
    """A decoded file: values (n,) fp32; `sent` (n,) bool, which of them were in it (None: all); the sender's trace root."""

    values: Tensor
    sent: Tensor | None
    trace: bytes


class Part(NamedTuple):
    """`rows` chunks of `width` values: value i of the r-th is value start + r * row_step + i * step of the vector. Their
    records begin at byte `offset`."""

    offset: int
    rows: int
    width: int
    start: int
    row_step: int
    step: int

    def of(self, vector: Array) -> Array:
        """(rows, width): a view into `vector` (n,)."""
        strides = (self.row_step * vector.itemsize, self.step * vector.itemsize)
        return np.lib.stride_tricks.as_strided(vector[self.start :], (self.rows, self.width), strides)


def encode(vector: Tensor, spec: EncodingSpec, *, error: Tensor | None = None, trace: bytes = ZERO_TRACE) -> Encoded:
    """The file for `vector` + `error` (both (n,) fp32 on the CPU).

    `error` is what earlier calls left unsent; kinds and densities may change between calls. With topk the new error is
    `error_decay` times what this file leaves out. Raises HyperGPUError `artifact.not_finite`.
    """
    count = vector.numel()
    data = np.empty(encoded_bytes(count, spec), np.uint8)
    data[:HEADER_BYTES] = np.frombuffer(write_header(header_of(count, spec, trace)), np.uint8)
    given, before = as_array(vector), None if error is None else as_array(error)
    values, after = np.empty(count, np.float32), np.empty(count, np.float32) if spec.kind == "topk" else None
    for part in parts(count, spec):
        wanted = np.ascontiguousarray(part.of(given))
        if before is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused below
                wanted = wanted + part.of(before)
        if not (np.abs(wanted) < LIMIT).all():
            raise refused("not_finite", "The update holds values that are not finite, or beyond 2**126.")
        records = write_records(wanted, spec)
        data[part.offset : part.offset + records.size] = records.ravel()
        part.of(values)[:] = sent = read_records(records, part.width, spec)[0]
        if after is not None:
            part.of(after)[:] = np.float32(spec.error_decay) * (wanted - sent)
    return Encoded(data.tobytes(), torch.from_numpy(values), None if after is None else torch.from_numpy(after))


def decode(data: bytes, spec: EncodingSpec, *, count: int) -> Update:
    """The vector of `count` values in a file that a stranger may have written.

    Two files that are taken never mean the same. Raises HyperGPUError `artifact.truncated`,
    `artifact.too_large`, `artifact.malformed`, `artifact.wrong_encoding`, `artifact.wrong_shape` or `artifact.not_finite`.
    """
    header = read_header(data)
    if header.count != count:
        raise refused("wrong_shape", f"The file holds {header.count} values, but the model has {count}.")
    wanted = header_of(count, spec, header.trace)
    if header != wanted:
        raise refused("wrong_encoding", f"The file's encoding is {described(header)}, but {described(wanted)} is wanted.")
    if len(data) != encoded_bytes(count, spec):
        reason = "truncated" if len(data) < encoded_bytes(count, spec) else "too_large"
        raise refused(reason, f"The file has {len(data)} bytes, but must have {encoded_bytes(count, spec)}.")
    values, sent = np.empty(count, np.float32), np.zeros(count, np.bool_) if spec.kind == "topk" else None
    for part in parts(count, spec):
        size = record_bytes(part.width, spec)
        records = np.frombuffer(data, np.uint8, part.rows * size, part.offset).reshape(part.rows, size)
        part.of(values)[:], indices = read_records(records, part.width, spec)
        if sent is not None:
            np.put_along_axis(part.of(sent), indices, True, axis=1)
    return Update(torch.from_numpy(values), None if sent is None else torch.from_numpy(sent), header.trace)


def header_of(count: int, spec: EncodingSpec, trace: bytes) -> Header:
    kind = KINDS.index(spec.kind) + 1
    chunk = spec.chunk if spec.kind in ("int8", "int4", "topk") else 0
    if spec.kind != "topk":
        return Header(kind, chunk, 0, 0, count, trace)
    return Header(kind if spec.levels == 2 else ONE_LEVEL, chunk, spec.k, CODINGS.index(spec.indices) + 1, count, trace)


def version_of(kind: int) -> int:
    return 2 if kind == ONE_LEVEL else 1


def described(header: Header) -> str:
    return f"kind {header.kind}, chunk {header.chunk}, k {header.k}, indices {header.indices}"


def write_header(header: Header) -> bytes:
    if len(header.trace) != len(ZERO_TRACE):
        raise ValueError(f"a trace root has {len(ZERO_TRACE)} bytes, not {len(header.trace)}")
    log2_chunk = max(header.chunk.bit_length() - 1, 0)
    version = version_of(header.kind)
    return HEADER.pack(MAGIC, version, header.kind, log2_chunk, header.indices, header.k, header.count, header.trace)


def read_header(data: bytes) -> Header:
    """The header of a file from a stranger. Raises HyperGPUError `artifact.truncated`, `artifact.malformed` or
    `artifact.wrong_encoding` (another version)."""
    if len(data) < HEADER_BYTES:
        raise refused("truncated", f"{len(data)} bytes are too few for a header of {HEADER_BYTES}.")
    magic, version, kind, log2_chunk, indices, k, count, trace = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise refused("malformed", "This is not a HyperGPU update: it does not begin with HGPG.")
    if version != version_of(kind):
        raise refused(
            "wrong_encoding", f"The file has version {version} of the format; its kind {kind} has version {version_of(kind)}."
        )
    header = Header(kind, 1 << log2_chunk if log2_chunk else 0, k, indices, count, trace)
    if write_header(header) != data[:HEADER_BYTES]:
        raise refused("malformed", "Reserved bytes of the header must be zero.")
    return header


def parts(count: int, spec: EncodingSpec) -> Iterator[Part]:
    """The chunks in blocks of equal ones.

    Scales want neighbours, which are alike: chunks are consecutive. A fixed k wants chunks that are alike: those of topk are
    dealt like cards, value i to chunk i mod (chunks), so that each holds a part of every parameter, and what is sent are
    nearly the largest values of the whole vector.
    """
    sizes = grid(count, spec)
    chunks = sum(rows for rows, _ in sizes)
    offset, chunk = HEADER_BYTES, 0
    for rows, width in sizes:
        size, step = record_bytes(width, spec), max(1, BLOCK // width)
        for first in range(chunk, chunk + rows, step):
            block = min(step, chunk + rows - first)
            dealt = (first, 1, chunks) if spec.kind == "topk" else (first * spec.chunk, spec.chunk, 1)
            yield Part(offset, block, width, *dealt)
            offset += block * size
        chunk += rows


def write_records(table: Array, spec: EncodingSpec) -> Array:
    """Chunks (rows, width) fp32 as records (rows, record_bytes) uint8."""
    if spec.kind == "fp32":
        return as_bytes(table.astype("<f4"))
    if spec.kind == "bf16":
        return as_bytes(write_bf16(table))
    if spec.kind == "int8":
        codes, scales = quantize(table, TOP_INT8)
        return np.concatenate([as_bytes(scales[:, None]), as_bytes(codes)], axis=1)
    if spec.kind == "int4":
        codes, scales = quantize(table, TOP_INT4)
        return np.concatenate([as_bytes(scales[:, None]), write_nibbles(codes)], axis=1)
    indices = largest(table, min(spec.k, table.shape[1]))
    levels, *marks = (one_level if spec.levels == 1 else two_levels)(np.take_along_axis(table, indices, axis=1))
    bits = np.concatenate([write_indices(indices, table.shape[1], spec.indices), *marks], axis=1)
    return np.concatenate([as_bytes(levels), np.packbits(bits, axis=1, bitorder="little")], axis=1)


def read_records(records: Array, width: int, spec: EncodingSpec) -> tuple[Array, Array]:
    """Chunks (rows, width) fp32 in records from a stranger, and the indices (rows, kept) of what was sent (topk).

    Raises HyperGPUError `artifact.malformed` or `artifact.not_finite`.
    """
    everything = np.empty((len(records), 0), np.int64)
    if spec.kind == "fp32":
        return finite(numbers(records, "<f4")), everything
    if spec.kind == "bf16":
        return finite(read_bf16(numbers(records, "<u2"))), everything
    if spec.kind == "int8":
        return finite(dequantize(records[:, 2:].view(np.int8), numbers(records[:, :2], SCALE)[:, 0], TOP_INT8)), everything
    if spec.kind == "int4":
        codes = read_nibbles(records[:, 2:], width)
        return finite(dequantize(codes, numbers(records[:, :2], SCALE)[:, 0], TOP_INT4)), everything
    kept = min(spec.k, width)
    head = spec.levels * SCALE_BYTES
    ends = np.cumsum([index_bits(width, kept, spec.indices), *[kept] * spec.levels])
    scales, bits = numbers(records[:, :head], SCALE), np.unpackbits(records[:, head:], axis=1, bitorder="little")
    if bits[:, ends[-1] :].any():
        raise refused("malformed", "The bits behind a chunk's last must be zero.")
    indices = read_indices(bits[:, : ends[0]], width, kept, spec.indices)
    negative, *high = (bits[:, at : at + kept].view(np.bool_) for at in ends[:-1])
    table = np.zeros((len(records), width), np.float32)
    values = level_values(scales, negative, *high) if high else signed(read_scales(scales), negative)
    np.put_along_axis(table, indices, values, axis=1)
    return table, indices


def write_bf16(table: Array) -> Array:
    """The upper halves of fp32, rounded to nearest, halves to even."""
    bits = table.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def read_bf16(halves: Array) -> Array:
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def write_nibbles(codes: Array) -> Array:
    """Two codes a byte in two's complement, the first in the low half."""
    even = codes.astype(np.uint8) & 15
    if even.shape[1] % 2:
        even = np.pad(even, ((0, 0), (0, 1)))
    return even[:, ::2] | (even[:, 1::2] << 4)


def read_nibbles(packed: Array, width: int) -> Array:
    codes = np.empty((len(packed), 2 * packed.shape[1]), np.int8)
    codes[:, ::2] = (packed << 4).view(np.int8) >> 4
    codes[:, 1::2] = packed.view(np.int8) >> 4
    if codes[:, width:].any():
        raise refused("malformed", "The half byte behind a chunk's last value must be zero.")
    return codes[:, :width]


def as_array(vector: Tensor) -> Array:
    return vector.detach().to("cpu", torch.float32).contiguous().numpy()


def as_bytes(table: Array) -> Array:
    return np.ascontiguousarray(table).view(np.uint8)


def numbers(records: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(records).view(dtype)


def finite(table: Array) -> Array:
    if not np.isfinite(table).all():
        raise refused("not_finite", "The file holds values that are not finite numbers.")
    return table
