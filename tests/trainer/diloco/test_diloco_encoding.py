"""What a vector looks like after the wire, that the bytes are those of the document, and that nothing is lost unremembered."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.diloco import encoding, vectors
from trainer.diloco.encoding import decode, encode, read_header
from trainer.diloco.values import largest, level_values, read_scales, two_levels, write_scales
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.wire import encoded_bytes

KINDS = ("fp32", "bf16", "int8", "int4", "topk")
FILE = json.loads(vectors.PATH.read_text())
TINIEST = 2.0**-126

counts = st.integers(1, 300)
scales = st.sampled_from([0.0, 1e-40, 1e-20, 1e-7, 1e-3, 1.0, 1e3, 1e30])
chunks = st.sampled_from([64, 128, 4096])
indices = st.sampled_from(["packed", "elias_fano"])


def update(count, seed=0, scale=1e-3):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * scale


def coarse(count, seed):
    """Few different values, so that many are equal, and many zeros."""
    return torch.randint(-3, 4, (count,), generator=torch.Generator().manual_seed(seed)) / 8


def spec(kind="topk", chunk=64, k=8, decay=0.95, coding="elias_fano", levels=2):
    return EncodingSpec(kind=kind, chunk=chunk, k=k, error_decay=decay, indices=coding, levels=levels)


def dealt(vector, chosen):
    """The chunks of a topk file."""
    chunks = -(-len(vector) // chosen.chunk)
    return [vector[first::chunks] for first in range(chunks)]


@st.composite
def specs(draw, kind=None):
    return spec(
        draw(st.sampled_from(KINDS)) if kind is None else kind, draw(chunks), draw(st.integers(1, 32)), coding=draw(indices),
        levels=draw(st.sampled_from([1, 2])),
    )  # fmt: skip


@given(count=counts, seed=st.integers(0, 99), scale=scales)
def test_fp32_arrives_bit_for_bit(count, seed, scale):
    sent = update(count, seed, scale)
    received = decode(encode(sent, spec("fp32")).data, spec("fp32"), count=count)
    assert torch.equal(received.values.view(torch.int32), sent.view(torch.int32)) and received.sent is None


@given(count=counts, seed=st.integers(0, 99), scale=scales)
def test_bf16_is_rounded_to_nearest_even(count, seed, scale):
    sent = update(count, seed, scale)
    assert torch.equal(decode(encode(sent, spec("bf16")).data, spec("bf16"), count=count).values, sent.bfloat16().float())


@given(count=counts, seed=st.integers(0, 99), scale=scales, kind=st.sampled_from([("int8", 127), ("int4", 7)]), chunk=chunks)
def test_codes_are_off_by_at_most_half_a_step_of_their_chunk(count, seed, scale, kind, chunk):
    sent, top = update(count, seed, scale), kind[1]
    received = decode(encode(sent, spec(kind[0], chunk)).data, spec(kind[0], chunk), count=count).values
    for before, after in zip(sent.split(chunk), received.split(chunk), strict=True):
        step = before.abs().max().item() / top * (1 + 2**-8)
        assert (before - after).abs().max() <= (step / 2 if step > TINIEST else top * TINIEST)


@given(count=counts, seed=st.integers(0, 99), chosen=specs("topk"), ties=st.booleans())
def test_topk_sends_the_largest_of_each_chunk_and_of_equal_ones_the_first(count, seed, chosen, ties):
    sent = coarse(count, seed) if ties else update(count, seed)
    received = decode(encode(sent, chosen).data, chosen, count=count)
    for before, mask, after in zip(*(dealt(v, chosen) for v in (sent, received.sent, received.values)), strict=True):
        kept = before.abs().sort(descending=True, stable=True).indices[: chosen.k]
        assert mask.nonzero().flatten().tolist() == sorted(kept.tolist())
        assert (after[~mask] == 0).all() and len(after.abs()[mask].unique()) <= chosen.levels


@given(count=counts, seed=st.integers(0, 99), k=st.integers(2, 32))
def test_the_two_levels_are_the_best_two(count, seed, k):
    kept = update(count, seed).abs().sort(descending=True).values[:k].double()
    values = encode(update(count, seed), spec(chunk=4096, k=k)).values.double().abs()
    got = (kept - values[values > 0].sort(descending=True).values).square().sum()
    splits = [(kept[:i], kept[i:]) for i in range(1, len(kept) + 1)]
    best = min(sum((part - part.mean()).square().sum() for part in split if len(part)) for split in splits)
    assert got <= best + 2**-16 * kept.square().sum()  # but for the rounding of the levels


def test_levels_are_the_means_of_what_takes_them():
    table = update(64 * 4096).numpy().reshape(64, 4096)
    kept = np.take_along_axis(table, largest(table, 128), axis=1)
    levels, negative, high = two_levels(kept)
    for part in (0, 1):
        mean = np.where(high == part, np.abs(kept), 0).sum(axis=1) / (high == part).sum(axis=1)
        np.testing.assert_allclose(read_scales(levels)[:, part], mean, rtol=2**-8)
    assert np.array_equal(level_values(levels, negative, high) < 0, kept < 0)


@given(count=counts, seed=st.integers(0, 99), k=st.integers(1, 32))
def test_the_only_level_is_the_mean_of_what_was_sent(count, seed, k):
    kept = update(count, seed)
    kept = kept[kept.abs().sort(descending=True).indices[:k]]
    values = encode(update(count, seed), spec(chunk=4096, k=k, levels=1)).values
    values = values[values != 0]
    torch.testing.assert_close(values.abs(), kept.abs().mean().expand_as(values), rtol=2**-8, atol=0)
    assert (values < 0).sum() == (kept < 0).sum()


@pytest.mark.parametrize("pair", [(1.0, -1.0001), (1.0, -1e-20), (1e-30, -1e-45), (-1e-40, 1e-41), (0.0, -0.0)])
def test_levels_that_rounding_makes_equal_or_zero_have_one_spelling(pair):
    encoded = encode(torch.tensor(pair), spec(k=2))
    values = decode(encoded.data, spec(k=2), count=2).values
    assert torch.equal(values, encoded.values)
    torch.testing.assert_close(values, torch.tensor(pair), rtol=2**-9, atol=2e-20)


@given(value=st.floats(0, 2.0**126, width=32))
def test_scales_are_off_by_at_most_one_in_512(value):
    after = float(read_scales(write_scales(np.array([value], np.float32)))[0])
    assert abs(after - value) <= (value / 512 if value >= TINIEST else TINIEST)


@given(chosen=specs(), count=counts, seed=st.integers(0, 99), scale=scales, ties=st.booleans())
def test_the_values_returned_are_the_values_decoded_and_the_length_is_known(chosen, count, seed, scale, ties):
    sent = coarse(count, seed) if ties else update(count, seed, scale)
    trace = bytes([seed]) * 32
    encoded = encode(sent, chosen, trace=trace)
    received = decode(encoded.data, chosen, count=count)
    assert torch.equal(received.values, encoded.values) and received.trace == trace
    assert len(encoded.data) == encoded_bytes(count, chosen)
    assert read_header(encoded.data).count == count
    if chosen.kind != "topk":
        assert encode(encoded.values, chosen, trace=trace).data == encoded.data


@given(chosen=specs("topk"), count=counts, seed=st.integers(0, 99), decay=st.sampled_from([0.5, 1.0]))
def test_what_is_not_sent_is_remembered_less_the_decay(chosen, count, seed, decay):
    chosen = chosen.model_copy(update={"error_decay": decay})
    before, delta = update(count, seed + 100), update(count, seed)
    encoded = encode(delta, chosen, error=before)
    assert torch.equal(encoded.error, decay * (delta + before - encoded.values))
    assert encoded.data == encode(delta + before, chosen).data


@given(count=counts, rounds=st.lists(specs(), min_size=1, max_size=5))
def test_over_rounds_of_any_kinds_and_densities_nothing_is_lost(count, rounds):
    """A fast link sends more in the same round, a slow one less in the next: the error belongs to the vector, not to the kind."""
    wanted = arrived = torch.zeros(count, dtype=torch.float64)
    error = None
    for seed, chosen in enumerate(rounds):
        encoded = encode(update(count, seed), chosen.model_copy(update={"error_decay": 1.0}), error=error)
        wanted, arrived = wanted + update(count, seed), arrived + encoded.values
        if encoded.error is None:  # a dense file leaves its rounding behind, and no more
            wanted = arrived.clone()
        error = encoded.error
    rest = torch.zeros(count) if error is None else error
    torch.testing.assert_close(arrived + rest, wanted, rtol=0, atol=1e-8)


def test_a_dense_file_sends_the_rest_as_well():
    first = encode(torch.tensor([1.0, 0.5]), spec(k=1, decay=1.0))
    assert first.values.tolist() == [1.0, 0.0]
    second = encode(torch.tensor([0.0, 0.25]), spec("fp32"), error=first.error)
    assert second.values.tolist() == [0.0, 0.75] and second.error is None


def test_the_remembered_rest_is_sent_when_it_has_grown():
    chosen = spec(k=1, decay=1.0)
    first = encode(torch.tensor([1.0, 0.6]), chosen)
    assert first.values.tolist() == [1.0, 0.0]
    assert encode(torch.tensor([0.1, 0.6]), chosen, error=first.error).values.tolist() == pytest.approx([0, 1.2], rel=2**-9)


PER_CHUNK = {
    "fp32": 4 * 4096,
    "bf16": 2 * 4096,
    "int8": 2 + 4096,
    "int4": 2 + 2048,
    ("topk", 64, "packed"): 4 + 64 * 12 // 8 + 64 * 2 // 8,
    ("topk", 64, "elias_fano"): 4 + (64 * 6 + 64 + 63 + 64 * 2 + 7) // 8,
    ("topk", 128, "packed"): 4 + 192 + 32,
    ("topk", 128, "elias_fano"): 4 + (128 * 5 + 128 + 127 + 256 + 7) // 8,
    ("topk", 96, "elias_fano"): 4 + (96 * 5 + 96 + 127 + 192 + 7) // 8,
    ("topk", 96, "elias_fano", 1): 2 + (96 * 5 + 96 + 127 + 96 + 7) // 8,
}


@pytest.mark.parametrize("case", PER_CHUNK, ids=str)
def test_sizes_are_those_of_the_document(case):
    kind, k, coding, *levels = (case, 128, "packed") if isinstance(case, str) else case
    chosen = spec(kind, 4096, k, coding=coding, levels=levels[0] if levels else 2)
    assert encoded_bytes(10 * 4096, chosen) == 64 + 10 * PER_CHUNK[case] == len(encode(update(40_960), chosen).data)


def test_a_model_of_388416_parameters_takes_110_times_less_than_fp32():
    chosen = EncodingSpec(kind="topk")
    assert len(encode(update(388_416), chosen).data) == 14_124 < 4 * 388_416 / 110


@pytest.mark.parametrize("kind", KINDS)
def test_layout_threads_and_blocks_change_no_byte(kind, monkeypatch):
    vector, before, chosen = update(10_000), update(10_000, 1), spec(kind)
    expected = encode(vector, chosen, error=before)
    strided = torch.stack([vector, before], dim=1)
    assert encode(strided[:, 0], chosen, error=strided[:, 1]).data == expected.data
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert encode(vector, chosen, error=before).data == expected.data
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(encoding, "BLOCK", 3 * 64)
    in_blocks = encode(vector, chosen, error=before)
    assert in_blocks.data == expected.data and torch.equal(in_blocks.values, expected.values)
    again = decode(expected.data, chosen, count=10_000)
    assert torch.equal(again.values, expected.values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2.0**126])
def test_what_is_not_finite_is_never_encoded(kind, value):
    for vector, before in (([1.0, value], None), ([0.0, value / 2], [1.0, value / 2])):
        with pytest.raises(HyperGPUError) as refusal:
            encode(torch.tensor(vector), spec(kind), error=None if before is None else torch.tensor(before))
        assert refusal.value.code == "artifact.not_finite"


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_values_survive(kind):
    vector = torch.tensor([2.0**126 * (1 - 2**-24), -(2.0**125), 1.0])
    values = decode(encode(vector, spec(kind)).data, spec(kind), count=3).values
    torch.testing.assert_close(values[:1], vector[:1], rtol=0.26 if kind == "topk" else 2**-8, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_given_is_not_changed(kind):
    delta, before = update(90), update(90, seed=1)
    copies = delta.clone(), before.clone()
    encoded = encode(delta, spec(kind), error=before)
    encoded.values.zero_()
    assert torch.equal(delta, copies[0]) and torch.equal(before, copies[1])


@pytest.mark.parametrize("entry", FILE["files"], ids=lambda entry: f"{entry['spec']['kind']}-{entry['spec']['k']}")
def test_golden_files(entry):
    """Bytes that were published once are written and read for ever."""
    chosen = EncodingSpec(**entry["spec"])
    vector, error = (torch.frombuffer(bytearray.fromhex(FILE[name]), dtype=torch.float32) for name in ("vector", "error"))
    assert torch.equal(vector, vectors.vector()) and torch.equal(error, vectors.error())
    encoded = encode(vector, chosen, error=error if entry["error_added"] else None, trace=bytes.fromhex(FILE["trace"]))
    assert encoded.data.hex() == entry["file"]
    assert vectors.as_hex(encoded.values) == entry["values"]
    assert (None if encoded.error is None else vectors.as_hex(encoded.error)) == entry["error"]
    received = decode(bytes.fromhex(entry["file"]), chosen, count=len(vector))
    assert vectors.as_hex(received.values) == entry["values"] and received.trace.hex() == FILE["trace"]
    if entry["sent"] is not None:
        assert sum(1 << i for i, sent in enumerate(received.sent.tolist()) if sent) == int(entry["sent"], 16)


def plain_topk(data: bytes) -> dict[int, float]:
    """Reads a topk file as docs/wire-format.md says, one bit after the other: what was sent, by place."""
    version, kind, log2_chunk, coding, k, count = struct.unpack_from("<BBBBIQ", data, 4)
    assert (version, kind) in {(1, 5), (2, 6)}
    heads = 7 - kind
    sent, offset, chunks = {}, 64, math.ceil(count / 2**log2_chunk)
    for start in range(chunks):
        width = math.ceil((count - start) / chunks)
        kept = min(k, width)
        scales = struct.unpack_from(f"<{heads}H", data, offset)
        levels = [struct.unpack("<f", struct.pack("<I", scale << 15))[0] for scale in scales]
        stream = int.from_bytes(data[offset + 2 * heads :], "little")
        position = 0

        def take(bits: int) -> int:
            nonlocal position, stream
            value, stream, position = stream & ((1 << bits) - 1), stream >> bits, position + bits
            return value

        if coding == 1:
            chosen = [take((width - 1).bit_length()) for _ in range(kept)]
        else:
            low = (width // kept).bit_length() - 1
            lows = [take(low) for _ in range(kept)]
            ones = [i for i in range(kept + ((width - 1) >> low)) if take(1)]
            chosen = [((one - i) << low) + lows[i] for i, one in enumerate(ones)]
        signs = [take(1) for _ in range(kept)]
        for index, sign in zip(chosen, signs, strict=True):
            sent[start + index * chunks] = levels[take(heads - 1)] * (1 - 2 * sign)
        offset += 2 * heads + (position + 7) // 8
    assert offset == len(data)
    return sent


@settings(max_examples=60)
@given(chosen=specs("topk"), count=counts, seed=st.integers(0, 99), ties=st.booleans())
def test_a_reader_written_from_the_document_reads_the_same(chosen, count, seed, ties):
    data = encode(coarse(count, seed) if ties else update(count, seed), chosen).data
    expected, received = plain_topk(data), decode(data, chosen, count=count)
    assert sorted(expected) == received.sent.nonzero().flatten().tolist()
    assert all(received.values[place] == value for place, value in expected.items())
    assert torch.count_nonzero(received.values) == sum(value != 0 for value in expected.values())


@given(chosen=specs("topk"), count=counts, seed=st.integers(0, 99))
def test_files_of_either_index_coding_mean_the_same(chosen, count, seed):
    files = [encode(update(count, seed), chosen.model_copy(update={"indices": coding})) for coding in ("packed", "elias_fano")]
    assert torch.equal(files[0].values, files[1].values) and torch.equal(files[0].error, files[1].error)


@given(vector=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=80), chosen=specs())
def test_any_numbers_below_the_limit_can_be_sent(vector, chosen):
    sent = torch.tensor(vector)
    assume((sent.abs() < 2.0**126).all())
    encoded = encode(sent, chosen)
    assert torch.isfinite(encoded.values).all()
    assert torch.equal(decode(encoded.data, chosen, count=len(vector)).values, encoded.values)


def test_the_example_of_the_document():
    text = (vectors.PATH.parents[2] / "docs" / "wire-format.md").read_text()
    written = bytes.fromhex("".join(text.split("```")[1].split()))
    sent = torch.tensor([0.5, 0, -2, 0.25, 1, 0, 0, -1.5, 0, 0.125])
    encoded = encode(sent, spec(k=3))
    assert encoded.data == written and len(written) == 70
    assert encoded.values.tolist() == [0, 0, -1.75, 0, 1, 0, 0, -1.75, 0, 0]
    torch.testing.assert_close(encoded.error, torch.tensor([0.475, 0, -0.2375, 0.2375, 0, 0, 0, 0.2375, 0, 0.11875]))


def test_the_sizes_in_the_document():
    text = (vectors.PATH.parents[2] / "docs" / "wire-format.md").read_text()
    rows = [[cell.strip().replace(",", "") for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| " in line]
    table = {row[0]: row[1:] for row in rows if len(row) == 6 and row[1].isdigit()}
    assert len(table) == 15
    for name, (record, bits, ratio, *files) in table.items():
        kind, k, coding, *one = name.split() if " " in name else (name, 128, "packed")
        chosen = EncodingSpec(kind=kind, k=k, indices=coding.lower().replace("-", "_"), levels=1 if one else 2)
        size = encoded_bytes(4096, chosen) - 64
        assert int(record) == size and float(bits) == round(size * 8 / 4096, 4) and float(ratio) == round(16_384 / size, 1)
        assert [int(file) for file in files] == [encoded_bytes(n, chosen) for n in (388_416, 124_439_808)]
