"""Checkpoints from strangers: every broken safetensors file ends in a refusal with its code, never in a crash."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from trainer.diloco.tensorfile import Expected, max_bytes, read_tensors, shapes_of, write_tensors
from trainer.protocol.errors import HyperGPUError

EXPECTED = {"values": Expected("F32", (107,))}
CODES = {"artifact.truncated", "artifact.malformed", "artifact.wrong_shape", "artifact.not_finite", "artifact.too_large"}
VALID = write_tensors({"values": torch.arange(107.0)})


def refuse(data: bytes, expected=EXPECTED) -> str:
    with pytest.raises(HyperGPUError) as refusal:
        read_tensors(data, expected)
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
    "one byte short": (VALID[:-1], "truncated"),
    "one byte long": (VALID + b"\0", "malformed"),
    "far too long": (VALID + bytes(10_000), "too_large"),
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
    assert refuse(file("[" * 120_000), many) == "malformed"


def test_tensors_in_another_order_are_still_that_file():
    """safetensors fixes no order of names: other writers may choose their own."""
    data = file(header(b=entry(shape=(1,), offsets=(4, 8)), a=entry(shape=(1,), offsets=(0, 4))), struct.pack("<ff", 1, 2))
    both = {"a": Expected("F32", (1,)), "b": Expected("F32", (1,))}
    assert {name: value.item() for name, value in read_tensors(data, both).items()} == {"a": 1, "b": 2}


def test_the_limit_leaves_no_room_for_a_second_file():
    assert len(VALID) <= max_bytes(EXPECTED) < 2 * len(VALID)


def test_a_file_tells_its_shapes():
    assert shapes_of(VALID) == {"values": (107,)}


@settings(max_examples=300)
@given(position=st.integers(0, 2000), value=st.integers(0, 255), cut=st.integers(0, 40), insert=st.binary(max_size=12))
def test_whatever_is_changed_the_result_is_a_refusal_or_sound_tensors(position, value, cut, insert):
    data = bytearray(VALID)
    position %= len(data)
    data[position] = value
    data[position : position + cut] = insert
    try:
        values = read_tensors(bytes(data), EXPECTED)["values"]
    except HyperGPUError as refusal:
        assert refusal.code in CODES
    else:
        assert values.shape == (107,) and values.dtype == torch.float32 and torch.isfinite(values).all()
    try:
        shapes_of(bytes(data))
    except HyperGPUError as refusal:
        assert refusal.code in CODES


@settings(max_examples=100)
@given(data=st.binary(max_size=600))
def test_random_bytes_are_refused(data):
    refuse(data)
