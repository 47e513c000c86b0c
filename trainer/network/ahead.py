"""Nodes that begin an order before it is given (`network.overlap` eager, ADR 35), as a plan reckons with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.network.facts import NodeFacts
from trainer.network.predict import LEAST_DOUBT, predict
from trainer.protocol.spec import JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """A node that began the coming round's order in advance (`network.overlap` eager): seconds of computing for which it has been
    at it, and at how many local steps it stops if the order's base is not there by then."""

    seconds: float
    steps: int


def lead(fact: NodeFacts, spec: JobSpec, ahead: Ahead, *, fetch: float) -> Ahead:
    """How far a node will be ahead: seconds of computing when it has fetched `fetch` bytes; steps when it hears of its
    order, and from then on goes no further than that says: whole segments, rather one too many."""
    speed, stride = fact.samples_per_second.value / spec.inner.batch_size, spec.audit.stride
    fetching = fact.rtt_s.value + fetch / fact.down.value
    heard = (1 + LEAST_DOUBT) * (ahead.seconds + fact.rtt_s.value)
    return Ahead(
        seconds=min(ahead.seconds + fetching, ahead.steps / speed),
        steps=min(math.floor(heard * speed / stride) + 1, ahead.steps // stride) * stride,
    )


def within(leads: Mapping[int, int], *, spare: int, least: int) -> dict[int, int]:
    """Those of the `leads` that `spare` steps beyond everybody's `least` are enough for, short ones first."""
    found = {}
    for node in sorted(leads, key=lambda node: (leads[node], node)):
        spare -= max(leads[node] - least, 0)
        if spare >= 0:
            found[node] = leads[node]
    return found


def transfer_seconds(
    facts: Sequence[NodeFacts], *, fetches: Mapping[int, float], uploads: Mapping[int, float], leads: Mapping[int, Ahead]
) -> dict[int, float]:
    """What of each node's part is not computing, less what is computed in advance. That may be more than its transfers, so
    seconds are counted from when the first of them began: none is negative, and no budget is passed."""
    found = {}
    for fact in facts:
        node = fact.node_id
        predicted = predict(fact, samples=0, fetch_bytes=fetches[node], upload_bytes=uploads[node])
        found[node] = predicted.total_s - (leads[node].seconds if node in leads else 0.0)
    first = min(0.0, *found.values())
    return {node: seconds - first for node, seconds in found.items()}
