"""Checkpoints: a job's parameters by name, and what the next outer step needs beside them, as safetensors.

Together with the round's number they are all it takes to go on exactly where a job was: data order follows from seeds and
the number, and the nodes' own moments and error feedback may be lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.data.sample import SampleInfo
from trainer.diloco.flat import Shapes, Tensors, count_of, flatten, unflatten
from trainer.diloco.outer import OuterState
from trainer.diloco.tensorfile import Expected, read_tensors, refused, write_tensors
from trainer.models import build_model
from trainer.protocol.spec import JobSpec


def save_checkpoint(params: Tensor, shapes: Shapes) -> bytes:
    """The same parameters (n,) fp32 give the same bytes. Raises HyperGPUError `artifact.wrong_shape` for other dtypes."""
    if params.dtype != torch.float32 or params.numel() != count_of(shapes):
        raise refused(
            "wrong_shape", f"A checkpoint holds {count_of(shapes)} fp32 parameters, not {params.numel()} {params.dtype}."
        )
    return write_tensors(unflatten(params, shapes))


def load_checkpoint(data: bytes, *, shapes: Shapes) -> Tensor:
    """Parameters (n,) of exactly these names and shapes, finite. Raises HyperGPUError `artifact.*` as `read_tensors`."""
    return flatten(read_tensors(data, expected_params(shapes)))


def initial_params(spec: JobSpec, sample: SampleInfo) -> Tensor:
    """(n,) before the first round, fixed by the job's seed: every node makes them itself."""
    return flatten(dict(build_model(spec.model, sample, seed=spec.seed).named_parameters()))


def save_outer(state: OuterState) -> bytes:
    """Momentum and error feedback of `state`, whichever its job has; its parameters are the checkpoint's."""
    return write_tensors(
        {name: value for name, value in (("momentum", state.momentum), ("error", state.error)) if value is not None}
    )


def load_outer(data: bytes, params: Tensor, spec: JobSpec) -> OuterState:
    """The state that `save_outer` wrote, around its checkpoint's `params`. Raises HyperGPUError `artifact.*`."""
    start = OuterState.start(params, spec)
    wanted = {name: Expected("F32", tuple(params.shape)) for name in ("momentum", "error") if getattr(start, name) is not None}
    found: Tensors = read_tensors(data, wanted)
    return OuterState(params, found.get("momentum"), found.get("error"))


def expected_params(shapes: Shapes) -> dict[str, Expected]:
    return {name: Expected("F32", tuple(shape)) for name, shape in shapes.items()}
