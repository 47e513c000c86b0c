"""A link shaper in userspace: real TCP connections get the latency, bandwidth, losses and outages of a profile's machines.

    agent -> 127.0.0.1:port of its link -> (shaped) -> coordinator
    agent -> 127.0.0.1:port of its link to that node -> (shaped) -> another node's endpoint

It emulates what the virtual clock emulates, by the same formulas (links.py), on real sockets and in real time:
- a connection is open one round trip after it was made; whatever flows comes one delay later (latency, jitter), in order;
- all connections of a machine share its bandwidth, up and down each for itself, whether to the coordinator or between nodes;
- nodes of a region reach each other without the way from its hub to everybody else, nodes of two regions over both;
- loss acts as it acts on a TCP flow, since bytes that a kernel has taken cannot be lost any more: each connection flows at most
  at the rate of Mathis et al., and a lost segment that no three later ones report stops it for a retransmission timeout (RFC
  6298), doubled as often as the retransmission is lost too. That is a loss in the last three segments of a burst, and else one in
  `min(1, 3 sqrt(3 p / 8))` of the losses (Padhye, Firoiu, Towsley and Kurose 1998, "Modeling TCP throughput", eq. 25, b = 1).
  The virtual clock leaves these timeouts out; below one per cent of loss they hardly count;
- during an outage nothing flows; one longer than `PATIENCE_S` breaks the connections that are open.

Seconds and bytes can be scaled: `Scale(time=20, size=750)` runs twenty times as fast, and makes each byte that passes stand for
750 of the large model whose speeds the profile gives. Everything is scaled, also requests and headers.

The same seed draws the same outages, and for the n-th connection of a machine the same delays and losses in the same order;
which bytes they meet depends on real time.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import TracebackType
from typing import Any

from trainer.network.links import (
    MSS_BITS,
    Conditions,
    Machine,
    finish,
    link_bps,
    machine_of,
    mathis_bps,
    path_loss,
    path_rtt,
    server_of,
)
from trainer.network.profiles import Profile

HOST = "127.0.0.1"
PATIENCE_S = 15.0
"""Emulated seconds without a byte after which an agent's requests give up; its own clock is not scaled."""
LEAST_TIMEOUT_S = 0.2
"""Of a retransmission, as Linux has it (RFC 6298 says 1 s)."""
TAIL = 3
"""Segments behind a lost one that make TCP send it again without a timeout."""
MAX_DOUBLINGS = 6
PIECE_S = 0.02
"""Real seconds that one piece of a stream takes on its link at most: connections take turns by pieces."""
LEAST_PIECE, MOST_PIECE = 1460, 65_536
BUFFER = 65_536
"""Bytes that a socket may take ahead of the link."""
AT_ONCE_S = 0.001
"""Real seconds: what is read faster was waiting to be sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What a real second stands for in emulated seconds, and a real byte in emulated bytes."""

    time: float = 1.0
    size: float = 1.0


@dataclass(kw_only=True, slots=True)
class Traffic:
    """What passed a link: real bytes to (`up`) and from (`down`) its other end."""

    up: int = 0
    down: int = 0
    connections: int = 0
    broken: int = 0
    timeouts: int = 0


class Clock:
    """Emulated seconds since the start."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.began = time.monotonic()

    @property
    def now(self) -> float:
        return (time.monotonic() - self.began) * self.scale.time

    async def until(self, moment: float) -> None:
        if math.isinf(moment):
            await asyncio.Event().wait()  # for somebody to break the connection
        await asyncio.sleep(max(0.0, moment - self.now) / self.scale.time)


class Wire:
    """What a machine sends, or what it receives (`bps`): shared by all that passes there. Times are emulated seconds."""

    def __init__(self, machine: Machine, bps: Callable[[Conditions], float]) -> None:
        self.machine, self.bps = machine, bps
        self.free_at = 0.0

    def pass_on(self, start: float, bits: float) -> float:
        """When `bits` that are there at `start` have passed, behind what was there before."""
        begins = max(start, self.free_at)
        self.free_at = finish(begins, bits, lambda time: self.bps(self.machine.at(time)), self.machine.change_after)
        return self.free_at


class Access:
    """A machine's wires to the network, in both directions."""

    def __init__(self, machine: Machine) -> None:
        self.up, self.down = Wire(machine, attrgetter("up_bps")), Wire(machine, attrgetter("down_bps"))


