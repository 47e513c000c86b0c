"""Whose upload goes by way of a near node (a gatherer), and what it fetches from near nodes. Pure arithmetic.

A gatherer passes on what near nodes have signed, byte for byte and as it comes: nothing is summed, since everybody's work is
judged and paid on its own (docs/adr). What it gains is TCP's: on a long or lossy path one connection stays below what the link
carries, at a rate that falls with the round trip (Mathis et al. 1997). A short way to a node whose own long way is good splits
that path in two (RFC 3135, split connections). Where the uplink itself is the narrow place, nothing is gained: it stays direct.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.network.facts import Measure, NodeFacts, Reason
from trainer.network.sources import NEARER, sources_of
from trainer.network.transfers import BOUND, connection_rate

FASTER = 0.7
"""A way by a gatherer is taken when it is predicted to take at most this part of the direct way's time."""
MOST_GAIN = 4.0
"""What nobody has tried is not believed to be faster than this multiple of the direct way: where the uplink ends is not known."""
OLD_S = 1800.0
"""Age from which a measured way says nothing any more: the direct one is measured again, one by a gatherer predicted again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """`up`: bytes/s that a node's upload is predicted to flow at, by way of node `via`, or direct. For a gatherer it is what the
    others leave of its uplink."""

    up: Measure
    reason: Reason
    via: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """By way of `via`: seconds, bytes/s, and the samples that are trained on more, all nodes together."""

    via: int
    seconds: float
    up: Measure
    gain: float


def routes(facts: Sequence[NodeFacts], *, sizes: Mapping[int, float]) -> dict[int, Route]:
    """The route of each node about which there is something to decide: it has near nodes, or carries for others. `sizes` are
    bytes of the uploads. Whoever takes longest chooses first; nobody's gatherer has one itself."""
    known = {fact.node_id: fact for fact in facts}
    direct = {node: fact.rtt_s.value + sizes[node] / fact.up.value for node, fact in known.items()}
    found: dict[int, Route] = {}
    carried: dict[int, list[int]] = {}
    for node in sorted(known, key=lambda node: (-direct[node], node)):
        fact = known[node]
        near = [peer for peer in sorted(fact.near) if peer in known and is_near(fact, peer)]
        if not near or node in carried or fact.up.source == "assumed":
            continue
        if fact.up.age_s > OLD_S:
            text = f"Its direct way was last measured {fact.up.age_s / 60:.0f} minutes ago: its upload goes direct, to see."
            found[node] = Route(up=fact.up, reason=Reason(code="upload.direct", text=text))
            continue
        load = {peer: sizes[peer] + sum(sizes[one] for one in carried.get(peer, [])) for peer in near}
        ways = [
            way_of(fact, known[peer], size=sizes[node], load=load[peer], direct_s=direct[node])
            for peer in near if peer not in found or found[peer].via is None
        ]  # fmt: skip
        best = max(ways, key=lambda way: (way.gain, -way.via), default=None)
        if best is None:
            continue
        if best.gain > 0 and best.seconds <= FASTER * direct[node]:
            carried.setdefault(best.via, []).append(node)
            found[node] = Route(up=best.up, via=best.via, reason=gathered(fact, best, direct_s=direct[node]))
        else:
            found[node] = Route(up=fact.up, reason=not_gathered(fact, best, direct_s=direct[node]))
    return found | {node: carrying(known[node], others, sizes) for node, others in carried.items()}


def is_near(fact: NodeFacts, peer: int) -> bool:
    return peer != fact.node_id and fact.rtt_s.value > 0 and fact.near[peer].value <= NEARER * fact.rtt_s.value


def way_of(fact: NodeFacts, gatherer: NodeFacts, *, size: float, load: float, direct_s: float) -> Way:
    """What a node's upload of `size` bytes takes by way of a gatherer whose uplink has `load` bytes to send anyway. The time that
    they hold up the gatherer's own work counts against it, as if all were sent at once. A way that was measured was so with the
    opening of its connections."""
    leg, share = first_leg(fact, gatherer.node_id), part_of_uplink(gatherer, size / (load + size))
    up = leg if leg.value <= share.value else share
    round_trip = fact.near[gatherer.node_id].value + gatherer.rtt_s.value
    seconds = (1 if leg.source == "transfer" else 2) * round_trip + size / up.value
    cost = size / uplink(gatherer) * gatherer.samples_per_second.value
    gain = (direct_s - seconds) * fact.samples_per_second.value - cost
    return Way(via=gatherer.node_id, seconds=seconds, up=up, gain=gain)


def part_of_uplink(fact: NodeFacts, part: float) -> Measure:
    """Goodput of one upload that has `part` of a node's uplink."""
    up = fact.up
    value = min(up.value, uplink(fact) * part)
    return replace(up, value=value, deviation=up.deviation * value / up.value)


