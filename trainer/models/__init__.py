"""Architectures by name and config; no code is ever uploaded.

Each file holds one architecture: a `Config` with hard limits and `build(config, sample)`. `build_model` is the way in.
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
from pydantic import ValidationError
from torch import nn

from trainer.data.sample import SampleInfo
from trainer.models import causal_lm, cnn, gpt, mlp, resnet, vgg
from trainer.models.loss import loss_and_correct, mean_loss, sample_losses
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import ModelSpec, Section

__all__ = [
    "MAX_PARAMETERS", "SampleInfo", "build_model", "loss_and_correct", "mean_loss", "model_shapes", "parameter_shapes",
    "sample_losses",
]  # fmt: skip

ARCHITECTURES: dict[str, ModuleType] = {
    "mlp": mlp, "cnn": cnn, "resnet": resnet, "vgg": vgg, "gpt": gpt, "transformers": causal_lm,
}  # fmt: skip
EATS = {"gpt": "bytes", "transformers": "bytes"}
"""Architectures that read byte sequences; the others read images."""

MAX_PARAMETERS = 1_000_000_000
"""4 GB of fp32: what a coordinator holds a few times over while it aggregates."""


def build_model(spec: ModelSpec, sample: SampleInfo, *, seed: int) -> nn.Module:
    """The architecture of `spec` on the CPU in fp32, with starting weights fixed by `seed` alone (the global random state
    is neither used nor changed).

    Raises HyperGPUError `model.invalid_config`, `model.too_large` (before anything is allocated) or `model.extra_missing`.
    """
    config = check_config(spec, sample)
    assert_affordable(spec, config, sample)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ARCHITECTURES[spec.architecture].build(config, sample)


def model_shapes(spec: ModelSpec, sample: SampleInfo) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name, without allocating the model. Raises as `build_model`."""
    return assert_affordable(spec, check_config(spec, sample), sample)


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name; tied parameters once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def check_config(spec: ModelSpec, sample: SampleInfo) -> Section:
    eats = EATS.get(spec.architecture, "image")
    if eats != sample.kind:
        raise HyperGPUError(
            "model.invalid_config", f"{spec.architecture} reads {eats} samples, but the data holds {sample.kind}."
        )
    try:
        return ARCHITECTURES[spec.architecture].Config.model_validate(spec.config)
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in item["loc"]) or "config", "problem": item["msg"]} for item in error.errors()
        ]
        lines = "; ".join(f"{item['field']}: {item['problem']}" for item in problems)
        raise HyperGPUError(
            "model.invalid_config", f"This is not a config of {spec.architecture}: {lines}", problems=problems
        ) from error


def assert_affordable(spec: ModelSpec, config: Section, sample: SampleInfo) -> dict[str, tuple[int, ...]]:
    """Count parameters on the meta device, which allocates nothing."""
    with torch.device("meta"):
        shapes = parameter_shapes(ARCHITECTURES[spec.architecture].build(config, sample))
    count = sum(math.prod(shape) for shape in shapes.values())
    if count > MAX_PARAMETERS:
        raise HyperGPUError(
            "model.too_large", f"The model has {count:,} parameters; at most {MAX_PARAMETERS:,} are taken.", parameters=count
        )
    return shapes
