"""What a coordinator of a simulated job knows of its nodes: not the profile, but what its own traffic has shown.

Before a node's first order it has the node's own benchmark and one probe of its link each way; both may be wrong. Then each
kept order shows how long the fetch, the computing and the upload took, as the virtual clock had them: with jitter, outages and
whatever the link did on the way. The estimators are those of the live system (`trainer.network.estimators`).
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer.network.estimators import LOSS_MEMORY, Estimate, part, rate, smoothed
from trainer.network.facts import Measure, NodeFacts, Source
from trainer.network.health import Standing, assess, recent
from trainer.network.predict import Prediction, relative_errors
from trainer.simulation.network import Network, measured

WRONG = 0.15
"""Standard deviation of the first benchmark and of each probe, relative."""
PROBED, SEGMENT = 200, 1448
"""Packets of the first probe of a link, and bytes that one of a transfer carries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """Seconds and amounts of a kept order: bytes fetched and sent, samples trained on, `ahead_s` of the computing before what was
    fetched had come. `via`: the node by way of which it was sent, or was to be: `fell_back` if it went direct in the end;
    `source`: the node that gave what was fetched."""

    fetched: float
    fetch_s: float
    samples: float
    compute_s: float
    sent: float
    upload_s: float
    ahead_s: float = 0.0
    via: int | None = None
    fell_back: bool = False
    source: int | None = None


@dataclass(slots=True)
class Known:
    """Of one node; speeds in samples/s and bytes/s, `rtt` in seconds. `up` was last seen at `up_at`; `via` and `shared`: by
    way of a node and from it, with when that was last seen; `near`: round trips to others in seconds. Newest first: `orders`
    with their rounds and whether it kept them, `qualities` (0..1) of what it handed in, `errors` of predictions, relative.
    `there` of the `looks` at who takes part."""

    speed: Estimate
    up: Estimate
    down: Estimate
    rtt: Estimate
    loss: Estimate
    since: float = 0.0
    source: Source = "benchmark"
    orders: list[tuple[int, bool]] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)
    standing: Standing | None = None
    there: int = 0
    looks: int = 0
    errors: list[float] = field(default_factory=list)
    up_at: float = 0.0
    via: dict[int, tuple[Estimate, float]] = field(default_factory=dict)
    shared: dict[int, tuple[Estimate, float]] = field(default_factory=dict)
    near: dict[int, Estimate] = field(default_factory=dict)


