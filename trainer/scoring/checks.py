"""Is it an update at all? The checks that need no data, before anything is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping

from trainer.diloco.encoding import Shapes, Tensors, decode
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec

SAME = 0.9995
"""Updates of at least this cosine are one update, sent again or scaled. Honest ones have reached 0.998: small language
models in their first rounds move as one."""
NEAR = 0.98
STANDS_OUT = 10
"""So is an update this near to one other if it is this many times nearer to it than to the next of the round. Finds copies
under noise of up to a fifth of their norm where honest updates differ; honest ones are about equally near to each other."""


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
    refuse_copy(update, norm, others, previous)
    return update


def norm_limit(spec: JobSpec, shapes: Shapes) -> float:
    """A norm that honest work cannot reach: H steps of AdamW move each parameter by at most about H times the learning rate
    (Kingma and Ba 2014, section 2.1), doubled for weight decay, and with error feedback by what earlier rounds left over."""
    left_over = 1 / max(1 - spec.encoding.error_decay, 0.02) if spec.encoding.kind == "topk" else 1.0
    count = sum(math.prod(shape) for shape in shapes.values())
    return 2 * left_over * spec.inner.steps * spec.inner.learning_rate * math.sqrt(count)


def refuse_copy(update: Tensors, norm: float, others: Mapping[int, Tensors], previous: Tensors | None) -> None:
    """Compare with the round's updates, then with the previous aggregate (`node` of the refusal is None)."""
    near = sorted(((cosine(update, norm, other), node) for node, other in others.items()), reverse=True)
    if near:
        following = near[1][0] if len(near) > 1 else None
        assert_own(near[0][0], following, source=f"the contribution of node {near[0][1]}", node=near[0][1])
    if previous is not None:
        assert_own(cosine(update, norm, previous), near[0][0] if near else None, source="the previous aggregate", node=None)


def assert_own(alike: float, following: float | None, *, source: str, node: int | None) -> None:
    """`alike` is the cosine with `source`, `following` that with the next to compare with, if there is one."""
    stands_out = following is not None and alike > NEAR and STANDS_OUT * (1 - alike) < 1 - following
    if alike > SAME or stands_out:
        raise HyperGPUError(
            "contribution.copy", f"The update is a copy of {source} (cosine {alike:.4f}).", node=node, cosine=alike
        )


def cosine(update: Tensors, norm: float, other: Tensors) -> float:
    other_norm = math.sqrt(dot(other, other))
    return dot(update, other) / (norm * other_norm) if other_norm else 0.0


def dot(a: Tensors, b: Tensors) -> float:
    """Dot product over all parameters, in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in sorted(a))
