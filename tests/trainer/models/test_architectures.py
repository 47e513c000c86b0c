"""Every architecture trains on what it is made for, and nothing else gets in."""

import math

import pytest
import torch

from trainer.data.sample import SampleInfo
from trainer.models import build_model, loss_and_correct, model_shapes, parameter_shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import ModelSpec

IMAGE_ARCHITECTURES = ["mlp", "cnn", "resnet", "vgg"]
ALL = [*IMAGE_ARCHITECTURES, "gpt"]


def sample_for(architecture: str) -> SampleInfo:
    return SampleInfo("bytes", (16,), 256) if architecture == "gpt" else SampleInfo("image", (1, 8, 8), 10)


def batch(sample: SampleInfo, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if sample.kind == "bytes":
        stream = torch.randint(0, 256, (size, sample.shape[0] + 1), generator=generator)
        return stream[:, :-1], stream[:, 1:]
    return torch.rand(size, *sample.shape, generator=generator), torch.randint(0, sample.classes, (size,), generator=generator)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 5, 9)])
@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_an_image_architecture_fits_any_image_size(architecture, shape):
    sample = SampleInfo("image", shape, 7)
    inputs, _ = batch(sample)
    assert build_model(ModelSpec(architecture=architecture), sample, seed=0)(inputs).shape == (4, 7)


@pytest.mark.parametrize("architecture", ALL)
def test_every_parameter_learns_and_the_loss_starts_near_chance(architecture):
    sample = sample_for(architecture)
    model = build_model(ModelSpec(architecture=architecture), sample, seed=0)
    loss, correct = loss_and_correct(model, *batch(sample))
    loss.backward()
    assert abs(loss.item() - math.log(sample.classes)) < 0.5
    assert 0 <= correct.item() <= 4 * (sample.shape[0] if sample.kind == "bytes" else 1)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("architecture", ALL)
def test_no_state_lives_outside_the_parameters(architecture):
    """Running statistics would not travel with a pseudo-gradient."""
    assert list(build_model(ModelSpec(architecture=architecture), sample_for(architecture), seed=0).buffers()) == []


@pytest.mark.parametrize("architecture", ALL)
def test_the_seed_alone_decides_the_starting_weights(architecture):
    spec, sample = ModelSpec(architecture=architecture), sample_for(architecture)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_model(spec, sample, seed=5).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second, other = build_model(spec, sample, seed=5).state_dict(), build_model(spec, sample, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("architecture", ALL)
def test_shapes_are_known_without_building(architecture):
    spec, sample = ModelSpec(architecture=architecture), sample_for(architecture)
    assert model_shapes(spec, sample) == parameter_shapes(build_model(spec, sample, seed=0))


def test_gpt_sees_no_byte_before_it_comes(text):
    model = build_model(ModelSpec(architecture="gpt"), text, seed=0)
    inputs, _ = batch(text)
    changed = inputs.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 256
    before, after = model(inputs), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_gpt_ties_its_embeddings(text):
    shapes = model_shapes(ModelSpec(architecture="gpt", config={"layers": 1, "width": 32}), text)
    assert [name for name, shape in shapes.items() if shape == (256, 32)] == ["embedding.weight"]


@pytest.mark.parametrize(
    ("architecture", "config", "problem"),
    [
        ("mlp", {"hidden": [64], "activation": "tanh"}, "activation"),
        ("mlp", {"hidden": [100_000]}, "hidden.0"),
        ("mlp", {"hidden": [8] * 17}, "hidden"),
        ("cnn", {"channels": []}, "channels"),
        ("cnn", {"channels": [4096]}, "channels.0"),
        ("resnet", {"blocks": 1000}, "blocks"),
        ("vgg", {"widths": [16] * 7}, "widths"),
        ("gpt", {"layers": 97}, "layers"),
        ("gpt", {"width": 96, "heads": 5}, "heads"),
        ("transformers", {"model_type": "../evil"}, "model_type"),
    ],
)
def test_a_config_out_of_bounds_is_refused_by_field(architecture, config, problem):
    sample = SampleInfo("bytes", (16,), 256) if architecture in ("gpt", "transformers") else SampleInfo("image", (1, 8, 8), 10)
    with pytest.raises(HyperGPUError, match=problem) as refusal:
        build_model(ModelSpec(architecture=architecture, config=config), sample, seed=0)
    assert refusal.value.code == "model.invalid_config"


@pytest.mark.parametrize(("architecture", "other"), [("mlp", "bytes"), ("resnet", "bytes"), ("gpt", "image")])
def test_an_architecture_refuses_the_wrong_kind_of_data(architecture, other, image, text):
    with pytest.raises(HyperGPUError) as refusal:
        build_model(ModelSpec(architecture=architecture), text if other == "bytes" else image, seed=0)
    assert refusal.value.code == "model.invalid_config"


def test_a_model_beyond_the_limit_is_refused_before_it_is_allocated(text):
    giant = ModelSpec(architecture="gpt", config={"layers": 96, "width": 8192, "heads": 64})
    with pytest.raises(HyperGPUError) as refusal:
        build_model(giant, text, seed=0)
    assert refusal.value.code == "model.too_large"
    assert refusal.value.data["parameters"] > 70_000_000_000
