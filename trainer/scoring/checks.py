"""Is it an update at all, and the node's own? The checks that need no data, before anything is scored.

Sums over parameters are exact (`trainer.diloco.exact`), so that whoever judges a round again refuses the same contributions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from trainer.diloco.encoding import Update, decode
from trainer.diloco.exact import dot, gram
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import Submission
from trainer.protocol.spec import EncodingSpec, JobSpec

SAME = 0.9995
"""Updates of at least this cosine are one update, sent again or scaled. Honest ones have reached 0.998: small language
models in their first rounds move as one."""
NEAR = 0.9
STANDS_OUT = 8
"""So is an update this near to one other if it is this many times nearer to it (by 1 - cosine) than to the next of the round.
Finds copies under noise of a quarter of their norm where honest updates have cosines up to 0.7. Honest ones are about equally
near to each other (at most 1.35 times nearer to one than to the next in 12 rounds of 8 nodes, byte GPT and CNN, int8 and topk),
but once they fell into two groups, 0.99 within and 0.95 between."""
ABOUT = 1.25
"""Orders of no more than this multiple of samples are about the same: rounds of unequal machines fall into groups of them (0.990
between two nodes of 1,280 samples, 0.97 to 0.87 with those of 2,048 and more, first round of a byte GPT)."""


def check_contribution(data: bytes, spec: EncodingSpec, count: int, *, max_norm: float) -> Update:
    """The update of `count` values in `data`, if it is well-formed, moves something, and no further than `max_norm` (L2).

    Raises HyperGPUError `artifact.*` (see `decode`), `contribution.empty` or `contribution.norm_too_large`.
    """
    update = decode(data, spec, count=count)
    norm = math.sqrt(dot(update.values, update.values))
    if norm == 0:
        raise HyperGPUError("contribution.empty", "The update is zero: no step was taken.")
    if norm > max_norm:
        raise HyperGPUError(
            "contribution.norm_too_large", f"A norm of {norm:.4g} is more than these steps can move ({max_norm:.4g}).",
            norm=norm, limit=max_norm,
        )  # fmt: skip
    return update


def norm_limit(spec: JobSpec, count: int, steps: int) -> float:
    """A norm that honest work cannot reach: `steps` of AdamW move each of `count` parameters by at most about that many times the
    learning rate (Kingma and Ba 2014, section 2.1), doubled for weight decay; Muon's move them less. Error feedback adds what
    earlier, perhaps longer rounds left over; with fragments in turn, a node's own parameters have gone on since theirs was sent
    last."""
    left_over = 1 / max(1 - spec.encoding.error_decay, 0.02) - 1 if spec.encoding.kind == "topk" else 0.0
    turns = spec.network.fragments
    steps += (turns - 1) * spec.most_units // spec.inner.batch_size
    moves = steps + left_over * max(steps, turns * spec.inner.steps)
    return 2 * moves * spec.inner.learning_rate * math.sqrt(count)


def find_copies(
    updates: Mapping[int, Tensor], previous: Tensor | None, *, apart: Mapping[int, Mapping[int, float]] | None = None,
    as_one: bool = False,
) -> dict[int, HyperGPUError]:  # fmt: skip
    """Refusals `contribution.copy` by node id. `updates` (n,) fp32 by node id in the order of their commitments: the first of
    two alike is the original. `previous` is the aggregate of the round before (`node` of its refusal is None).

    An update may be a copy of an earlier one that is none itself, or of `previous`. Whether it stands out is judged by the whole
    round: of the earlier ones alone, who commits noise first makes the first two honest updates look like copies. In a round of
    unequal orders, whose distances are `apart` (None: all are equal), two of like orders are nearer to each other than to the
    rest: likeness to one is judged beside those whose orders are no farther away, likeness to `previous` beside those of about
    the same order. `as_one`: all move much alike (a model's fragment in its first turn), so only the same is a copy.
    """
    distances = {node: dict.fromkeys(updates, 1.0) for node in updates} if apart is None else apart
    alike, echo = cosines(list(updates.values())), echoes(updates, previous)
    originals: set[int] = set()
    refused: dict[int, HyperGPUError] = {}
    for node, row in zip(updates, alike, strict=True):
        try:
            others = {other: value for other, value in zip(updates, row, strict=True) if other != node}
            if as_one:
                others = {other: value for other, value in others.items() if value > SAME}
            refuse_copy(others, originals, distances[node])
            refuse_echo(node, {other: value for other, value in echo.items() if other == node or distances[node][other] <= ABOUT})
            originals.add(node)
        except HyperGPUError as error:
            refused[node] = error
    return refused


def orders_apart(submissions: Sequence[Submission]) -> dict[int, dict[int, float]]:
    """By node, how far its order is from each other one's: the larger number of samples as a multiple of the smaller; infinitely
    far when they send different encodings."""
    return {
        one.node_id: {other.node_id: order_distance(one, other) for other in submissions} for one in submissions
    }  # fmt: skip


def order_distance(one: Submission, other: Submission) -> float:
    if one.encoding != other.encoding:
        return math.inf
    return max(one.units, other.units) / max(1, min(one.units, other.units))


def echoes(updates: Mapping[int, Tensor], previous: Tensor | None) -> dict[int, float]:
    """By node id, the cosine of its update (n,) with the part of the previous aggregate (n,) that it could have sent: a sparse
    file has no room for all. Empty without an aggregate."""
    if previous is None:
        return {}
    return {node: cosines([update, torch.where(update != 0, previous, 0)])[0][1] for node, update in updates.items()}


def refuse_echo(node: int, echo: Mapping[int, float]) -> None:
    """Whether a node repeats the previous aggregate, beside what the round's others have of it: in early rounds all have much.
    Beside one other alone nobody stands out: the residual of top k is what the aggregate had and its file had no room for.

    Raises HyperGPUError `contribution.copy`.
    """
    if node in echo:
        others = [alike for other, alike in echo.items() if other != node]
        following = nearest(others, beyond=0) if len(others) > 1 else None
        assert_own(echo[node], following, source="the previous aggregate", node=None)


def refuse_copy(everyone: Mapping[int, float], originals: Collection[int], apart: Mapping[int, float]) -> None:
    """Cosines of one update with all others of the round by node id, of which `originals` came earlier and are no copies, and
    how far their orders are `apart` from its own.

    Raises HyperGPUError `contribution.copy`.
    """
    near = sorted(((alike, node) for node, alike in everyone.items() if node in originals), reverse=True)
    if near:
        [(alike, source), *earlier] = near
        beside = {node for node in everyone if apart[node] <= max(apart[source], ABOUT)}
        next_to_it = [value for value, node in earlier if node in beside]
        following = max(next_to_it[0], nearest([everyone[node] for node in beside], beyond=1)) if next_to_it else None
        assert_own(alike, following, source=f"the contribution of node {source}", node=source)


def nearest(everyone: list[float], *, beyond: int) -> float:
    """Cosine with the nearest of the round `beyond` the source. A quarter of the round is passed over, as far as there are
    others enough: copies that shield each other."""
    size = len(everyone) + 1
    return sorted(everyone, reverse=True)[beyond + max(0, min(size // 4, (size - 3) // 2))]


def assert_own(alike: float, following: float | None, *, source: str, node: int | None) -> None:
    """`alike` is the cosine with `source`, `following` that with the next to compare with, if there is one."""
    stands_out = following is not None and alike > NEAR and STANDS_OUT * (1 - alike) < 1 - following
    if alike > SAME or stands_out:
        raise HyperGPUError(
            "contribution.copy", f"The update is a copy of {source} (cosine {alike:.4f}).", node=node, cosine=alike
        )


def cosines(vectors: list[Tensor]) -> list[list[float]]:
    """Between all `vectors` (n,); 0 where one is zero."""
    products = gram(vectors)
    norms = [math.sqrt(products[i][i]) for i in range(len(vectors))]
    return [
        [product / (norms[i] * norms[j]) if norms[i] and norms[j] else 0.0 for j, product in enumerate(row)]
        for i, row in enumerate(products)
    ]
