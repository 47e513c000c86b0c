"""Writes tests/vectors/encodings.json: a vector with its file of every kind, byte for byte, for readers and writers elsewhere.
Run `python -m trainer.diloco.vectors` after a change to the wire format, which is a new version of it: docs/wire-format.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.diloco.encoding import decode, encode
from trainer.protocol.spec import EncodingSpec

PATH = Path(__file__).parents[2] / "tests" / "vectors" / "encodings.json"
COUNT, TRACE = 100, bytes(range(32))
SPECS = (
    EncodingSpec(kind="fp32"),
    EncodingSpec(kind="bf16"),
    EncodingSpec(kind="int8", chunk=64),
    EncodingSpec(kind="int4", chunk=64),
    EncodingSpec(kind="topk", chunk=64, k=8, indices="packed"),
    EncodingSpec(kind="topk", chunk=64, k=8, indices="elias_fano"),
    EncodingSpec(kind="topk", chunk=64, k=3, indices="elias_fano", error_decay=0.5),
    EncodingSpec(kind="topk", chunk=64, k=8, levels=1),
)


def vector() -> Tensor:
    """A chunk of 64 with values that occur more than once, and a short, tiny one with mostly zeros."""
    values = [((31 * i * i + 7 * i) % 201 - 100) * 2.0**-13 for i in range(64)]
    return torch.tensor(values + [(i % 9 == 0) * (i - 50) * 2.0**-60 for i in range(64, COUNT)])


def error() -> Tensor:
    return torch.tensor([((53 * i) % 89 - 44) * 2.0**-15 for i in range(COUNT)])


def vectors() -> dict[str, Any]:
    before = error()
    return {
        "vector": as_hex(vector()),
        "error": as_hex(before),
        "trace": TRACE.hex(),
        "files": [entry(spec, None) for spec in SPECS] + [entry(spec, before) for spec in SPECS if spec.kind == "topk"],
    }


def entry(spec: EncodingSpec, before: Tensor | None) -> dict[str, Any]:
    """Values, errors: fp32, little endian. Sent: a bit for each value, the first in the lowest bit."""
    encoded = encode(vector(), spec, error=before, trace=TRACE)
    sent = decode(encoded.data, spec, count=COUNT).sent
    return {
        "spec": spec.model_dump(mode="json"),
        "error_added": before is not None,
        "file": encoded.data.hex(),
        "values": as_hex(encoded.values),
        "sent": None if sent is None else hex(sum(1 << i for i in sent.nonzero().flatten().tolist())),
        "error": None if encoded.error is None else as_hex(encoded.error),
    }


def as_hex(values: Tensor) -> str:
    return values.numpy().astype("<f4").tobytes().hex()


def render() -> str:
    return json.dumps(vectors(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())
