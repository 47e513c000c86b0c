"""Links on real sockets are those of the virtual clock: round trips, goodput, what losses cost, outages, every byte."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from trainer.network.links import machine_of, server_of, transferred
from trainer.network.profiles import LinkSpec, NodeSpec, Profile, RegionSpec
from trainer.network.shaper import HOST, PATIENCE_S, Flow, Lane, Link, Scale, Shaper, Traffic

FAST = LinkSpec(up_bps=1e12, down_bps=1e12)


def profile(*nodes: NodeSpec, **regions: RegionSpec) -> Profile:
    return Profile(name="test", description="A test's.", parameters=1, coordinator=FAST, nodes=nodes, regions=regions)


def node(*, up: float = 1e9, down: float = 1e9, **options: float) -> NodeSpec:
    return NodeSpec(samples_per_second=1, up_bps=up, down_bps=down, **options)


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets."""
    listener = socket.create_server((HOST, 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(ConnectionResetError):  # an outage breaks it
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()
    listener.close()


def exchange(shaper: Shaper, data: bytes, *, link: int = 0) -> bytes:
    """Send all on a connection of its own, and what came back."""
    with socket.create_connection((HOST, shaper.links[link].port), timeout=30) as connection:
        threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR))).start()
        found = bytearray()
        while piece := connection.recv(65536):
            found += piece
    return bytes(found)


def timed(shaper: Shaper, data: bytes, *, connections: int = 1) -> float:
    """Seconds for the data over each of some connections at once."""
    began = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        assert set(pool.map(lambda _: exchange(shaper, data), range(connections))) == {data}
    return time.monotonic() - began


def until_broken(shaper: Shaper) -> None:
    """Talk over one connection until it is reset."""
    with socket.create_connection((HOST, shaper.links[0].port), timeout=30) as connection, pytest.raises(ConnectionResetError):
        while True:
            connection.sendall(b"?")
            if not connection.recv(1):
                raise ConnectionResetError


def test_every_byte_comes_through_in_order(echo):
    data = os.urandom(700_000)
    with Shaper(profile(node(latency_s=0.002, jitter_s=0.002, loss=0.02)), echo) as shaper:
        assert exchange(shaper, data) == data
        assert (shaper.links[0].traffic.up, shaper.links[0].traffic.down) == (len(data), len(data))


def test_a_round_trip_takes_the_latency_of_both_ends_twice(echo):
    with (
        Shaper(profile(node(latency_s=0.03)), echo) as shaper,
        socket.create_connection((HOST, shaper.links[0].port)) as connection,
    ):
        trips = []
        for _ in range(6):
            began = time.monotonic()
            connection.sendall(b"?")
            assert connection.recv(1) == b"?"
            trips.append(time.monotonic() - began)
    assert trips[0] > 0.11, "the first waits for the connection too"
    assert 0.058 < min(trips) < 0.3