class Lane:
    """One direction of the way between two machines, out by the sender's access and in by the receiver's, which other lanes may
    share. Times are emulated seconds."""

    def __init__(self, sender: Machine, receiver: Machine, *, out: Access | None = None, into: Access | None = None) -> None:
        self.sender, self.receiver = sender, receiver
        self.wires = ((out or Access(sender)).up, (into or Access(receiver)).down)

    def conditions(self, time: float) -> tuple[Conditions, Conditions]:
        return self.sender.at(time), self.receiver.at(time)

    def change_after(self, time: float) -> float:
        return min(self.sender.change_after(time), self.receiver.change_after(time))

    def pass_on(self, start: float, bits: float) -> float:
        """When both ends' wires have taken `bits` that are there at `start`, behind what others have sent."""
        return max(wire.pass_on(start, bits) for wire in self.wires)


class Flow:
    """What goes one way over one connection, from `now` on: a sender under TCP's limits. Times are emulated seconds."""

    def __init__(self, lane: Lane, *, seed: str, traffic: Traffic, now: float = 0.0) -> None:
        self.lane, self.traffic = lane, traffic
        self.random = random.Random(seed)
        self.free_at = self.arrived_at = now
        self.burst = 0.0
        """Segments since the flow was idle."""
        self.to_next_loss = math.inf
        self.loss = 0.0

    def send(self, now: float, bits: float) -> tuple[float, float]:
        """When `bits` that are there now have left, and when they arrive."""
        if now > self.arrived_at:
            self.burst = 0.0
        sender, receiver = self.lane.conditions(now)
        rtt, loss = path_rtt(sender, receiver), path_loss(sender, receiver)
        start = max(now, self.free_at)
        left = self.lane.pass_on(start, bits)
        self.free_at = max(left, start + bits / mathis_bps(rtt, loss)) + self.stalled(bits / MSS_BITS, rtt, loss)
        self.arrived_at = max(self.arrived_at, self.free_at + self.delay(sender) + self.delay(receiver))
        return self.free_at, self.arrived_at

    def delay(self, end: Conditions) -> float:
        return end.latency_s + abs(self.random.gauss(0.0, end.jitter_s)) if end.jitter_s else end.latency_s

    def stalled(self, segments: float, rtt_s: float, loss: float) -> float:
        """Seconds of retransmission timeouts in so many segments. The last ones of a burst are not known when they are sent, so
        its first stand for them."""
        if loss != self.loss:
            self.loss, self.to_next_loss = loss, self.draw(loss)
        seconds, at = 0.0, self.burst
        self.burst += segments
        while self.to_next_loss <= segments:
            segments -= self.to_next_loss
            at += self.to_next_loss
            self.to_next_loss = self.draw(loss)
            if at <= TAIL or self.random.random() < min(1.0, TAIL * math.sqrt(3 * loss / 8)):
                seconds += self.timeout(rtt_s, loss)
        self.to_next_loss -= segments
        return seconds

    def draw(self, loss: float) -> float:
        """Segments to the next one that is lost."""
        return self.random.expovariate(-math.log1p(-loss)) if loss else math.inf

    def timeout(self, rtt_s: float, loss: float) -> float:
        self.traffic.timeouts += 1
        sender, receiver = self.lane.conditions(self.free_at)
        seconds = max(LEAST_TIMEOUT_S, rtt_s + 4 * math.hypot(sender.jitter_s, receiver.jitter_s))
        doublings = 0
        while doublings < MAX_DOUBLINGS and self.random.random() < loss:
            doublings += 1
        return seconds * ((2 << doublings) - 1)