def uplink(fact: NodeFacts) -> float:
    """Bytes/s that a node's uplink carries at least, by several connections."""
    return fact.up.value * (MOST_GAIN if is_bound_by_tcp(fact.up.value, fact) else 1.0)


def fed(facts: Sequence[NodeFacts], gatherers: Collection[int], *, size: float) -> dict[int, Measure]:
    """Bytes/s at which the outer step of `size` bytes comes to each node that asks a near one for it."""
    known = {fact.node_id: fact for fact in facts}
    found = {}
    for fact in facts:
        if (source := source_of(fact, among=known, gatherers=gatherers)) is not None:
            found[fact.node_id] = shared_by(fact, known[source], size=size)
    return found


def source_of(fact: NodeFacts, *, among: Collection[int], gatherers: Collection[int]) -> int | None:
    """The node that it asks first."""
    near = {peer: rtt.value for peer, rtt in fact.near.items() if peer in among}
    return next(iter(sources_of(fact.node_id, rtt_s=fact.rtt_s.value, peers=near, gatherers=gatherers)), None)


def shared_by(fact: NodeFacts, source: NodeFacts, *, size: float) -> Measure:
    """As measured lately, else: the source fetches it, then passes it on over a short way."""
    tried = fact.shared.get(source.node_id)
    if tried is not None and tried.age_s <= OLD_S:
        return tried
    leg = by_tcp(fact.down.value, fact, source.node_id)
    seconds = source.rtt_s.value + size / source.down.value + size / leg
    value = size / seconds if size > 0 else leg
    return Measure(value=value, deviation=value / 2, age_s=fact.down.age_s, source="peer", samples=1, claimed=True)


def first_leg(fact: NodeFacts, peer: int) -> Measure:
    """Bytes/s that get through by way of a peer: as measured lately, else by TCP's model from the direct way."""
    tried = fact.via.get(peer)
    if tried is not None and tried.age_s <= OLD_S:
        return tried
    value = by_tcp(fact.up.value, fact, peer)
    claimed = fact.near[peer].claimed
    return Measure(value=value, deviation=value / 2, age_s=fact.up.age_s, source="peer", samples=1, claimed=claimed)


def by_tcp(direct: float, fact: NodeFacts, peer: int) -> float:
    """Bytes/s to or from a near node, of those to or from the coordinator: more, if TCP and not the link keeps them low."""
    if not is_bound_by_tcp(direct, fact):
        return direct
    return direct * fact.rtt_s.value / max(fact.near[peer].value, fact.rtt_s.value / MOST_GAIN)


def is_bound_by_tcp(rate: float, fact: NodeFacts) -> bool:
    """Whether TCP, not the link, keeps one connection to the coordinator at `rate` (bytes/s)."""
    return fact.rtt_s.value > 0 and rate >= BOUND * connection_rate(fact.rtt_s.value, fact.loss.value)


def gathered(fact: NodeFacts, way: Way, *, direct_s: float) -> Reason:
    how = "measured before" if way.up.source == "transfer" else "predicted"
    text = (
        f"Its upload goes by way of node {way.via}, {1000 * fact.near[way.via].value:.0f} ms away: {way.seconds:.1f} s ({how}) "
        f"instead of {direct_s:.1f} s over its own {1000 * fact.rtt_s.value:.0f} ms. If that does not go well it goes direct."
    )
    return Reason(code="upload.gathered", text=text)


def not_gathered(fact: NodeFacts, way: Way, *, direct_s: float) -> Reason:
    too_dear = way.seconds <= FASTER * direct_s
    why = "and hold up that node's own work for more than it saves." if too_dear else "which is not worth it."
    text = (
        f"Its upload goes direct, in {direct_s:.1f} s: by way of node {way.via}, {1000 * fact.near[way.via].value:.0f} ms away, "
        f"it would take {way.seconds:.1f} s, {why}"
    )
    return Reason(code="upload.direct", text=text)


def carrying(fact: NodeFacts, others: Sequence[int], sizes: Mapping[int, float]) -> Route:
    """What is left to a gatherer while all send at once."""
    total = sizes[fact.node_id] + sum(sizes[one] for one in others)
    text = (
        f"It passes on the uploads of {len(others)} near {'node' if len(others) == 1 else 'nodes'} "
        f"({', '.join(map(str, sorted(others)))}; {(total - sizes[fact.node_id]) / 1e6:.3g} MB), whose own ways are slower."
    )
    up = part_of_uplink(fact, sizes[fact.node_id] / total)
    return Route(up=up, reason=Reason(code="upload.gathers", text=text))
