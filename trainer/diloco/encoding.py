"""How a pseudo-gradient travels: dense fp32, int8, or the largest k values of each chunk with error feedback.

Parameters are flattened and laid behind one another in order of their names; each parameter is cut into chunks of its
own, so the grid depends on the model alone. A file holds, as safetensors:

    dense   values  F32 [n]
    int8    codes   I8  [n]       scales F32 [chunks]     value = code * scale
    topk    codes   I8  [kept]    scales F32 [chunks]     indices U16 [kept], ascending within a chunk

Top k with decayed error feedback and per-chunk scales is SparseLoCo's recipe (arXiv:2508.15706); error feedback is due to
Seide et al. 2014. Every file of a job has the same length, so its size can be refused before it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.diloco.tensorfile import Expected, check_finite, max_bytes, read_tensors, refused, write_tensors
from trainer.protocol.spec import EncodingSpec

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, Tensor]
TOP_CODE = 127
"""Codes lie in -127..127, so that a value and its negative cost the same error."""


class Chunks(NamedTuple):
    """The grid over one parameter: `rows` of `width` values, the last one padded; `kept` values survive in total."""

    numel: int
    rows: int
    width: int
    lengths: Tensor
    kept: Tensor


def encode(pseudo_gradient: Tensors, spec: EncodingSpec, *, error: Tensors | None) -> tuple[bytes, Tensors | None]:
    """The file for `pseudo_gradient` (fp32, CPU), and the error to give to the next call (None unless `topk`).

    With `topk`, what is sent is the largest part of error + pseudo-gradient, and the new error is `error_decay` times the
    rest. Raises HyperGPUError `artifact.not_finite`.
    """
    for name, tensor in pseudo_gradient.items():
        check_finite(name, tensor)
    if spec.kind == "dense":
        return write_tensors({"values": flatten(pseudo_gradient)}), None
    if spec.kind == "int8":
        return write_tensors(encode_int8(pseudo_gradient, spec)), None
    wanted = pseudo_gradient if error is None else {name: value + error[name] for name, value in pseudo_gradient.items()}
    data = write_tensors(encode_topk(wanted, spec))
    sent = decode(data, spec, shapes={name: tuple(value.shape) for name, value in wanted.items()})
    return data, {name: spec.error_decay * (value - sent[name]) for name, value in wanted.items()}


def decode(data: bytes, spec: EncodingSpec, *, shapes: Shapes) -> Tensors:
    """The pseudo-gradient (fp32, CPU, by name) in `data`, which a stranger may have written.

    Raises HyperGPUError `artifact.truncated`, `artifact.malformed`, `artifact.wrong_shape`, `artifact.not_finite` or
    `artifact.too_large`.
    """
    tensors = read_tensors(data, expected_tensors(shapes, spec))
    if spec.kind == "dense":
        return unflatten(tensors["values"], shapes)
    if (tensors["scales"] < 0).any():
        raise refused("malformed", "A scale is negative.")
    values = decode_int8(tensors, spec, shapes) if spec.kind == "int8" else decode_topk(tensors, spec, shapes)
    check_finite("a scaled value", values)
    return unflatten(values, shapes)


def max_encoded_bytes(shapes: Shapes, spec: EncodingSpec) -> int:
    """Largest file that `decode` takes for these shapes: the limit for uploads."""
    return max_bytes(expected_tensors(shapes, spec))


def expected_tensors(shapes: Shapes, spec: EncodingSpec) -> dict[str, Expected]:
    grids = [grid(shape, spec) for _, shape in sorted(shapes.items())]
    numel, count = sum(g.numel for g in grids), sum(g.rows for g in grids)
    if spec.kind == "dense":
        return {"values": Expected("F32", (numel,))}
    scales = Expected("F32", (count,))
    if spec.kind == "int8":
        return {"codes": Expected("I8", (numel,)), "scales": scales}
    kept = sum(int(g.kept.sum()) for g in grids)
    return {"codes": Expected("I8", (kept,)), "indices": Expected("U16", (kept,)), "scales": scales}


def grid(shape: tuple[int, ...], spec: EncodingSpec) -> Chunks:
    """Chunks of one parameter. A parameter shorter than `chunk` is one short chunk."""
    numel = math.prod(shape)
    width = min(spec.chunk, numel)
    count = -(-numel // width) if numel else 0
    lengths = torch.full((count,), width, dtype=torch.int64)
    if count:
        lengths[-1] = numel - (count - 1) * width
    return Chunks(numel, count, width, lengths, lengths.clamp(max=spec.k))


def table_of(value: Tensor, chunks: Chunks) -> Tensor:
    """The parameter as (rows, width), padded with zeros."""
    flat = torch.zeros(chunks.rows * chunks.width)
    flat[: chunks.numel] = value.flatten()
    return flat.view(chunks.rows, chunks.width)


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and one scale for each row; the largest magnitude of a row is exact up to rounding."""
    scales = values.abs().amax(1) / TOP_CODE
    codes = (values / scales.where(scales > 0, 1.0)[:, None]).round().clamp(-TOP_CODE, TOP_CODE)
    return codes.to(torch.int8), scales


