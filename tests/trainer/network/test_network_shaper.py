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
from trainer.network.profiles import LinkSpec, NodeSpec, Profile
from trainer.network.shaper import HOST, PATIENCE_S, Flow, Lane, Scale, Shaper, Traffic

FAST = LinkSpec(up_bps=1e12, down_bps=1e12)


def profile(*nodes: NodeSpec) -> Profile:
    return Profile(name="test", description="A test's.", parameters=1, coordinator=FAST, nodes=nodes)


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
    assert 0.29 < alone < 2
    assert 0.28 < shared < 2


def test_time_and_size_are_scaled_together(echo):
    """A byte stands for a thousand and a second for ten: 8 Gb/s pass 10 MB of real bytes a second."""
    with Shaper(profile(node(up=8e9, down=8e12)), echo, scale=Scale(time=10, size=1000)) as shaper:
        assert 0.29 < timed(shaper, os.urandom(3_000_000)) < 2


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
    spec = node(outage_every_s=200, outage_s=60)
    with Shaper(profile(spec), echo, seed=0, scale=Scale(time=400)) as shaper:
        begins, ends = shaper.links[0].machine.drawn(1e4)[:2]
        assert ends - begins > PATIENCE_S
        until_broken(shaper)
        assert begins < shaper.links[0].clock.now
        assert exchange(shaper, b"again") == b"again"
        assert shaper.links[0].traffic.broken == 1


def test_who_leaves_is_gone(echo):
    with Shaper(profile(node(leaves_s=10)), echo, scale=Scale(time=200)) as shaper:
        assert exchange(shaper, b"here") == b"here"
        until_broken(shaper)