class Observer:
    """Knows of nodes what was seen of them."""

    def __init__(self, network: Network, *, seed: int) -> None:
        self.network = network
        self.random = random.Random(f"{seed}:observer")
        self.nodes: dict[int, Known] = {}

    def facts(self, node: int, now: float) -> NodeFacts:
        """What is known at `now` (seconds). Whoever is asked about for the first time is probed."""
        known = self.nodes.get(node) or self.probe(node, now)
        link: Source = "transfer" if known.source == "work" else "probe"

        def measure(estimate: Estimate, source: Source, at: float = known.since) -> Measure:
            return Measure(
                value=estimate.value, deviation=estimate.deviation, age_s=now - at, source=source, samples=estimate.samples
            )  # fmt: skip

        for peer, there in measured(self.network, node, now).near.items():
            known.near[peer] = smoothed(known.near.get(peer), self.wrong(there.value))
        return NodeFacts(
            node_id=node, samples_per_second=measure(known.speed, known.source), up=measure(known.up, link, known.up_at),
            down=measure(known.down, link), rtt_s=measure(known.rtt, "heartbeat"), loss=measure(known.loss, link),
            reliability=recent([float(kept) for _, kept in known.orders]), quality=recent(known.qualities),
            uptime=known.there / known.looks if known.looks else 1.0, spread=recent(known.errors, unknown=0.0),
            near={peer: measure(estimate, "peer") for peer, estimate in known.near.items()},
            via={peer: measure(estimate, "transfer", at) for peer, (estimate, at) in known.via.items()},
            shared={peer: measure(estimate, "transfer", at) for peer, (estimate, at) in known.shared.items()},
        )  # fmt: skip

    def probe(self, node: int, now: float) -> Known:
        there = measured(self.network, node, now)
        first = (self.wrong(value.value) for value in (there.samples_per_second, there.up, there.down, there.rtt_s))
        speed, up, down, rtt = (Estimate(value=value, deviation=WRONG * value) for value in first)
        loss = self.seen_lost(None, there.loss.value, packets=PROBED)
        self.nodes[node] = known = Known(speed, up, down, rtt, loss, since=now, up_at=now)
        return known

    def seen_lost(self, known: Estimate | None, loss: float, *, packets: int) -> Estimate:
        """What so many packets more show of a link that loses the part `loss` of them."""
        return part(known, hits=sum(self.random.random() < loss for _ in range(packets)), trials=packets)

    def wrong(self, value: float) -> float:
        return value * max(0.5, self.random.gauss(1.0, WRONG))

    def kept(self, node: int, now: float, timed: Timed, predicted: Prediction | None) -> None:
        """An order's work has come at `now`."""
        known = self.nodes[node]
        trip = 2 * (self.network.machines[node].delay(now) + self.network.coordinator.delay(now))
        known.rtt = smoothed(known.rtt, max(1e-4, trip))
        lost = measured(self.network, node, now).loss.value
        known.loss = self.seen_lost(known.loss, lost, packets=min(int(timed.sent / SEGMENT) + 1, LOSS_MEMORY))
        known.speed = self.first_or(known.speed, timed.samples, timed.compute_s)
        if timed.via is None:
            known.up, known.up_at = self.first_or(known.up, timed.sent, timed.upload_s - known.rtt.value), now
        else:  # one that failed says more than those before it
            before = None if timed.fell_back or timed.via not in known.via else known.via[timed.via][0]
            known.via[timed.via] = rate(before, amount=timed.sent, seconds=max(timed.upload_s, 1e-3)), now
        if timed.source is not None:
            before = known.shared[timed.source][0] if timed.source in known.shared else None
            known.shared[timed.source] = rate(before, amount=timed.fetched, seconds=max(timed.fetch_s, 1e-3)), now
        elif timed.fetched:
            known.down = self.first_or(known.down, timed.fetched, timed.fetch_s - known.rtt.value)
        if predicted is not None:
            actual = timed.fetch_s + timed.compute_s + timed.upload_s - timed.ahead_s
            known.errors[:0] = relative_errors([(predicted.total_s, actual)])
        known.since, known.source = now, "work"

    def first_or(self, estimate: Estimate, amount: float, seconds: float) -> Estimate:
        """With real work a benchmark or probe is forgotten."""
        return rate(estimate if estimate.samples else None, amount=amount, seconds=max(seconds, 1e-3))

    def looked(self, there: Sequence[int]) -> None:
        """Who of the known nodes is there as a round begins."""
        for node, known in self.nodes.items():
            known.looks += 1
            known.there += node in there

    def ordered(self, node: int, round: int, *, kept: bool) -> None:
        """What became of the node's order of a round."""
        self.nodes[node].orders.insert(0, (round, kept))

    def broken(self, node: int) -> None:
        """Its newest order, which was to take several rounds, will not be kept."""
        known = self.nodes[node]
        known.orders[0] = (known.orders[0][0], False)

    def judged(self, node: int, quality: float) -> None:
        """`quality` (0..1) of work that the node handed in, 0 where it was refused."""
        self.nodes[node].qualities.insert(0, quality)

    def standings(self, facts: Sequence[NodeFacts], *, round: int) -> dict[int, Standing]:
        """Each node's health for a round, from its health in the one before."""
        if not facts:
            return {}
        median = statistics.median(fact.samples_per_second.value for fact in facts)
        for fact in facts:
            known = self.nodes[fact.node_id]
            known.standing = assess(fact, known.standing, round=round, median_speed=median, kept=kept_last(known))
        return {fact.node_id: standing for fact in facts if (standing := self.nodes[fact.node_id].standing) is not None}


def kept_last(known: Known) -> bool | None:
    """Whether the last order was kept; on probation, of those since that began."""
    if not known.orders:
        return None
    round, kept = known.orders[0]
    on_probation = known.standing is not None and known.standing.level == "probation" and round < known.standing.until
    return None if on_probation else kept
