"""Files from strangers: every broken byte string ends in a refusal with its code, never in a crash or a wrong vector; and no
two files mean the same."""

import struct

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.diloco.encoding import decode, encode, read_header
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.wire import encoded_bytes

COUNT = 107
CODES = {"truncated", "too_large", "malformed", "wrong_encoding", "wrong_shape", "not_finite"}
SPECS = {
    "fp32": EncodingSpec(kind="fp32"),
    "bf16": EncodingSpec(kind="bf16"),
    "int8": EncodingSpec(kind="int8", chunk=64),
    "int4": EncodingSpec(kind="int4", chunk=64),
    "packed": EncodingSpec(kind="topk", chunk=64, k=5, indices="packed"),
    "elias_fano": EncodingSpec(kind="topk", chunk=64, k=5, indices="elias_fano"),
    "one level": EncodingSpec(kind="topk", chunk=64, k=5, indices="packed", levels=1),
}
kinds = st.sampled_from(list(SPECS))


def valid(kind: str) -> bytes:
    return encode(torch.randn(COUNT, generator=torch.Generator().manual_seed(0)), SPECS[kind]).data


def refuse(data: bytes, kind: str, count: int = COUNT) -> str:
    with pytest.raises(HyperGPUError) as refusal:
        decode(data, SPECS[kind], count=count)
    return refusal.value.code.removeprefix("artifact.")


def changed(kind: str, offset: int, new: bytes) -> bytes:
    data = bytearray(valid(kind))
    data[offset : offset + len(new)] = new
    return bytes(data)


def header(offset: int, new: bytes) -> bytes:
    return changed("int8", offset, new)


