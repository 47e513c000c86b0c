"""Fragments of a model, synchronised in turn: round r sends, aggregates and steps fragment r mod `network.fragments` alone
(Streaming DiLoCo, arXiv:2501.18512). What a round moves over links is so many times less; the other fragments of a node go on
from where its own steps have led.

A fragment is whole tensors. Which ones follows from names and shapes alone: the largest first, each to the fragment that holds
the least, so tensors of one size, which are those of a network's equal layers, are dealt out in strides over the layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.diloco.encoding import Encoded, encode
from trainer.diloco.flat import Shapes
from trainer.diloco.outer import OuterState, apply_delta
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec

Sized = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes by name, in order of the names."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of flat vectors (n,) of parameters, as slices of them; `count` values in all. A fragment that is the whole vector
    copies nothing."""

    spans: tuple[slice, ...]
    count: int
    whole: int

    def take(self, vector: Tensor) -> Tensor:
        """(count,): the fragment's values of `vector` (n,)."""
        return vector if self.count == self.whole else torch.cat([vector[span] for span in self.spans])

    def put(self, vector: Tensor, values: Tensor) -> Tensor:
        """`vector` (n,) with `values` (count,) in the fragment's place; neither is changed."""
        if self.count == self.whole:
            return values
        result, parts = vector.clone(), values.split([span.stop - span.start for span in self.spans])
        for span, part in zip(self.spans, parts, strict=True):
            result[span] = part
        return result

    def spread(self, values: Tensor) -> Tensor:
        """(n,): `values` (count,) in their places, zeros elsewhere."""
        return values if self.count == self.whole else self.put(torch.zeros(self.whole), values)

    def clear(self, vector: Tensor) -> Tensor:
        """`vector` (n,) with zeros in the fragment's place."""
        return self.put(vector, torch.zeros(self.count))


class Own(NamedTuple):
    """Where a node's own parameters are after its order of `round`: they have moved by `movement` (n,) from that round's base,
    as its trace says."""

    round: int
    movement: Tensor


def whole(count: int) -> Fragment:
    """All of a vector of `count` values."""
    return Fragment((slice(0, count),), count, count)


def fragment_of(shapes: Shapes, spec: JobSpec, number: int) -> Fragment:
    """What round `number` synchronises. Raises HyperGPUError `model.too_few_tensors`."""
    many = spec.network.fragments
    return fragments(tuple(sorted(shapes.items())), many)[number % many]


@lru_cache(maxsize=16)
def fragments(shapes: Sized, many: int) -> tuple[Fragment, ...]:
    starts, at = {}, 0
    for name, shape in shapes:
        starts[name], at = at, at + math.prod(shape)
    ends = {name: starts[name] + math.prod(shape) for name, shape in shapes}
    return tuple(
        Fragment(spans(slice(starts[name], ends[name]) for name in names), sum(ends[name] - starts[name] for name in names), at)
        for names in cut(dict(shapes), many)
    )


def cut(shapes: Shapes, many: int) -> list[list[str]]:
    """Names of each fragment's tensors, sorted. No two fragments differ by more than the largest tensor. Raises HyperGPUError
    `model.too_few_tensors`."""
    if len(shapes) < many:
        text = f"A model of {len(shapes)} tensors cannot be cut into {many} fragments: lower network.fragments."
        raise HyperGPUError("model.too_few_tensors", text)
    found: list[list[str]] = [[] for _ in range(many)]
    held = [0] * many
    for name in sorted(shapes, key=lambda name: (-math.prod(shapes[name]), by_layer(name))):
        least = min(range(many), key=lambda place: (held[place], len(found[place]), place))
        found[least].append(name)
        held[least] += math.prod(shapes[name])
    return [sorted(names) for names in found]


def by_layer(name: str) -> list[str | int]:
    """A sort key in which layer 10 comes after layer 2."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def spans(parts: Iterable[slice]) -> tuple[slice, ...]:
    """The same in ascending order, neighbours as one."""
    joined: list[slice] = []
    for part in parts:
        if joined and joined[-1].stop == part.start:
            joined[-1] = slice(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return tuple(joined)


# What a round does to its fragment.


def part_of(state: OuterState, fragment: Fragment) -> OuterState:
    """The outer state of the fragment alone."""
    return OuterState(*(None if value is None else fragment.take(value) for value in (state.params, state.momentum, state.error)))  # type: ignore[arg-type]


def with_part(state: OuterState, fragment: Fragment, part: OuterState) -> OuterState:
    """`state` with the fragment's part of it as in `part`."""

    def put(whole: Tensor | None, values: Tensor | None) -> Tensor | None:
        return None if whole is None or values is None else fragment.put(whole, values)

    return OuterState(fragment.put(state.params, part.params), put(state.momentum, part.momentum), put(state.error, part.error))


def stepped(params: Tensor, delta: bytes, spec: JobSpec, *, shapes: Shapes, number: int) -> Tensor:
    """The version (n,) after round `number`, whose outer step is `delta`, from the one before. Raises HyperGPUError
    `artifact.*`."""
    fragment = fragment_of(shapes, spec, number)
    return fragment.put(params, apply_delta(fragment.take(params), delta, spec))


def encode_fragment(vector: Tensor, spec: EncodingSpec, fragment: Fragment, *, error: Tensor | None) -> Encoded:
    """As `encode`, the file and values of the fragment of `vector` (n,) alone; `error`, before and after, is of all (n,)."""
    encoded = encode(fragment.take(vector), spec, error=None if error is None else fragment.take(error))
    if fragment.count == fragment.whole or (error is None and encoded.error is None):
        return encoded
    unsent = torch.zeros(fragment.count) if encoded.error is None else encoded.error
    return encoded._replace(error=fragment.put(torch.zeros(fragment.whole) if error is None else error, unsent))


def begun(own: Own | None, spec: JobSpec, *, shapes: Shapes, number: int) -> Tensor | None:
    """How far (n,) a node's parameters are from the base of round `number` when it begins: as far as they had moved in its last
    order, but for the fragments that were synchronised since. None, which is nowhere, for a node with nothing of its own left,
    and for whole models."""
    if own is None or not 0 < number - own.round < spec.network.fragments:
        return None
    movement = own.movement
    for earlier in range(own.round, number):
        movement = fragment_of(shapes, spec, earlier).clear(movement)
    return movement