def test_goodput_is_the_links_by_whatever_connections(echo):
    """600 kB up at 16 Mb/s: 0.3 s; coming back is not limited."""
    data = os.urandom(600_000)
    with Shaper(profile(node(up=16e6)), echo) as shaper:
        alone, shared = timed(shaper, data), timed(shaper, data[: len(data) // 3], connections=3)
    assert 0.29 < alone < 10
    assert 0.28 < shared < 10


def test_time_and_size_are_scaled_together(echo):
    """A byte stands for a thousand and a second for ten: 8 Gb/s pass 10 MB of real bytes a second."""
    with Shaper(profile(node(up=8e9, down=8e12)), echo, scale=Scale(time=10, size=1000)) as shaper:
        assert 0.29 < timed(shaper, os.urandom(3_000_000)) < 10


def flow(spec: NodeSpec, *, seed: str = "seed") -> Flow:
    return Flow(Lane(machine_of(spec, seed=seed), server_of(FAST, sharing=1)), seed=seed, traffic=Traffic())


def sent(one: Flow, size: int, *, piece: int = 10_000) -> float:
    """Emulated seconds until the last of `size` bytes has come."""
    arrived = 0.0
    for _ in range(size // piece):
        _, arrived = one.send(one.free_at, 8 * piece)
    return arrived


@pytest.mark.parametrize("loss", [0.0, 1e-5, 1e-3])
def test_a_transfer_takes_what_the_virtual_clock_says(loss: float):
    spec = node(up=50e6, latency_s=0.05, loss=loss)
    machine, server = machine_of(spec, seed="clock"), server_of(FAST, sharing=1)
    emulated = sent(flow(spec), 30_000_000) + 0.1  # the request's round trip
    clock = transferred(machine, server, 0.0, 30_000_000)
    assert clock == pytest.approx(emulated, rel=0.15)


def test_heavy_loss_costs_timeouts_as_in_padhye():
    """B = 1 / (RTT sqrt(2 p / 3) + T0 min(1, 3 sqrt(3 p / 8)) p (1 + 32 p^2)) segments/s (eq. 30, b = 1), within a third."""
    loss, rtt = 0.05, 0.1
    rto = max(0.2, rtt)
    padhye = rtt * math.sqrt(2 * loss / 3) + rto * min(1.0, 3 * math.sqrt(3 * loss / 8)) * loss * (1 + 32 * loss**2)
    one = flow(node(latency_s=rtt / 2, loss=loss))
    segments = 20_000
    assert sent(one, 1460 * segments, piece=1460) / segments == pytest.approx(padhye, rel=1 / 3)
    assert one.traffic.timeouts > 100


def test_several_connections_bear_loss_better_than_one():
    spec = node(up=50e6, latency_s=0.05, loss=0.02)
    lane = Lane(machine_of(spec, seed="x"), server_of(FAST, sharing=1))
    flows = [Flow(lane, seed=f"x:{number}", traffic=Traffic()) for number in range(4)]
    for _ in range(200):
        min(flows, key=lambda one: one.free_at).send(min(one.free_at for one in flows), 8 * 10_000)
    assert max(one.arrived_at for one in flows) < 0.5 * sent(flow(spec), 200 * 10_000)


def test_the_same_seed_loses_the_same():
    spec = node(latency_s=0.02, jitter_s=0.01, loss=0.03)
    assert sent(flow(spec), 1_000_000) == sent(flow(spec), 1_000_000) != sent(flow(spec, seed="other"), 1_000_000)


def test_an_outage_breaks_what_is_open_and_holds_what_is_new(echo):
    """After it, everything flows again."""
    spec = node(outage_every_s=1000, outage_s=60)
    with Shaper(profile(spec), echo, seed=0, scale=Scale(time=400)) as shaper:
        begins, ends = shaper.links[0].up.sender.drawn(1e4)[:2]
        assert ends - begins > PATIENCE_S
        until_broken(shaper)
        assert begins < shaper.links[0].clock.now
        assert exchange(shaper, b"again") == b"again"
        assert shaper.links[0].traffic.broken == 1


def region(*nodes: NodeSpec, hub_s: float) -> Profile:
    """All nodes in one region, whose hub is so many seconds from everybody else."""
    placed = tuple(spec.model_copy(update={"region": "here"}) for spec in nodes)
    return profile(*placed, here=RegionSpec(latency_s=hub_s), there=RegionSpec(latency_s=hub_s))


def round_trip(link: Link) -> float:
    """Emulated seconds there and back, drawn once."""
    return sum(Flow(lane, seed="x", traffic=Traffic()).send(0.0, 8)[1] for lane in (link.up, link.down))


def test_near_nodes_reach_each_other_without_the_way_to_everybody_else(echo):
    near = region(node(latency_s=0.01), node(latency_s=0.02), hub_s=0.1)
    apart = near.model_copy(update={"nodes": (near.nodes[0], near.nodes[1].model_copy(update={"region": "there"}))})
    trips = [round_trip(Shaper(one, echo, endpoints={1: echo}).ways[0, 1]) for one in (near, apart)]
    assert trips == [pytest.approx(2 * (0.01 + 0.02), abs=1e-6), pytest.approx(2 * (0.01 + 0.1 + 0.02 + 0.1), abs=1e-6)]
    assert round_trip(Shaper(near, echo).links[0]) == pytest.approx(2 * (0.01 + 0.1), abs=1e-6)


def test_what_passes_between_nodes_takes_of_both_ones_bandwidth():
    """A node that sends 10 Mb/s has sent two megabits to two ends after 0.2 s, in whatever order; so has one that receives it."""
    shaper = Shaper(region(node(up=10e6), node(down=10e6), node(), hub_s=0.0), ("", 0), endpoints={1: ("", 1), 2: ("", 2)})
    to_coordinator, to_node, by_another = shaper.links[0].up, shaper.ways[0, 1].up, shaper.ways[2, 1].up
    assert [to_coordinator.pass_on(0.0, 1e6), to_node.pass_on(0.0, 1e6)] == pytest.approx([0.1, 0.2])
    assert by_another.pass_on(0.0, 1e6) == pytest.approx(0.2), "the receiver had its first megabit at 0.1"
    assert shaper.links[2].up.pass_on(0.0, 1e6) == pytest.approx(0.002), "one waits for nobody else's"


def test_a_way_to_a_node_is_as_real_as_that_to_the_coordinator(echo):
    data = os.urandom(100_000)
    with Shaper(region(node(latency_s=0.002), node(), hub_s=5.0), ("127.0.0.1", 9), endpoints={1: echo}) as shaper:
        with socket.create_connection((HOST, shaper.ways[0, 1].port), timeout=30) as connection:
            threading.Thread(target=connection.sendall, args=(data,)).start()
            found = bytearray()
            while len(found) < len(data):
                found += connection.recv(65536)
        traffic = shaper.ways[0, 1].traffic
        assert found == data and (traffic.up, traffic.connections) == (len(data), 1)
        assert shaper.links[0].traffic.connections == 0


def test_who_leaves_is_gone(echo):
    with Shaper(profile(node(leaves_s=10)), echo, scale=Scale(time=200)) as shaper:
        assert exchange(shaper, b"here") == b"here"
        until_broken(shaper)