HEADERS = {
    "empty": (b"", "truncated"),
    "63 bytes": (valid("int8")[:63], "truncated"),
    "a header alone": (valid("int8")[:64], "truncated"),
    "one byte short": (valid("int8")[:-1], "truncated"),
    "one byte long": (valid("int8") + b"\0", "too_large"),
    "far too long": (valid("int8") + bytes(10_000), "too_large"),
    "other magic": (header(0, b"HGPH"), "malformed"),
    "version 0": (header(4, b"\0"), "wrong_encoding"),
    "version 2": (header(4, b"\2"), "wrong_encoding"),
    "kind 0": (header(5, b"\0"), "wrong_encoding"),
    "another kind": (header(5, b"\4"), "wrong_encoding"),
    "unknown kind": (header(5, b"\xff"), "wrong_encoding"),
    "another chunk": (header(6, b"\7"), "wrong_encoding"),
    "no chunk": (header(6, b"\0"), "wrong_encoding"),
    "a chunk of 2**255": (header(6, b"\xff"), "wrong_encoding"),
    "indices of a dense file": (header(7, b"\1"), "wrong_encoding"),
    "k of a dense file": (header(8, b"\1"), "wrong_encoding"),
    "one value more": (header(12, struct.pack("<Q", COUNT + 1)), "wrong_shape"),
    "2**64 - 1 values": (header(12, b"\xff" * 8), "wrong_shape"),
    "reserved byte": (header(20, b"\1"), "malformed"),
    "last reserved byte": (header(31, b"\1"), "malformed"),
    "safetensors": (struct.pack("<Q", 64) + b"{" * 300, "malformed"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_is_not_the_jobs_is_refused(case):
    data, code = HEADERS[case]
    assert refuse(data, "int8") == code


@pytest.mark.parametrize("kind", SPECS)
def test_no_kind_passes_for_another(kind):
    for other in SPECS:
        if other == kind:
            assert len(decode(valid(other), SPECS[kind], count=COUNT).values) == COUNT
        else:
            assert refuse(valid(other), kind) == "wrong_encoding"


def test_another_density_is_refused():
    for change in ({"k": 6}, {"chunk": 128}, {"indices": "packed"}, {"levels": 1}):
        spec = SPECS["elias_fano"].model_copy(update=change)
        with pytest.raises(HyperGPUError) as refusal:
            decode(valid("elias_fano"), spec, count=COUNT)
        assert refusal.value.code == "artifact.wrong_encoding"


def topk(
    kind="packed", *, levels=(0x3F80 << 1, 0x4000 << 1), indices=(0, 1, 2, 3, 53), signs=0, high=0b10101, second=None, spare=0
):
    """A file whose first chunk (54 values, the even ones) is as told, written bit by bit; the second (53) is told or sound."""
    if kind == "packed":
        stream, bits = sum(index << 6 * i for i, index in enumerate(indices)), 30
    else:  # floor(log2(54 / 5)) = 3 low bits
        stream = sum((index & 7) << 3 * i for i, index in enumerate(indices))
        stream |= sum(1 << ((index >> 3) + i) for i, index in enumerate(indices)) << 15
        bits = 15 + 5 + 6
    stream |= signs << bits | high << (bits + 5) | spare << (bits + 10)
    record = struct.pack("<HH", *levels) + stream.to_bytes((bits + 17) // 8, "little")
    data = valid(kind)
    return data[:64] + record + (data[64 + len(record) :] if second is None else second)


def second(*indices: int) -> bytes:
    stream = sum(index << 6 * i for i, index in enumerate(indices)) | 0b10101 << 35
    return struct.pack("<HH", 0x3F80 << 1, 0x4000 << 1) + stream.to_bytes(5, "little")


@pytest.mark.parametrize("kind", ["packed", "elias_fano"])
def test_the_files_below_are_taken_without_their_lies(kind):
    values = decode(topk(kind, signs=0b00010), SPECS[kind], count=COUNT).values
    assert values[[0, 2, 4, 6, 106]].tolist() == [2, -1, 2, 1, 2]
    values = decode(topk(second=second(0, 1, 2, 3, 52)), SPECS["packed"], count=COUNT).values
    assert values[[1, 105]].tolist() == [2, 2]


ONE, TWO = 0x3F80 << 1, 0x4000 << 1
LIES = {
    "index twice": (topk(indices=(0, 1, 1, 3, 53)), "malformed"),
    "indices out of order": (topk(indices=(1, 0, 2, 3, 53)), "malformed"),
    "index beyond the chunk": (topk(indices=(0, 1, 2, 3, 54)), "malformed"),
    "index beyond the shorter chunk": (topk(second=second(0, 1, 2, 3, 53)), "malformed"),
    "levels swapped": (topk(levels=(TWO, ONE)), "malformed"),
    "levels swapped, one unused": (topk(levels=(TWO, ONE), high=0), "malformed"),
    "equal levels, two names": (topk(levels=(ONE, ONE)), "malformed"),
    "only the higher level": (topk(high=0b11111), "malformed"),
    "only the lower level": (topk(high=0), "malformed"),
    "minus zero": (topk(levels=(0, ONE), signs=0b00010), "malformed"),
    "zeros with a sign": (topk(levels=(0, 0), high=0, signs=1), "malformed"),
    "subnormal level": (topk(levels=(255, ONE)), "malformed"),
    "infinite level": (topk(levels=(ONE, 0xFF00)), "not_finite"),
    "NaN level": (topk(levels=(ONE, 0xFFFF)), "not_finite"),
}
ELIAS_FANO_LIES = {
    "index twice": (topk("elias_fano", indices=(0, 1, 1, 3, 53)), "malformed"),
    "order of low bits": (topk("elias_fano", indices=(1, 0, 2, 3, 53)), "malformed"),
    "six ones": (topk("elias_fano", signs=1 << 2)[:68] + b"\xff" * 5 + topk("elias_fano")[73:], "malformed"),
    "no ones": (topk("elias_fano")[:68] + bytes(5) + topk("elias_fano")[73:], "malformed"),
    "bits behind the last": (topk("elias_fano", spare=1), "malformed"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_sparse_file_that_lies_is_refused(case):
    data, code = LIES[case]
    assert len(data) == encoded_bytes(COUNT, SPECS["packed"]) and refuse(data, "packed") == code


@pytest.mark.parametrize("case", ELIAS_FANO_LIES)
def test_an_elias_fano_file_that_lies_is_refused(case):
    data, code = ELIAS_FANO_LIES[case]
    assert len(data) == encoded_bytes(COUNT, SPECS["elias_fano"]) and refuse(data, "elias_fano") == code


def one_level(level=ONE, *, signs=0, spare=0) -> bytes:
    stream = sum(index << 6 * i for i, index in enumerate((0, 1, 2, 3, 53))) | signs << 30 | spare << 35
    record = struct.pack("<H", level) + stream.to_bytes(5, "little")
    return valid("one level")[:64] + record + valid("one level")[64 + len(record) :]


ONE_LEVEL_LIES = {
    "as version 1": (changed("one level", 4, b"\1"), "wrong_encoding"),
    "two levels as version 2": (changed("packed", 4, b"\2"), "wrong_encoding"),
    "two levels' kind": (changed("one level", 4, b"\1\5"), "wrong_encoding"),
    "zeros with a sign": (one_level(0, signs=2), "malformed"),
    "subnormal level": (one_level(255), "malformed"),
    "infinite level": (one_level(0xFF00), "not_finite"),
    "bits behind the last": (one_level(spare=1), "malformed"),
}


@pytest.mark.parametrize("case", ONE_LEVEL_LIES)
def test_a_file_of_one_level_that_lies_is_refused(case):
    data, code = ONE_LEVEL_LIES[case]
    assert refuse(data, "one level") == code
    assert decode(one_level(signs=2), SPECS["one level"], count=COUNT).values[[0, 2, 106]].tolist() == [1, -1, 1]


DENSE_LIES = {
    "fp32 NaN": ("fp32", 64, struct.pack("<f", float("nan")), "not_finite"),
    "fp32 infinite": ("fp32", 64 + 4 * 106, struct.pack("<f", float("-inf")), "not_finite"),
    "bf16 infinite": ("bf16", 64, b"\x80\x7f", "not_finite"),
    "bf16 NaN": ("bf16", 64 + 2 * 106, b"\xc0\xff", "not_finite"),
    "int8 code -128": ("int8", 70, b"\x80", "malformed"),
    "int8 without its largest code": ("int8", 66, bytes(64), "malformed"),
    "int8 codes without a scale": ("int8", 64, bytes(2), "malformed"),
    "int8 infinite scale": ("int8", 64, b"\x00\xff", "not_finite"),
    "int8 subnormal scale": ("int8", 64, b"\xff\x00", "malformed"),
    "int8 values overflow": ("int8", 64, b"\xff\xfe", "not_finite"),
    "int4 code -8": ("int4", 70, b"\x88", "malformed"),
    "int4 half byte behind the last": ("int4", 64 + 34 + 2 + 21, b"\x17", "malformed"),
    "int4 codes without a scale": ("int4", 64, bytes(2), "malformed"),
}


@pytest.mark.parametrize("case", DENSE_LIES)
def test_a_dense_file_that_lies_is_refused(case):
    kind, offset, new, code = DENSE_LIES[case]
    assert refuse(changed(kind, offset, new), kind) == code


def check_refused_or_sound(data: bytes, kind: str) -> None:
    try:
        update = decode(data, SPECS[kind], count=COUNT)
    except HyperGPUError as refusal:
        assert refusal.code.removeprefix("artifact.") in CODES
        return
    assert update.values.shape == (COUNT,) and update.values.dtype == torch.float32 and torch.isfinite(update.values).all()
    if update.sent is None:  # no other file holds these values
        assert (update.values.abs() >= 2.0**126).any() or encode(update.values, SPECS[kind], trace=update.trace).data == data
    else:
        original = decode(valid(kind), SPECS[kind], count=COUNT)
        assert update.sent.shape == (COUNT,) and (update.values[~update.sent] == 0).all()
        same = torch.equal(update.values, original.values) and torch.equal(update.sent, original.sent)
        assert (data == valid(kind)) == (same and update.trace == original.trace)


@settings(max_examples=600)
@example(kind="fp32", position=67, value=0x7F, cut=0, insert=b"")
@given(kind=kinds, position=st.integers(0, 600), value=st.integers(0, 255), cut=st.integers(0, 40), insert=st.binary(max_size=12))
def test_whatever_is_changed_the_result_is_a_refusal_or_a_sound_update(kind, position, value, cut, insert):
    data = bytearray(valid(kind))
    position %= len(data)
    data[position] = value
    data[position : position + cut] = insert
    check_refused_or_sound(bytes(data), kind)


@settings(max_examples=600)
@given(kind=kinds, seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_random_payloads_behind_a_sound_header_are_refused_or_sound(kind, seed, share):
    generator = torch.Generator().manual_seed(seed)
    data = torch.frombuffer(bytearray(valid(kind)), dtype=torch.uint8)
    noise = torch.randint(0, 256, data.shape, generator=generator, dtype=torch.uint8)
    data[64:] = torch.where(torch.rand(len(data) - 64, generator=generator) < share, noise[64:], data[64:])
    check_refused_or_sound(data.numpy().tobytes(), kind)


@settings(max_examples=300)
@given(kind=kinds, data=st.binary(max_size=600))
def test_random_bytes_are_refused(kind, data):
    assert refuse(data, kind) in {"truncated", "malformed"}


@settings(max_examples=300)
@given(data=st.binary(min_size=64, max_size=64))
def test_any_header_is_read_or_refused(data):
    for begin in (b"", b"HGPG", b"HGPG\1", b"HGPG\2\6"):
        try:
            assert read_header(begin + data).count >= 0
        except HyperGPUError as refusal:
            assert refusal.code in {"artifact.malformed", "artifact.wrong_encoding"}
