"""A checkpoint's bytes are its identity."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from trainer.data.sample import SampleInfo
from trainer.diloco.checkpoint import (
    initial_checkpoint,
    load_checkpoint,
    load_outer,
    max_checkpoint_bytes,
    save_checkpoint,
    save_outer,
)
from trainer.models import model_shapes
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec

SHAPES = {"layer.weight": (3, 4), "layer.bias": (4,), "scale": ()}


def params(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def test_what_was_saved_is_loaded_bit_for_bit():
    loaded = load_checkpoint(save_checkpoint(params()), shapes=SHAPES)
    assert all(torch.equal(loaded[name], value) for name, value in params().items())


def test_the_same_parameters_have_the_same_hash_whatever_their_order_or_layout():
    backwards = dict(reversed(params().items()))
    transposed = params() | {"layer.weight": params()["layer.weight"].T.contiguous().T}
    assert not transposed["layer.weight"].is_contiguous()
    assert save_checkpoint(params()) == save_checkpoint(backwards) == save_checkpoint(transposed)
    assert save_checkpoint(params()) != save_checkpoint(params(1))


def test_the_first_checkpoint_follows_from_the_job_alone():
    sample = SampleInfo("image", (1, 8, 8), 10)
    torch.manual_seed(1)
    first = initial_checkpoint(JobSpec(), sample)
    torch.manual_seed(2)
    assert sha256_hex(first) == sha256_hex(initial_checkpoint(JobSpec(), sample))
    assert first != initial_checkpoint(JobSpec(seed=1), sample)
    shapes = model_shapes(JobSpec().model, sample)
    assert set(load_checkpoint(first, shapes=shapes)) == set(shapes) and len(first) <= max_checkpoint_bytes(shapes)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (save_checkpoint(params())[:-4], "artifact.truncated"),
        (save_checkpoint({"layer.weight": torch.zeros(3, 4)}), "artifact.wrong_shape"),
        (save_checkpoint(params() | {"layer.bias": torch.zeros(5)}), "artifact.wrong_shape"),
        (save(params() | {"layer.bias": torch.zeros(4, dtype=torch.int32)}), "artifact.wrong_shape"),
        (save_checkpoint(params() | {"scale": torch.tensor(float("nan"))}), "artifact.not_finite"),
        (save(params(), metadata={"format": "pt"}), "artifact.wrong_shape"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(data, code):
    with pytest.raises(HyperGPUError) as refusal:
        load_checkpoint(data, shapes=SHAPES)
    assert refusal.value.code == code


def test_only_fp32_is_saved():
    with pytest.raises(HyperGPUError):
        save_checkpoint({"a": torch.zeros(3, dtype=torch.float64)})


@settings(max_examples=200)
@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 30))
def test_a_changed_checkpoint_is_refused_or_another_sound_one(position, value, cut):
    data = bytearray(save_checkpoint(params()))
    position %= len(data)
    data[position] = value
    del data[position : position + cut]
    try:
        loaded = load_checkpoint(bytes(data), shapes=SHAPES)
    except HyperGPUError as refusal:
        assert refusal.code.startswith("artifact.")
    else:
        assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == SHAPES


def test_outer_momentum_comes_back_or_stays_absent():
    assert load_outer(save_outer({}), shapes=SHAPES) == {}
    loaded = load_outer(save_outer(params()), shapes=SHAPES)
    assert all(torch.equal(loaded[name], value) for name, value in params().items())
