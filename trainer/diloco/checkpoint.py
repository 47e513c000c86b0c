"""Checkpoints: fp32 parameters as safetensors, whose SHA-256 names the state of a job between two rounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data.sample import SampleInfo
from trainer.diloco.encoding import Shapes, Tensors
from trainer.diloco.tensorfile import Expected, max_bytes, read_tensors, refused, write_tensors
from trainer.models import build_model
from trainer.protocol.spec import JobSpec


def save_checkpoint(params: Tensors) -> bytes:
    """The same parameters (fp32, by name) give the same bytes. Raises HyperGPUError `artifact.wrong_shape` for other dtypes."""
    if any(value.dtype != torch.float32 for value in params.values()):
        raise refused("wrong_shape", "A checkpoint holds fp32 parameters only.")
    return write_tensors(params)


def load_checkpoint(data: bytes, *, shapes: Shapes) -> Tensors:
    """Parameters with exactly these names and shapes, finite. Raises HyperGPUError `artifact.*` as `read_tensors`."""
    return read_tensors(data, expected_params(shapes))


def max_checkpoint_bytes(shapes: Shapes) -> int:
    """Largest file that `load_checkpoint` takes for these shapes: the limit for downloads."""
    return max_bytes(expected_params(shapes))


def initial_checkpoint(spec: JobSpec, sample: SampleInfo) -> bytes:
    """The checkpoint before the first round, fixed by the job's seed."""
    return save_checkpoint(model_params(build_model(spec.model, sample, seed=spec.seed)))


def model_params(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters: fp32 on the CPU, by name, tied ones once."""
    return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in model.named_parameters()}


def save_outer(momentum: Tensors) -> bytes:
    """The outer optimizer's momentum; an empty dict (plain SGD, or before the first round) is an empty file."""
    return save_checkpoint(momentum)


def load_outer(data: bytes, *, shapes: Shapes) -> Tensors:
    """What `save_outer` wrote: momentum for every parameter, or for none."""
    return {} if data == save_outer({}) else load_checkpoint(data, shapes=shapes)


def expected_params(shapes: Shapes) -> dict[str, Expected]:
    return {name: Expected("F32", tuple(shape)) for name, shape in shapes.items()}