def encode_int8(tensors: Tensors, spec: EncodingSpec) -> Tensors:
    codes, scales = [], []
    for value, chunks in grids(tensors, spec):
        coded, scale = quantize(table_of(value, chunks))
        codes.append(coded.flatten()[: chunks.numel])
        scales.append(scale)
    return {"codes": torch.cat(codes), "scales": torch.cat(scales)}


def decode_int8(tensors: Tensors, spec: EncodingSpec, shapes: Shapes) -> Tensor:
    lengths = torch.cat([grid(shape, spec).lengths for _, shape in sorted(shapes.items())])
    return tensors["codes"].float() * tensors["scales"].repeat_interleave(lengths)


def encode_topk(tensors: Tensors, spec: EncodingSpec) -> Tensors:
    codes, scales, indices = [], [], []
    for value, chunks in grids(tensors, spec):
        table = table_of(value, chunks)
        magnitude = table.abs()
        magnitude[-1, chunks.lengths[-1] :] = -1  # padding is never among the largest
        chosen = magnitude.topk(min(spec.k, chunks.width), dim=1).indices.sort(dim=1).values
        real = chosen < chunks.lengths[:, None]
        coded, scale = quantize(table.gather(1, chosen) * real)
        codes.append(coded[real])
        indices.append(chosen[real].to(torch.uint16))
        scales.append(scale)
    return {"codes": torch.cat(codes), "indices": torch.cat(indices), "scales": torch.cat(scales)}


def decode_topk(tensors: Tensors, spec: EncodingSpec, shapes: Shapes) -> Tensor:
    chunks = [grid(shape, spec) for _, shape in sorted(shapes.items())]
    lengths, kept = torch.cat([c.lengths for c in chunks]), torch.cat([c.kept for c in chunks])
    owner = torch.repeat_interleave(torch.arange(len(kept)), kept)
    index = tensors["indices"].long()
    if (index >= lengths[owner]).any():
        raise refused("malformed", "An index points beyond its chunk.")
    if ((index.diff() <= 0) & (owner.diff() == 0)).any():
        raise refused("malformed", "The indices of a chunk must ascend, each once.")
    values = torch.zeros(int(lengths.sum()))
    starts = lengths.cumsum(0) - lengths
    values[starts[owner] + index] = tensors["codes"].float() * tensors["scales"][owner]
    return values


def grids(tensors: Tensors, spec: EncodingSpec) -> Iterator[tuple[Tensor, Chunks]]:
    return ((value, grid(tuple(value.shape), spec)) for _, value in sorted(tensors.items()))


def flatten(tensors: Tensors) -> Tensor:
    return torch.cat([value.flatten() for _, value in sorted(tensors.items())])


def unflatten(values: Tensor, shapes: Shapes) -> Tensors:
    ordered = sorted(shapes.items())
    parts = values.split([math.prod(shape) for _, shape in ordered])
    return {name: part.view(shape) for (name, shape), part in zip(ordered, parts, strict=True)}
