"""What a pseudo-gradient looks like after the wire, and that nothing is lost without being remembered."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.diloco.encoding import decode, encode, max_encoded_bytes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec

shape = st.lists(st.integers(1, 40), min_size=0, max_size=3).map(tuple)
shapes = st.dictionaries(st.sampled_from(["a", "b.weight", "b.bias", "head"]), shape, min_size=1)
kinds = st.sampled_from(["dense", "int8", "topk"])


def update(shapes, seed=0, scale=1e-3):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * scale for name, shape in shapes.items()}


def spec(kind, chunk=64, k=8, decay=0.95):
    return EncodingSpec(kind=kind, chunk=chunk, k=k, error_decay=decay)


@given(shapes=shapes, seed=st.integers(0, 99), scale=st.sampled_from([1e-30, 1e-3, 1e3]))
def test_dense_arrives_bit_for_bit(shapes, seed, scale):
    sent = update(shapes, seed, scale)
    data, error = encode(sent, spec("dense"), error=None)
    received = decode(data, spec("dense"), shapes=shapes)
    assert error is None and all(torch.equal(received[name], value) for name, value in sent.items())


@given(shapes=shapes, seed=st.integers(0, 99), chunk=st.sampled_from([64, 100, 4096]))
def test_int8_is_off_by_at_most_half_a_code_of_its_chunk(shapes, seed, chunk):
    sent = update(shapes, seed)
    received = decode(encode(sent, spec("int8", chunk), error=None)[0], spec("int8", chunk), shapes=shapes)
    for name, value in sent.items():
        for before, after in zip(value.flatten().split(chunk), received[name].flatten().split(chunk), strict=True):
            assert (before - after).abs().max() <= before.abs().max() / 127 * 0.5001


@given(shapes=shapes, seed=st.integers(0, 99), k=st.integers(1, 80), chunk=st.sampled_from([64, 100]))
def test_topk_sends_the_largest_of_each_chunk_and_nothing_else(shapes, seed, k, chunk):
    sent = update(shapes, seed)
    received = decode(encode(sent, spec("topk", chunk, k), error=None)[0], spec("topk", chunk, k), shapes=shapes)
    for name, value in sent.items():
        for before, after in zip(value.flatten().split(chunk), received[name].flatten().split(chunk), strict=True):
            largest = before.abs().topk(min(k, len(before))).indices
            rest = torch.ones(len(before), dtype=torch.bool)
            rest[largest] = False
            assert (after[rest] == 0).all()
            assert (before[largest] - after[largest]).abs().max() <= before.abs().max() / 127 * 0.5001


@given(shapes=shapes, rounds=st.integers(1, 5), k=st.integers(1, 70))
def test_without_decay_what_is_sent_and_what_is_remembered_make_up_all_updates(shapes, rounds, k):
    chosen, error = spec("topk", k=k, decay=1.0), None
    wanted = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    arrived = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    for seed in range(rounds):
        delta = update(shapes, seed)
        data, error = encode(delta, chosen, error=error)
        received = decode(data, chosen, shapes=shapes)
        for name in shapes:
            wanted[name] += delta[name]
            arrived[name] += received[name]
    for name in shapes:
        torch.testing.assert_close(arrived[name] + error[name], wanted[name], rtol=0, atol=1e-8)


def test_the_remembered_rest_fades_by_the_decay():
    delta = {"a": torch.arange(1.0, 101.0)}
    half, whole = (encode(delta, spec("topk", decay=decay), error=None)[1]["a"] for decay in (0.5, 1.0))
    assert torch.equal(half, whole / 2) and (whole != 0).sum() > 80


def test_the_remembered_rest_is_sent_when_it_has_grown():
    chosen = spec("topk", chunk=64, k=1, decay=1.0)
    delta = {"a": torch.tensor([1.0, 0.6])}
    data, error = encode(delta, chosen, error=None)
    assert decode(data, chosen, shapes={"a": (2,)})["a"].tolist() == [1.0, 0.0]
    data, _ = encode({"a": torch.tensor([0.1, 0.6])}, chosen, error=error)
    assert decode(data, chosen, shapes={"a": (2,)})["a"][1] == pytest.approx(1.2)


@given(kind=kinds, shapes=shapes)
def test_every_file_of_a_job_has_the_same_length_within_the_limit(kind, shapes):
    files = [encode(update(shapes, 0, scale), spec(kind), error=None)[0] for scale in (0.0, 1.0, 1e-20)]
    assert len({len(file) for file in files}) == 1 and len(files[0]) <= max_encoded_bytes(shapes, spec(kind))
    assert encode(update(shapes), spec(kind), error=None)[0] == encode(update(shapes), spec(kind), error=None)[0]


def test_sizes_of_a_model_of_a_million_parameters():
    shapes = {"weight": (1000, 1000), "bias": (1000,)}
    sizes = {kind: len(encode(update(shapes), spec(kind, 4096, 128), error=None)[0]) for kind in ("dense", "int8", "topk")}
    assert sizes["dense"] > 3.99 * sizes["int8"] and sizes["dense"] > 41 * sizes["topk"]


@pytest.mark.parametrize("kind", ["dense", "int8", "topk"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_never_encoded(kind, value):
    with pytest.raises(HyperGPUError) as refusal:
        encode({"a": torch.tensor([1.0, value])}, spec(kind), error=None)
    assert refusal.value.code == "artifact.not_finite"


@given(kind=kinds)
def test_what_was_given_is_not_changed(kind):
    delta, error = update({"a": (9, 9)}), update({"a": (9, 9)}, seed=1)
    copies = delta["a"].clone(), error["a"].clone()
    encode(delta, spec(kind), error=error)
    assert torch.equal(delta["a"], copies[0]) and torch.equal(error["a"], copies[1])
