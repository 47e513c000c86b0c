"""Artifacts from strangers: every broken byte string ends in a refusal with its code, never in a crash or a wrong tensor."""

import json
import struct

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from trainer.diloco.encoding import decode, encode, max_encoded_bytes
from trainer.diloco.tensorfile import Expected, read_tensors
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec

SHAPES = {"a": (10, 10), "b": (7,)}
KINDS = ("dense", "int8", "topk")
CODES = {"artifact.truncated", "artifact.malformed", "artifact.wrong_shape", "artifact.not_finite", "artifact.too_large"}


def spec(kind: str) -> EncodingSpec:
    return EncodingSpec(kind=kind, chunk=64, k=4)


def valid(kind: str) -> bytes:
    generator = torch.Generator().manual_seed(0)
    return encode({name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}, spec(kind), error=None)[0]


def refuse(data: bytes, kind: str = "dense") -> str:
    with pytest.raises(HyperGPUError) as refusal:
        decode(data, spec(kind), shapes=SHAPES)
    assert refusal.value.code in CODES
    return refusal.value.code.removeprefix("artifact.")


def file(header: str | bytes, payload: bytes = bytes(4 * 107)) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + payload


def entry(dtype="F32", shape=(107,), offsets=(0, 428)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(**entries) -> str:
    return json.dumps(entries)


BROKEN = {
    "empty": (b"", "truncated"),
    "seven bytes": (bytes(7), "truncated"),
    "header longer than the file": (struct.pack("<Q", 150) + b"{}", "truncated"),
    "header of 2**63": (struct.pack("<Q", 2**63) + b"{}", "malformed"),
    "one byte short": (valid("dense")[:-1], "truncated"),
    "one byte long": (valid("dense") + b"\0", "malformed"),
    "far too long": (valid("dense") + bytes(10_000), "too_large"),
    "not UTF-8": (file(b"\xff" * 20), "malformed"),
    "not JSON": (file("values"), "malformed"),
    "a list": (file("[]"), "malformed"),
    "nested": (file("[" * 150), "malformed"),
    "a huge integer": (file('{"values":' + "9" * 100 + "}"), "malformed"),
    "no tensor": (file("{}"), "wrong_shape"),
    "other name": (file(header(weights=entry())), "wrong_shape"),
    "metadata": (file(header(values=entry(), __metadata__={})), "wrong_shape"),
    "other dtype": (file(header(values=entry("I32"))), "wrong_shape"),
    "other shape": (file(header(values=entry(shape=(107, 1)))), "wrong_shape"),
    "entry is a number": (file(header(values=7)), "malformed"),
    "entry without offsets": (file(header(values={"dtype": "F32", "shape": [107]})), "malformed"),
    "shape of booleans": (file(header(values=entry(shape=(True,)))), "malformed"),
    "offsets beyond": (file(header(values=entry(offsets=(4, 432)))), "malformed"),
    "offsets of floats": (file(header(values=entry(offsets=(0.0, 428.0)))), "malformed"),
    "name twice": (file(header(values=entry())[:-1] + ", " + header(values=entry())[1:]), "malformed"),
    "NaN": (save({"values": torch.full((107,), float("nan"))}), "not_finite"),
    "infinite": (save({"values": torch.full((107,), float("-inf"))}), "not_finite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_with_its_code(case):
    data, code = BROKEN[case]
    assert refuse(data) == code


def test_a_header_nested_beyond_the_stack_is_refused():
    many = {f"layer.{i}": Expected("F32", (1,)) for i in range(900)}
    with pytest.raises(HyperGPUError) as refusal:
        read_tensors(file("[" * 120_000), many)
    assert refusal.value.code == "artifact.malformed"


def topk(*, codes=None, indices=None, scales=None) -> bytes:
    return save(
        {
            "codes": torch.full((12,), 5, dtype=torch.int8) if codes is None else codes,
            "indices": torch.tensor([0, 1, 2, 3] * 3, dtype=torch.uint16) if indices is None else indices,
            "scales": torch.ones(3) if scales is None else scales,
        }
    )


def indices(*last: int) -> torch.Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 1, 2, 35, *last], dtype=torch.uint16)


LIES = {
    "index beyond a full chunk": (topk(indices=torch.tensor([0, 1, 2, 64] + [0, 1, 2, 3] * 2, dtype=torch.uint16)), "malformed"),
    "index beyond a short chunk": (topk(indices=indices(0, 1, 2, 7)), "malformed"),
    "index twice": (topk(indices=indices(0, 1, 1, 2)), "malformed"),
    "indices out of order": (topk(indices=indices(1, 0, 2, 3)), "malformed"),
    "negative scale": (topk(scales=torch.tensor([1.0, -1.0, 1.0])), "malformed"),
    "scale is NaN": (topk(scales=torch.tensor([1.0, float("nan"), 1.0])), "not_finite"),
    "value overflows": (topk(scales=torch.full((3,), 3e38)), "not_finite"),
    "one value less": (topk(codes=torch.zeros(11, dtype=torch.int8)), "wrong_shape"),
    "int8 file": (valid("int8"), "wrong_shape"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_sparse_file_that_lies_is_refused(case):
    data, code = LIES[case]
    assert refuse(data, "topk") in {code, "too_large"}


def test_the_same_sparse_file_without_lies_is_taken():
    values = decode(topk(indices=indices(0, 1, 2, 6)), spec("topk"), shapes=SHAPES)
    assert values["b"].tolist() == [5, 5, 5, 0, 0, 0, 5] and values["a"].flatten()[99] == 5


def test_a_header_with_tensors_in_another_order_is_still_that_file():
    """safetensors fixes no order of names: other writers may choose their own."""
    scales, codes = torch.ones(3).numpy().tobytes(), bytes(107)
    text = header(codes=entry("I8", (107,), (12, 119)), scales=entry("F32", (3,), (0, 12)))
    assert decode(file(text, scales + codes), spec("int8"), shapes=SHAPES)["a"].abs().sum() == 0


def test_the_upload_limit_leaves_no_room_for_a_second_file():
    for kind in KINDS:
        assert len(valid(kind)) <= max_encoded_bytes(SHAPES, spec(kind)) < 2 * len(valid(kind)) + 1024


@settings(max_examples=400)
@example(kind="topk", position=0, value=255, cut=0, insert=b"")
@given(
    kind=st.sampled_from(KINDS),
    position=st.integers(0, 2000),
    value=st.integers(0, 255),
    cut=st.integers(0, 40),
    insert=st.binary(max_size=12),
)
def test_whatever_is_changed_the_result_is_a_refusal_or_a_sound_update(kind, position, value, cut, insert):
    data = bytearray(valid(kind))
    position %= len(data)
    data[position] = value
    data[position : position + cut] = insert
    try:
        update = decode(bytes(data), spec(kind), shapes=SHAPES)
    except HyperGPUError as refusal:
        assert refusal.code in CODES
    else:
        assert {name: tuple(tensor.shape) for name, tensor in update.items()} == SHAPES
        assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in update.values())


@settings(max_examples=200)
@given(kind=st.sampled_from(KINDS), data=st.binary(max_size=600))
def test_random_bytes_are_refused(kind, data):
    refuse(data, kind)
