"""What is known of nodes and their links, with age and source. What the coordinator saw itself counts before a node's word."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from marketplace.common.times import iso
from marketplace.operators.models import Measurement, Node
from marketplace.operators.selectors import online_since
from trainer.network.facts import Measure, NodeFacts, architecture_of
from trainer.protocol.spec import JobSpec

Quantity = Measurement.Quantity
OWN_VIEW = timedelta(hours=1)
"""So long what the coordinator saw counts before what a node says since."""
ASSUMED = {Quantity.RTT: 0.1, Quantity.UP: 1.25e6, Quantity.DOWN: 6.25e6, Quantity.SPEED: 100.0}
"""Until something is measured: a home's connection (10 Mbit/s up, 50 down), and a speed that the first order corrects."""


def better(one: Measurement, other: Measurement) -> Measurement:
    """Of two series of the same quantity: the coordinator's, unless it is old and the other newer."""
    own, word = (other, one) if one.claimed else (one, other)
    return word if word.at - own.at > OWN_VIEW else own


def best(rows: Iterable[Measurement]) -> dict[tuple[str, str], Measurement]:
    """By quantity and what it is of."""
    found: dict[tuple[str, str], Measurement] = {}
    for row in rows:
        key = (row.quantity, row.of)
        found[key] = better(found[key], row) if key in found else row
    return found


def fact(row: Measurement) -> dict[str, Any]:
    """A measured value as pages show it; the unit is its quantity's."""
    return {
        "value": float(f"{row.value:.6g}"), "deviation": float(f"{row.deviation:.6g}"), "at": iso(row.at), "source": row.source,
        "claimed": row.claimed, "samples": row.samples,
    }  # fmt: skip


def summary(rows: Iterable[Measurement]) -> dict[str, Any]:
    """The best of each quantity, and the speeds by architecture."""
    found = best(rows)
    single = {quantity: fact(row) for (quantity, of), row in found.items() if not of}
    return single | {"speeds": [{"of": of, **fact(row)} for (quantity, of), row in found.items() if quantity == Quantity.SPEED]}


def uplink(node: Node) -> float:
    """Bytes a second from the node to the coordinator: as measured, else as assumed."""
    return float(node.measured.get(Quantity.UP, {}).get("value") or ASSUMED[Quantity.UP])


def facts_of(nodes: Sequence[Node], spec: JobSpec, *, rates: Mapping[int, int] | None = None) -> list[NodeFacts]:
    """What is known of nodes for planning a round of a job, each value with age and source; what nobody has measured yet is
    assumed. Ways to other nodes are those to given ones that have an endpoint and are online. `rates` are prices in base units a
    sample. What a job's rounds say of reliability is not known here."""
    now, architecture = time.time(), architecture_of(spec)
    known: dict[int, dict[tuple[str, str], Measurement]] = {node.pk: {} for node in nodes}
    for row in Measurement.objects.filter(node__in=nodes).defer("history").order_by("id"):
        key = (row.quantity, row.of)
        mine = known[row.node_id]
        mine[key] = better(mine[key], row) if key in mine else row

    def measured(node: Node, quantity: Quantity, of: str = "") -> Measure | None:
        row = known[node.pk].get((quantity, of))
        return None if row is None else as_measure(row, now=now)

    reachable = {node.pk for node in nodes if node.endpoint and node.last_seen and node.last_seen >= online_since()}

    def to_others(node: Node, quantity: Quantity) -> dict[int, Measure]:
        mine = known[node.pk]
        return {peer: as_measure(mine[quantity, str(peer)], now=now) for peer in reachable if (quantity, str(peer)) in mine}

    def assumed(quantity: Quantity, factor: float = 1.0) -> Measure:
        return Measure(value=factor * ASSUMED[quantity], deviation=factor * ASSUMED[quantity] / 2)

    def goodput(node: Node, way: Quantity, other: Quantity) -> Measure:
        """As measured; of a link that was measured the other way alone, in proportion to that."""
        if (known := measured(node, way)) is not None:
            return known
        beside = measured(node, other)
        return assumed(way, beside.value / ASSUMED[other] if beside else 1.0)

    speeds = {node.pk: measured(node, Quantity.SPEED, architecture) for node in nodes}
    factor = architecture_factor(nodes, speeds)
    return [
        NodeFacts(
            node_id=node.pk,
            samples_per_second=speeds[node.pk] or benchmarked(node, factor, now=now) or assumed(Quantity.SPEED),
            up=goodput(node, Quantity.UP, Quantity.DOWN),
            down=goodput(node, Quantity.DOWN, Quantity.UP),
            rtt_s=measured(node, Quantity.RTT) or assumed(Quantity.RTT),
            loss=measured(node, Quantity.LOSS) or Measure(value=0.0),
            quality=node.quality_sum / (node.rounds * 10_000) if node.rounds else 1.0,
            rate=(rates or {}).get(node.pk, 0),
            near=to_others(node, Quantity.PEER_RTT),
            via=to_others(node, Quantity.UP),
            shared=to_others(node, Quantity.DOWN),
        )
        for node in nodes
    ]  # fmt: skip


def as_measure(row: Measurement, *, now: float) -> Measure:
    return Measure(
        value=row.value, deviation=row.deviation, age_s=max(now - row.at.timestamp(), 0.0), source=row.source,  # type: ignore[arg-type]
        samples=row.samples, claimed=row.claimed,
    )  # fmt: skip


def architecture_factor(nodes: Sequence[Node], speeds: Mapping[int, Measure | None]) -> float | None:
    """What a sample of an architecture costs beside one of the benchmark, by the nodes that have done both."""
    pairs = [(speeds[node.pk], node.samples_per_second) for node in nodes]
    ratios = [speed.value / benchmark for speed, benchmark in pairs if speed is not None and benchmark]
    return statistics.median(ratios) if ratios else None


def benchmarked(node: Node, factor: float | None, *, now: float) -> Measure | None:
    """A newcomer's speed, from its benchmark of another network and what the others' are worth; without others, as it is."""
    if not node.samples_per_second or node.samples_at is None:
        return None
    value = node.samples_per_second * (1.0 if factor is None else factor)
    return Measure(
        value=value, deviation=value / 2, age_s=max(now - node.samples_at.timestamp(), 0.0), source="benchmark", samples=1,
        claimed=True,
    )  # fmt: skip
