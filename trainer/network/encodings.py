"""The encoding that a node's link carries: the job's own where it fits, else the densest that does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.network.facts import NodeFacts, Reason
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.wire import encoded_bytes

DENSE = ("fp32", "bf16", "int8", "int4")
"""Kinds, from the largest on."""
SPARSE = (8, 16, 32, 64)
"""Top k keeps one value of so many; 64 times fewer values is the sparsest that was measured to train (k 64 of 4,096)."""
STAY = 1.3
"""An encoding that is in use may take this multiple of the budget before it is given up,"""
RETURN = 0.7
"""and a denser one must fit into this part of it before it is taken again."""


def ladder(own: EncodingSpec) -> list[EncodingSpec]:
    """The job's own encoding, then what is smaller: no denser one trains better (docs/guides/network.md)."""
    if own.kind == "topk":
        fewer = [own.model_copy(update={"k": max(1, own.chunk // part)}) for part in SPARSE]
        return [own, *(one for one in fewer if one.k < own.k)]
    dense = [own.model_copy(update={"kind": kind}) for kind in DENSE[DENSE.index(own.kind) + 1 :]]
    return [own, *dense, *(own.model_copy(update={"kind": "topk", "k": max(1, own.chunk // part)}) for part in SPARSE)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    encoding: EncodingSpec
    reason: Reason


def fitting(
    fact: NodeFacts, own: EncodingSpec, *, sizes: Sequence[float], budget_s: float, before: EncodingSpec | None = None
) -> Choice:
    """The first of `ladder(own)`, whose files have `sizes` bytes, that goes up within `budget_s` at the link's goodput, else
    the last. One that was used `before` is kept while it about fits, so that a link that wavers does not change it each
    round: the error feedback of top k lives between rounds. What was chosen before anything went up is no reason to stay."""
    rungs = ladder(own)
    seconds = [size / fact.up.value for size in sizes]
    place = next((place for place, taken in enumerate(seconds) if taken <= budget_s), len(rungs) - 1)
    if before in rungs and fact.up.samples > 1:
        held = rungs.index(before)
        steadier = (held > place and seconds[place] > RETURN * budget_s) or (held < place and seconds[held] <= STAY * budget_s)
        if steadier and held != place:
            text = f"{named(before)} as before: at {speed(fact)} its file takes {seconds[held]:.1f} s, of {budget_s:.1f} s meant."
            return Choice(encoding=before, reason=Reason(code="encoding.kept", text=text))
    chosen = rungs[place]
    if place == 0:
        text = f"{named(chosen)}, the job's own: at {speed(fact)} its file takes {seconds[0]:.1f} s of {budget_s:.1f} s meant."
        return Choice(encoding=chosen, reason=Reason(code="encoding.own", text=text))
    text = (
        f"{named(chosen)} instead of {named(own)}: at {speed(fact)} that takes {seconds[0]:.1f} s, this {seconds[place]:.1f} s; "
        f"{budget_s:.1f} s are meant for sending."
    )
    return Choice(encoding=chosen, reason=Reason(code="encoding.link", text=text))


def file_sizes(own: EncodingSpec, *, count: int, scale: float) -> list[float]:
    """Bytes of a file of `count` values by each encoding of the ladder, multiplied by `scale`."""
    return [scale * encoded_bytes(count, one) for one in ladder(own)]


def named(encoding: EncodingSpec) -> str:
    return f"top {encoding.k} of {encoding.chunk}" if encoding.kind == "topk" else encoding.kind


def speed(fact: NodeFacts) -> str:
    return f"{8 * fact.up.value / 1e6:.3g} Mbit/s up ({fact.up.source})"
