"""A job's versions as a coordinator makes them: the first from the seed, each next by an encoded outer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from fake_coordinator import Version
from torch import Tensor

from trainer.data import load_dataset
from trainer.diloco.checkpoint import initial_params, save_checkpoint
from trainer.diloco.encoding import encode
from trainer.diloco.version import model_root
from trainer.models import build_model, parameter_shapes
from trainer.protocol.spec import JobSpec


@dataclass(frozen=True)
class Step:
    """A version with its parameters (n,)."""

    params: Tensor
    version: Version


def lineage(spec: JobSpec, put: Callable[[bytes], str], *, length: int) -> list[Step]:
    """The first `length` versions; `put` stores bytes and names them by their SHA-256."""
    info = load_dataset(spec.data, files={}).info
    shapes = parameter_shapes(build_model(spec.model, info, seed=spec.seed))
    params = initial_params(spec, info)
    steps = [Step(params, Version(model_root(params), put(save_checkpoint(params, shapes))))]
    while len(steps) < length:
        step = torch.randn(params.shape, generator=torch.Generator().manual_seed(len(steps))) / 100
        encoded = encode(step, spec.downlink)
        params = params - encoded.values
        checkpoint = put(save_checkpoint(params, shapes))
        steps.append(Step(params, Version(model_root(params), checkpoint, steps[-1].version.base, put(encoded.data))))
    return steps
