"""A checkpoint's bytes are its identity."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from trainer.data.sample import SampleInfo
from trainer.diloco.checkpoint import (
    initial_params,
    load_checkpoint,
    load_outer,
    save_checkpoint,
    save_outer,
)
from trainer.diloco.flat import count_of, flatten, unflatten
from trainer.diloco.outer import OuterState
from trainer.diloco.tensorfile import write_tensors
from trainer.diloco.version import model_root
from trainer.models import model_shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec, OuterSpec

SHAPES = {"layer.weight": (3, 4), "layer.bias": (4,), "scale": ()}


def params(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def saved(seed: int = 0) -> bytes:
    return save_checkpoint(flatten(params(seed)), SHAPES)


def test_what_was_saved_is_loaded_bit_for_bit():
    loaded = unflatten(load_checkpoint(saved(), shapes=SHAPES), SHAPES)
    assert all(torch.equal(loaded[name], value) for name, value in params().items())


def test_the_same_parameters_have_the_same_bytes_whatever_their_order_or_layout():
    backwards = dict(reversed(params().items()))
    transposed = params() | {"layer.weight": params()["layer.weight"].T.contiguous().T}
    assert not transposed["layer.weight"].is_contiguous()
    assert saved() == save_checkpoint(flatten(backwards), SHAPES) == save_checkpoint(flatten(transposed), SHAPES)
    assert saved() != saved(1)


def test_the_first_version_follows_from_the_job_alone():
    sample = SampleInfo("image", (1, 8, 8), 10)
    torch.manual_seed(1)
    first = initial_params(JobSpec(), sample)
    torch.manual_seed(2)
    assert model_root(first) == model_root(initial_params(JobSpec(), sample))
    assert model_root(first) != model_root(initial_params(JobSpec(seed=1), sample))
    shapes = model_shapes(JobSpec().model, sample)
    assert len(first) == count_of(shapes)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (saved()[:-4], "artifact.truncated"),
        (write_tensors({"layer.weight": torch.zeros(3, 4)}), "artifact.wrong_shape"),
        (write_tensors(params() | {"layer.bias": torch.zeros(5)}), "artifact.wrong_shape"),
        (save(params() | {"layer.bias": torch.zeros(4, dtype=torch.int32)}), "artifact.wrong_shape"),
        (write_tensors(params() | {"scale": torch.tensor(float("nan"))}), "artifact.not_finite"),
        (save(params(), metadata={"format": "pt"}), "artifact.wrong_shape"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(data, code):
    with pytest.raises(HyperGPUError) as refusal:
        load_checkpoint(data, shapes=SHAPES)
    assert refusal.value.code == code


def test_only_fp32_is_saved():
    with pytest.raises(HyperGPUError):
        save_checkpoint(torch.zeros(3, dtype=torch.float64), {"a": (3,)})


@settings(max_examples=200)
@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 30))
def test_a_changed_checkpoint_is_refused_or_another_sound_one(position, value, cut):
    data = bytearray(saved())
    position %= len(data)
    data[position] = value
    del data[position : position + cut]
    try:
        loaded = load_checkpoint(bytes(data), shapes=SHAPES)
    except HyperGPUError as refusal:
        assert refusal.code.startswith("artifact.")
    else:
        assert loaded.numel() == count_of(SHAPES)


@pytest.mark.parametrize("outer", ["sgd", "nesterov"])
@pytest.mark.parametrize("downlink", ["int8", "topk"])
def test_the_outer_state_comes_back_with_all_that_the_next_step_needs(outer, downlink):
    spec = JobSpec(outer=OuterSpec(optimizer=outer), downlink=EncodingSpec(kind=downlink))
    start = OuterState.start(flatten(params()), spec)
    state = OuterState(start.params, *(None if v is None else v + 1 for v in (start.momentum, start.error)))
    loaded = load_outer(save_outer(state), state.params, spec)
    for mine, theirs in ((state.momentum, loaded.momentum), (state.error, loaded.error)):
        assert (mine is None and theirs is None) or torch.equal(mine, theirs)
    assert (state.momentum is None) == (outer == "sgd") and (state.error is None) == (downlink == "int8")


def test_an_outer_state_of_another_job_is_refused():
    nesterov, sgd = (JobSpec(outer=OuterSpec(optimizer=name)) for name in ("nesterov", "sgd"))
    data = save_outer(OuterState.start(flatten(params()), sgd))
    with pytest.raises(HyperGPUError) as refusal:
        load_outer(data, flatten(params()), nesterov)
    assert refusal.value.code == "artifact.wrong_shape"
