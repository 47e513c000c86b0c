"""Emulated machines, and how long a transfer between two of them takes: on the virtual clock (trainer.simulation) and on real
sockets (shaper.py).

A transfer waits one round trip (the request), then flows at the least of the sender's uplink, the receiver's downlink, and what
TCP reaches on a lossy path: at most MSS / RTT * sqrt(3 / (2 p)) for one connection (Mathis, Semke, Mahdavi and Ott 1997, "The
macroscopic behavior of the TCP congestion avoidance algorithm"). That is Reno's; BBR does better on random loss. Slow start is
left out: it costs a few round trips. An outage stops a transfer, which goes on afterwards where it stopped.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from trainer.network.profiles import LinkSpec, NodeSpec, TraceRecord

MSS_BITS = 1460 * 8
"""Of a TCP segment over Ethernet."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of one machine at one moment: samples/s, bit/s, seconds one way, part of packets lost. Not there: all speeds 0."""

    samples_per_second: float
    up_bps: float
    down_bps: float
    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0


AWAY = Conditions(0, 0, 0)


class Machine:
    """Conditions over time: steps of a timeline, with outages of the link drawn by `seed` in between."""

    def __init__(
        self, timeline: Iterable[tuple[float, Conditions]], *, seed: str, every_s: float | None = None, lasting_s: float = 0.0
    ) -> None:
        self.timeline = list(timeline)
        self.times = [time for time, _ in self.timeline]
        self.every_s, self.lasting_s = every_s, lasting_s
        self.random = random.Random(f"{seed}:outages")
        self.jitter = random.Random(f"{seed}:jitter")
        self.borders: list[float] = []
        """Starts and ends of outages in turn, as far as anybody has asked."""

    def at(self, time: float) -> Conditions:
        place = bisect_right(self.times, time) - 1
        known = self.timeline[place][1] if place >= 0 else AWAY
        if known is not AWAY and bisect_right(self.drawn(time), time) % 2:
            return replace(known, up_bps=0.0, down_bps=0.0)
        return known

    def gone(self, time: float) -> bool:
        """Whether it has left for good."""
        return self.timeline[-1][1] is AWAY and time >= self.times[-1]

    def change_after(self, time: float) -> float:
        """When the conditions may be others next; infinity when they stay."""
        if self.gone(time):
            return math.inf
        place, border = bisect_right(self.times, time), bisect_right(self.drawn(time), time)
        return min([*self.times[place : place + 1], *self.borders[border : border + 1]], default=math.inf)

    def drawn(self, time: float) -> list[float]:
        """`borders`, at least one of them beyond `time` if there are outages at all."""
        while self.every_s is not None and (not self.borders or self.borders[-1] <= time):
            mean = self.lasting_s if len(self.borders) % 2 else self.every_s
            self.borders.append((self.borders[-1] if self.borders else 0.0) + self.random.expovariate(1 / mean))
        return self.borders

    def delay(self, time: float) -> float:
        """Seconds one way to the network's core, drawn anew each time."""
        now = self.at(time)
        return now.latency_s + abs(self.jitter.gauss(0.0, now.jitter_s)) if now.jitter_s else now.latency_s

    def computed(self, start: float, samples: float) -> float:
        """When `samples` that begin at `start` are trained on."""
        return finish(start, samples, lambda time: self.at(time).samples_per_second, self.change_after)


def machine_of(spec: NodeSpec, *, seed: str) -> Machine:
    steps = [(spec.joins_s, Conditions(spec.samples_per_second, *link_of(spec)))]
    if spec.leaves_s is not None:
        steps.append((spec.leaves_s, AWAY))
    return Machine(steps, seed=seed, every_s=spec.outage_every_s, lasting_s=spec.outage_s)


def recorded_machine(records: Iterable[TraceRecord], *, seed: str) -> Machine:
    return Machine([(one.time, Conditions(one.samples_per_second, *link_of(one))) for one in records], seed=seed)


def server_of(spec: LinkSpec, *, sharing: int) -> Machine:
    """The coordinator as one of `sharing` nodes sees it that all transfer at once: its bandwidth in equal parts. That is the
    worst case; nodes that come one after another have more."""
    up, down, *rest = link_of(spec)
    return Machine([(0.0, Conditions(0, up / sharing, down / sharing, *rest))], seed="coordinator")


def link_of(spec: LinkSpec | TraceRecord) -> tuple[float, float, float, float, float]:
    return spec.up_bps, spec.down_bps, spec.latency_s, spec.jitter_s, spec.loss


def mathis_bps(rtt_s: float, loss: float) -> float:
    """bit/s that one TCP connection reaches at most; infinity without loss or delay."""
    return MSS_BITS / rtt_s * math.sqrt(1.5 / loss) if rtt_s > 0 and loss > 0 else math.inf


def link_bps(sender: Conditions, receiver: Conditions) -> float:
    """bit/s between two machines, by as many connections as it takes."""
    return min(sender.up_bps, receiver.down_bps)


def path_rtt(sender: Conditions, receiver: Conditions) -> float:
    return 2 * (sender.latency_s + receiver.latency_s)


def path_loss(sender: Conditions, receiver: Conditions) -> float:
    return 1 - (1 - sender.loss) * (1 - receiver.loss)


def path_bps(sender: Conditions, receiver: Conditions) -> float:
    """bit/s between two machines, by one connection."""
    return min(link_bps(sender, receiver), mathis_bps(path_rtt(sender, receiver), path_loss(sender, receiver)))


def transferred(
    sender: Machine, receiver: Machine, start: float, size: float, *, round_trips: float = 1.0, sharing: int = 1
) -> float:  # fmt: skip
    """When the last of `size` bytes that are asked for at `start` has come; infinity when one of the two is gone for good.
    `round_trips` 0.5 on a connection that is open; `sharing`: transfers that the sender's uplink is shared by."""
    return passed_on([(sender, receiver)], start, size, round_trips=round_trips, sharing=sharing)


def passed_on(
    legs: Sequence[tuple[Machine, Machine]], start: float, size: float, *, round_trips: float = 1.0, sharing: int = 1
) -> float:  # fmt: skip
    """As `transferred`, over connections one behind the other, each passing on what comes as it comes: the slowest sets the rate.
    The uplink of the last leg's sender is shared."""
    machines = [machine for leg in legs for machine in leg]
    waited = start + 2 * round_trips * math.fsum(machine.delay(start) for machine in machines)

    def change_after(time: float) -> float:
        over = any(machine.gone(time) for machine in machines)
        return math.inf if over else min(machine.change_after(time) for machine in machines)

    def bps(time: float) -> float:
        last, receiver = (machine.at(time) for machine in legs[-1])
        end = path_bps(replace(last, up_bps=last.up_bps / sharing), receiver)
        return min([end, *(path_bps(sender.at(time), receiver.at(time)) for sender, receiver in legs[:-1])])

    return finish(waited, 8 * size, bps, change_after)


def finish(start: float, amount: float, rate: Callable[[float], float], change_after: Callable[[float], float]) -> float:
    """When `amount` is done that begins at `start` (seconds): `rate(time)` a second, constant until `change_after(time)`.
    Infinity when it never is."""
    now, left = start, amount
    while left > 0:
        speed, change = rate(now), change_after(now)
        if speed > 0 and left <= speed * (change - now):
            return now + left / speed
        if math.isinf(change):
            return math.inf
        left -= speed * (change - now)
        now = change
    return now