class Link:
    """A machine's way to another one, the coordinator's or a node's, at `port` of this machine; there it leads to `target`."""

    def __init__(
        self, ends: tuple[Machine, Machine], accesses: tuple[Access, Access], target: tuple[str, int], *, name: str, clock: Clock
    ) -> None:
        self.target, self.name, self.clock = target, name, clock
        (here, there), (ours, theirs) = ends, accesses
        self.up, self.down = Lane(here, there, out=ours, into=theirs), Lane(there, here, out=theirs, into=ours)
        self.traffic = Traffic()
        self.open: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def listen(self) -> asyncio.Server:
        listener = socket.create_server((HOST, 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # connections inherit it
        self.port = listener.getsockname()[1]
        return await asyncio.start_server(self.connect, sock=listener, limit=BUFFER)

    def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = f"{self.name}:{self.traffic.connections}"
        self.traffic.connections += 1
        task = asyncio.create_task(self.carry(reader, writer, name))
        self.open.add(task)
        task.add_done_callback(self.open.discard)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        """One connection, until both ends are through with it, or it breaks."""
        writers = [writer]
        try:
            opened = self.clock.now
            await self.clock.until(opened + path_rtt(*self.up.conditions(opened)))
            far_reader, far_writer = await asyncio.open_connection(*self.target, limit=BUFFER)
            writers.append(far_writer)
            await both(
                self.relay(reader, far_writer, self.flow(self.up, f"{name}:up"), self.count_up),
                self.relay(far_reader, writer, self.flow(self.down, f"{name}:down"), self.count_down),
            )
        except* OSError:
            pass  # one end is gone: so is the connection
        finally:
            for each in writers:
                each.transport.abort()

    def flow(self, lane: Lane, seed: str) -> Flow:
        return Flow(lane, seed=seed, traffic=self.traffic, now=self.clock.now)

    async def relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow, count: Callable[[int], None]
    ) -> None:
        """Take pieces at the flow's rate, hand them on one delay later."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            woke = self.clock.now
            while piece := await reader.read(self.piece(flow.lane)):
                was_waiting = self.clock.now - woke < AT_ONCE_S * self.clock.scale.time
                start = flow.free_at if was_waiting else self.clock.now  # a sleep too long must not make the link slower
                left, arrives = flow.send(start, 8 * len(piece) * self.clock.scale.size)
                under_way.put_nowait((arrives, piece))
                count(len(piece))
                await self.clock.until(left)
                woke = self.clock.now
            under_way.put_nowait((flow.arrived_at, b""))

        async def hand_on() -> None:
            while True:
                arrives, piece = await under_way.get()
                await self.clock.until(arrives)
                if not piece:
                    writer.write_eof()
                    return
                writer.write(piece)
                await writer.drain()

        await both(take(), hand_on())

    def piece(self, lane: Lane) -> int:
        """Real bytes that are taken at once."""
        per_second = link_bps(*lane.conditions(self.clock.now)) / 8 * self.clock.scale.time / self.clock.scale.size
        return int(min(max(per_second * PIECE_S, LEAST_PIECE), MOST_PIECE))

    def count_up(self, size: int) -> None:
        self.traffic.up += size

    def count_down(self, size: int) -> None:
        self.traffic.down += size

    async def break_in_outages(self) -> None:
        """Connections die of an outage of either end that lasts, and of leaving for good; new ones wait for its end."""
        while True:
            now, change = self.clock.now, self.up.change_after(self.clock.now)
            if link_bps(*self.up.conditions(now)) == 0 and change - now > PATIENCE_S:
                await self.clock.until(now + PATIENCE_S)
                self.break_all()
            if math.isinf(change):
                return
            await self.clock.until(change)

    def break_all(self) -> None:
        self.traffic.broken += len(self.open)
        for task in list(self.open):
            task.cancel()


async def both(*works: Coroutine[Any, Any, None]) -> None:
    """Until all are done, or one fails: then the others end too."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


class Shaper:
    """The `links` of `nodes` machines of a profile to `target` (host, port), each at a port of its own, and the `ways` from each
    node to those that have one of `endpoints`. Use as a context manager; the profile's times count from its beginning. It runs in
    a thread of its own."""

    def __init__(
        self, profile: Profile, target: tuple[str, int], *, seed: int = 0, scale: Scale | None = None, nodes: int | None = None,
        endpoints: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:  # fmt: skip
        self.scale = scale or Scale()
        self.members = profile.members(nodes)
        clock = Clock(self.scale)
        server = server_of(profile.coordinator, sharing=len(self.members))
        machines, inside = (
            [machine_of(spec, seed=f"{seed}:{node}") for node, spec in enumerate(specs)]
            for specs in (self.members, profile.inside(nodes))
        )
        accesses = [Access(machine) for machine in machines]
        self.links = [
            Link((machine, server), (accesses[node], Access(server)), target, name=f"{seed}:{node}", clock=clock)
            for node, machine in enumerate(machines)
        ]

        def way(node: int, peer: int, endpoint: tuple[str, int]) -> Link:
            is_near = self.members[node].region == self.members[peer].region is not None
            seen = inside if is_near else machines
            ends, shared = (seen[node], seen[peer]), (accesses[node], accesses[peer])
            return Link(ends, shared, endpoint, name=f"{seed}:{node}:{peer}", clock=clock)

        self.ways = {
            (node, peer): way(node, peer, endpoint)
            for peer, endpoint in (endpoints or {}).items() for node in range(len(machines)) if node != peer
        }  # fmt: skip
        self.listening = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()), name="shaper", daemon=True)

    def __enter__(self) -> Shaper:
        self.thread.start()
        self.listening.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()

    async def serve(self) -> None:
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        links = [*self.links, *self.ways.values()]
        servers = [await link.listen() for link in links]
        self.listening.set()
        watchers = [asyncio.create_task(link.break_in_outages()) for link in links]
        await self.stop.wait()
        for server in servers:
            server.close()
        for watcher in watchers:
            watcher.cancel()
        for link in links:
            link.break_all()
