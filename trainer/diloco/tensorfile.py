"""Tensors as safetensors bytes, and a strict reader for bytes from strangers.

The safetensors library is safe to parse with but takes more than it should (duplicate keys, 200,000 empty tensors,
metadata, other dtypes), so the header is checked here against what is expected, before the library sees it.
Format: https://github.com/safetensors/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from trainer.protocol.errors import HyperGPUError

MAX_HEADER_BYTES = 256 * 1024
DTYPES = {"F32": torch.float32}


class Expected(NamedTuple):
    """One tensor that must be in the file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return DTYPES[self.dtype].itemsize * math.prod(self.shape)


def write_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The same tensors give the same bytes: names sorted, no metadata."""
    return save({name: tensors[name].contiguous() for name in sorted(tensors)})


def read_tensors(data: bytes, expected: Mapping[str, Expected]) -> dict[str, Tensor]:
    """Exactly the expected tensors, finite.

    Raises HyperGPUError `artifact.too_large`, `artifact.truncated`, `artifact.malformed`, `artifact.wrong_shape`
    (names, dtypes or shapes) or `artifact.not_finite`.
    """
    header, payload = read_header(data, expected)
    check_entries(header, expected)
    check_offsets(header, expected, payload)
    tensors = load(data)
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    return tensors


def shapes_of(data: bytes) -> dict[str, tuple[int, ...]]:
    """Names and shapes as a file announces them; `read_tensors` with them is still strict. Raises HyperGPUError
    `artifact.truncated`, `artifact.malformed`."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise refused("truncated", "The file ends within its header.")
    try:
        return {name: tuple(map(int, entry["shape"])) for name, entry in parse_header(data[8 : 8 + length]).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise refused("malformed", f"The header tells no shapes: {error!r}") from error


def max_bytes(expected: Mapping[str, Expected]) -> int:
    """No file with these tensors is larger: for upload limits."""
    return 8 + header_limit(expected) + sum(entry.size for entry in expected.values())


def header_limit(expected: Mapping[str, Expected]) -> int:
    """Room for each name, dtype, shape and pair of offsets, with padding."""
    return min(MAX_HEADER_BYTES, 64 + sum(len(json.dumps(name)) + 128 + 20 * len(e.shape) for name, e in expected.items()))


def read_header(data: bytes, expected: Mapping[str, Expected]) -> tuple[dict[str, Any], int]:
    """The header as JSON, and how many bytes follow it."""
    if len(data) > max_bytes(expected):
        raise refused("too_large", f"{len(data)} bytes, but these tensors need at most {max_bytes(expected)}.")
    if len(data) < 8:
        raise refused("truncated", f"{len(data)} bytes are too few for a header.")
    length = int.from_bytes(data[:8], "little")
    if length > header_limit(expected):
        raise refused("malformed", f"A header of {length} bytes is announced; at most {header_limit(expected)} are needed.")
    if len(data) < 8 + length:
        raise refused("truncated", "The file ends within its header.")
    return parse_header(data[8 : 8 + length]), len(data) - 8 - length


def parse_header(header: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise refused("malformed", f"The header is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise refused("malformed", "The header is not a JSON object.")
    return parsed


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise refused("malformed", "A name occurs twice in the header: two readers might disagree.")
    return dict(pairs)


def check_entries(header: dict[str, Any], expected: Mapping[str, Expected]) -> None:
    """Names, dtypes and shapes as expected."""
    if set(header) != set(expected):
        missing, unknown = sorted(set(expected) - set(header))[:8], sorted(set(header) - set(expected))[:8]
        raise refused("wrong_shape", f"The tensors are not those of this job: missing {missing}, unknown {unknown}.")
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise refused("malformed", f"The header entry of {name} must hold dtype, shape and data_offsets.")
        if not all(isinstance(entry[key], list) and all(type(n) is int for n in entry[key]) for key in ("shape", "data_offsets")):
            raise refused("malformed", f"Shape and offsets of {name} must be lists of integers.")
        if entry["dtype"] != expected[name].dtype or tuple(entry["shape"]) != expected[name].shape:
            wanted = f"{expected[name].dtype} {list(expected[name].shape)}"
            raise refused("wrong_shape", f"{name} must be {wanted}, not {str(entry['dtype'])[:16]} {entry['shape'][:8]}.")


def check_offsets(header: dict[str, Any], expected: Mapping[str, Expected], payload: int) -> None:
    """One tensor right behind the other, and nothing behind the last."""
    position = 0
    for name in sorted(header, key=lambda name: (header[name]["data_offsets"], expected[name].size)):
        if header[name]["data_offsets"] != [position, position + expected[name].size]:
            raise refused("malformed", f"The offsets of {name} leave a hole or overlap.")
        position += expected[name].size
    if payload < position:
        raise refused("truncated", f"{payload} bytes of tensors, but {position} are announced.")
    if payload > position:
        raise refused("malformed", f"{payload - position} bytes lie behind the tensors.")


def check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise refused("not_finite", f"{name} holds values that are not finite numbers.")


def refused(reason: str, message: str) -> HyperGPUError:
    return HyperGPUError(f"artifact.{reason}", message)
