"""Is it an update at all? The checks that need no data, before anything is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping

from trainer.diloco.encoding import Shapes, Tensors, decode
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec

COPY_COSINE = 0.98
"""Two updates this alike are one: honest ones on different shards stay well below, a copy with 10 % noise lies above."""
PREVIOUS = "the previous aggregate"


def check_contribution(
    data: bytes,
    spec: EncodingSpec,
    shapes: Shapes,
    *,
    others: Mapping[int, Tensors],
    previous: Tensors | None = None,
    max_norm: float | None = None,
) -> Tensors:
    """The pseudo-gradient in `data`, if it is well-formed and the node's own.

    `others` are the round's contributions accepted earlier, by node id; `previous` the aggregate of the round before.
    Raises HyperGPUError `artifact.*` (see `decode`), `contribution.empty`, `contribution.norm_too_large` or
    `contribution.copy`.
    """
    update = decode(data, spec, shapes=shapes)
    norm = math.sqrt(dot(update, update))
    if norm == 0:
        raise HyperGPUError("contribution.empty", "The update is zero: no step was taken.")
    if max_norm is not None and norm > max_norm:
        raise HyperGPUError(
            "contribution.norm_too_large", f"A norm of {norm:.4g} is more than these steps can move ({max_norm:.4g}).",
            norm=norm, limit=max_norm,
        )  # fmt: skip
    for node_id, other in others.items():
        refuse_copy(update, norm, other, of=f"the contribution of node {node_id}", node=node_id)
    if previous is not None:
        refuse_copy(update, norm, previous, of=PREVIOUS, node=None)
    return update


def norm_limit(spec: JobSpec, shapes: Shapes) -> float:
    """A norm that honest work cannot reach: H steps of AdamW move each parameter by at most about H times the learning rate
    (Kingma and Ba 2014, section 2.1), doubled for weight decay, and with error feedback by what earlier rounds left over."""
    left_over = 1 / max(1 - spec.encoding.error_decay, 0.02) if spec.encoding.kind == "topk" else 1.0
    count = sum(math.prod(shape) for shape in shapes.values())
    return 2 * left_over * spec.inner.steps * spec.inner.learning_rate * math.sqrt(count)


def refuse_copy(update: Tensors, norm: float, other: Tensors, *, of: str, node: int | None) -> None:
    other_norm = math.sqrt(dot(other, other))
    cosine = dot(update, other) / (norm * other_norm) if other_norm else 0.0
    if cosine > COPY_COSINE:
        raise HyperGPUError("contribution.copy", f"The update is a copy of {of} (cosine {cosine:.4f}).", node=node, cosine=cosine)


def dot(a: Tensors, b: Tensors) -> float:
    """Dot product over all parameters, in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in sorted(a))
