"""Uploads by way of a near node, over real sockets: what goes well, and every way in which that node can fail."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest
from eth_account import Account
from fake_coordinator import NODE_ID, FakeCoordinator, Slot, Version

from trainer.network.estimators import Estimate
from trainer.operator import tunnels
from trainer.operator.agent import Agent
from trainer.operator.config import AgentConfig, Home
from trainer.operator.console import Console
from trainer.operator.peers import Endpoint, Shelf
from trainer.operator.tunnels import Guests, Through
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import HEADER_KEY, MAX_SKEW_SECONDS, sign_request, verify_request
from trainer.protocol.spec import JobSpec

KEY = "0x" + "44" * 32
HOT_KEY = Account.from_key(KEY).address
GATHERER = 3
DATA = os.urandom(3_000_000)


class Order:
    """An agent with a result that it has to hand in, and the slot where it belongs."""

    def __init__(self, agent: Agent, server: FakeCoordinator) -> None:
        self.agent, self.server = agent, server
        self.slot: Slot = server.offer(JobSpec(), Version("ab" * 32, "cd" * 32))
        self.slot.fence = 1
        self.result = SimpleNamespace(sha256=sha256_hex(DATA), size=len(DATA), steps_done=1)
        (agent.home.artifacts / self.result.sha256).write_bytes(DATA)
        self.checked = 0

    def upload(self, url: str | None) -> None:
        self.agent.near.named = {"gather": {"node": GATHERER, "url": url}} if url else {}
        pulse = SimpleNamespace(check=self.check, progress=lambda *_: None)
        self.agent.upload(self.slot.id, 1, self.result, pulse)

    def check(self) -> None:
        self.checked += 1

    def is_spared(self) -> bool:
        return not self.agent.near.patience.may_ask(GATHERER, time.monotonic())


@pytest.fixture
def server() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator()
    fake.registered[HOT_KEY] = NODE_ID
    yield fake
    fake.stop()


@pytest.fixture
def order(server, tmp_path) -> Order:
    agent = Agent(
        AgentConfig(home=Home.at(tmp_path / "agent"), coordinator=server.url, name="x"), Console(as_json=True),
        SimpleNamespace(facts=None, ahead=None), KEY,
    )  # fmt: skip
    agent.coordinator.links.rtt, agent.coordinator.links.up = Estimate(value=0.01, samples=9), Estimate(value=1e5, samples=9)
    return Order(agent, server)


@pytest.fixture
def guests(server) -> Guests:
    found = Guests(server.url, None)
    found.expect([HOT_KEY])
    return found


@pytest.fixture
def gatherer(guests, tmp_path) -> Iterator[str]:
    endpoint = Endpoint(("127.0.0.1", 0), Shelf(tmp_path), guests)
    guests.name = f"127.0.0.1:{endpoint.server_address[1]}"
    yield f"http://{guests.name}"
    endpoint.close()


@pytest.fixture
def listener() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Somebody else's endpoint, who answers CONNECT as he likes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(answer: Callable[[socket.socket], None]) -> str:
        def accept() -> None:
            while True:
                try:
                    guest, _ = listening.accept()
                except OSError:
                    return
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += guest.recv(1)
                threading.Thread(target=answer, args=(guest,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def test_given_a_near_node_then_the_upload_goes_by_it_and_the_coordinator_knows(order, gatherer, guests, monkeypatch):
    carried: list[int] = []
    carry = Guests.carry
    monkeypatch.setattr(Guests, "carry", lambda *args: (carried.append(1), carry(*args))[1])
    order.upload(gatherer)
    assert order.slot.artifact == DATA and carried == [1]
    assert order.slot.queries == ["fence=1&via=3", "fence=1"], "the file by way of it; whether it is there, directly"
    assert order.agent.coordinator.links.up.samples == 9, "that was not the direct way"
    assert not order.is_spared()


def test_given_a_lossy_first_leg_then_the_pieces_go_over_several_tunnels(order, gatherer, monkeypatch):
    monkeypatch.setenv("HYPERGPU_EMULATE_LOSS", "0.02")
    order.upload(gatherer)
    assert order.slot.artifact == DATA and sorted(set(order.slot.numbers))[:3] == [0, 1, 2]
    assert not order.is_spared()


def test_given_upload_after_upload_then_no_connection_is_held_between_them_and_what_they_tell_is_known(
    order, gatherer, monkeypatch
):
    near, ways, streams = order.agent.near, [], []
    way_by, connect = near.way_by, Through.connect_tcp
    monkeypatch.setattr(near, "way_by", lambda *args: (ways.append(way_by(*args)), ways[-1])[1])
    monkeypatch.setattr(
        Through, "connect_tcp", lambda *args, **options: (streams.append(connect(*args, **options)), streams[-1])[1]
    )
    for _ in range(3):
        order.upload(gatherer)
        order.slot.artifact = None
    assert len(streams) == 3 and not order.is_spared()
    assert all(stream.get_extra_info("socket").fileno() == -1 for stream in streams)
    assert all(not way.backend.sockets for way in ways)
    assert ways[-1].links.up.samples == 3


def test_given_no_file_descriptor_for_a_way_then_the_upload_goes_direct(order, gatherer, monkeypatch):
    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tunnels.os, "dup", none_left)
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.is_spared()


def test_given_a_gatherer_that_dies_in_the_middle_then_the_upload_goes_direct_at_once_and_nothing_is_lost(
    order, gatherer, monkeypatch
):
    monkeypatch.setattr(tunnels, "pour", broken_after(500_000))
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.slot.queries[-1] == "fence=1"
    assert order.is_spared()
    order.slot.artifact, order.slot.queries = None, []
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.slot.queries == ["fence=1"], "it is not asked again so soon"


def test_given_several_tunnels_of_which_one_breaks_then_none_is_tried_again(order, gatherer, monkeypatch):
    monkeypatch.setenv("HYPERGPU_EMULATE_LOSS", "0.02")
    order.agent.coordinator.links.up = Estimate(value=len(DATA) / 600, samples=9)  # it would have ten minutes
    monkeypatch.setattr(tunnels, "pour", broken_after(100_000))
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.is_spared()
    assert any(query == "fence=1" for query in order.slot.queries)


def broken_after(size: int) -> Callable[[socket.socket, socket.socket], None]:
    def pour(source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        try:
            while passed < size and (data := source.recv(2**16)):
                sink.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    return pour


def test_given_a_gatherer_that_changes_bytes_then_the_coordinator_takes_none_of_them(order, gatherer, monkeypatch):
    pour = tunnels.pour

    def flip(source: socket.socket, sink: socket.socket) -> None:
        pour(SimpleNamespace(recv=lambda size: flipped(source, size), shutdown=source.shutdown), sink)

    def flipped(source: socket.socket, size: int) -> bytes:
        data = bytearray(source.recv(size))
        if len(data) > 4000:  # not in a head
            data[-1] ^= 1
        return bytes(data)

    monkeypatch.setattr(tunnels, "pour", flip)
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.slot.queries[-1] == "fence=1"
    assert order.is_spared()


def test_given_a_gatherer_that_says_that_all_is_well_and_passes_nothing_on_then_the_upload_goes_direct(order, listener):
    def lie(guest: socket.socket) -> None:
        guest.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        taken = 0
        while taken < len(DATA):
            taken += len(guest.recv(2**16))
        guest.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    order.upload(listener(lie))
    assert order.slot.artifact == DATA and order.slot.queries == ["fence=1", "fence=1"]
    assert order.is_spared()


def test_given_a_gatherer_that_hangs_then_it_is_given_up_when_the_direct_way_would_be_done(order, listener):
    order.agent.coordinator.links.up = Estimate(value=len(DATA) / 0.3, samples=9)

    def hang(guest: socket.socket) -> None:
        guest.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    order.upload(listener(hang))
    assert order.slot.artifact == DATA and order.slot.queries[-1] == "fence=1"
    assert order.is_spared()


def test_given_time_that_runs_out_while_other_addresses_are_tried_then_no_connection_is_made_any_more(
    order, listener, monkeypatch
):
    """The endpoint's name may have many addresses at which nobody answers, and a liar at the last one."""
    order.agent.coordinator.links.up = Estimate(value=len(DATA) / 0.05, samples=9)
    is_cut, asked = threading.Event(), []
    cut, connect = tunnels.ByWay.cut, httpcore.SyncBackend.connect_tcp
    monkeypatch.setattr(tunnels.ByWay, "cut", lambda way: (cut(way), is_cut.set()))

    def connect_late(backend: httpcore.SyncBackend, host: str, *args: Any, **options: Any) -> httpcore.NetworkStream:
        if host == "192.0.2.1":
            assert is_cut.wait(30)
            raise httpcore.ConnectTimeout
        return connect(backend, host, *args, **options)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_late)
    monkeypatch.setattr(order.agent.near.peers, "addresses_to_ask", lambda _: ["192.0.2.1", "127.0.0.1"])
    order.upload(listener(lambda guest: (asked.append(1), guest.close())))
    assert order.slot.artifact == DATA and order.is_spared()
    assert asked == []


def test_given_a_way_that_is_cut_just_as_a_connection_is_made_then_that_one_ends_too(gatherer):
    way, made = Through(gatherer, ["127.0.0.1"], key=KEY), []
    connect = way.below.connect_tcp

    def connect_and_cut(*args: Any, **options: Any) -> httpcore.NetworkStream:
        made.append(connect(*args, **options))
        way.cut()
        return made[0]

    way.below = SimpleNamespace(connect_tcp=connect_and_cut)
    with pytest.raises(httpcore.ConnectError, match="given up"):
        way.connect_tcp("127.0.0.1", 80, timeout=30)
    assert made[0].get_extra_info("socket").fileno() == -1 and way.sockets == []


def test_given_a_gatherer_that_drips_its_answer_then_all_of_it_has_one_limit(listener, monkeypatch):
    def drip(guest: socket.socket) -> None:
        guest.sendall(b"HTTP/1.1 200 OK\r\nX-Padding: and so on\r\n\r\n")

    seconds = itertools.count()  # each look at the clock is a second later
    monkeypatch.setattr(tunnels, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with pytest.raises(httpcore.ConnectTimeout):
        Through(listener(drip), ["127.0.0.1"], key=KEY).connect_tcp("127.0.0.1", 80, timeout=20)


def test_given_nobody_at_the_endpoint_then_the_upload_goes_direct(order):
    order.upload("http://127.0.0.1:9")
    assert order.slot.artifact == DATA and order.is_spared()


def test_given_an_order_that_ended_meanwhile_then_the_gatherer_is_not_blamed(order, gatherer, monkeypatch):
    def over() -> None:
        raise HyperGPUError("order.cancelled", "It is over.")

    monkeypatch.setattr(order, "check", over)
    with pytest.raises(HyperGPUError, match="It is over"):
        order.upload(gatherer)
    assert not order.is_spared()


def test_given_a_stranger_then_nothing_is_carried(order, gatherer, guests):
    for _ in range(tunnels.LEASES):
        guests.expect([])
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.slot.queries == ["fence=1", "fence=1"] and order.is_spared()


def signed(key: str = KEY, *, audience: str = "near.example:7070") -> dict[str, str]:
    """Headers of a CONNECT."""
    return {
        "Host": audience,
        **sign_request(method="CONNECT", path="x:1", query="", body_sha256=sha256_hex(b""), audience=audience, private_key=key),
    }  # fmt: skip


@pytest.fixture
def near(monkeypatch) -> Guests:
    """At near.example; `verified` counts recovered signatures."""
    found = Guests("http://127.0.0.1:1", "http://Near.example:7070")
    found.expect([HOT_KEY])
    found.verified = []
    monkeypatch.setattr(tunnels, "verify_request", lambda **asked: (found.verified.append(1), verify_request(**asked))[1])
    return found


def test_given_strangers_then_no_signature_of_theirs_is_recovered(near):
    with pytest.raises(HyperGPUError, match=r"gather\.stranger"):
        near.admit("CONNECT", "x:1", signed("0x" + "55" * 32))
    with pytest.raises(HyperGPUError, match=r"gather\.stranger"):
        near.admit("CONNECT", "x:1", {})
    assert near.verified == []
    with pytest.raises(HyperGPUError, match=r"request\.wrong_key"):
        near.admit("CONNECT", "x:1", signed("0x" + "55" * 32) | {HEADER_KEY: HOT_KEY})
    assert near.admit("CONNECT", "x:1", signed()) == HOT_KEY.lower()


def test_given_a_request_to_another_gatherer_or_one_made_before_then_it_is_not_carried(near):
    with pytest.raises(HyperGPUError, match=r"gather\.elsewhere"):
        near.admit("CONNECT", "x:1", signed(audience="another.example:7070"))
    once = signed()
    near.admit("CONNECT", "x:1", once)
    with pytest.raises(HyperGPUError, match=r"gather\.replayed"):
        near.admit("CONNECT", "x:1", once)


def test_given_nonces_that_no_signature_can_repeat_any_more_then_they_are_forgotten(near, monkeypatch):
    near.admit("CONNECT", "x:1", signed())
    later = time.time() + 2 * MAX_SKEW_SECONDS + 1
    monkeypatch.setattr(tunnels, "time", SimpleNamespace(time=lambda: later))
    monkeypatch.setattr("trainer.protocol.requests.time", SimpleNamespace(time=lambda: later))
    near.admit("CONNECT", "x:1", signed())
    assert list(near.nonces.values()) == [later]


def test_given_a_node_with_many_tunnels_then_there_is_room_for_others(near):
    assert [near.enter("a") for _ in range(tunnels.MOST_OF_ONE + 1)] == [True] * tunnels.MOST_OF_ONE + [False]
    assert near.enter("b")
    near.leave("a")
    assert near.enter("a")
    others = [near.enter(str(number)) for number in range(tunnels.MOST_TUNNELS)]
    assert others.count(True) == tunnels.MOST_TUNNELS - tunnels.MOST_OF_ONE - 1


def test_given_a_full_gatherer_then_the_upload_goes_direct(order, gatherer, monkeypatch):
    monkeypatch.setattr(tunnels, "MOST_OF_ONE", 0)
    order.upload(gatherer)
    assert order.slot.artifact == DATA and order.is_spared()


@pytest.mark.parametrize(("limit", "most"), [("MOST_BYTES", 100), ("MOST_SECONDS", -1)])
def test_given_a_tunnel_that_has_had_its_share_then_both_ends_hear_of_it(monkeypatch, limit, most):
    monkeypatch.setattr(tunnels, limit, most)
    with ExitStack() as ends:
        guest, source, sink, coordinator = (ends.enter_context(one) for _ in range(2) for one in socket.socketpair())
        guest.sendall(b"x" * 101)
        tunnels.pour(source, sink)
        assert (guest.recv(1), coordinator.recv(1)) == (b"", b"")


def test_given_any_target_then_a_tunnel_leads_to_the_coordinator_only(order, gatherer, server, monkeypatch):
    """What a guest asks for is signed, and ignored: no open proxy."""
    asked: list[str] = []
    admit = Guests.admit
    monkeypatch.setattr(Guests, "admit", lambda *args: (asked.append(args[2]), admit(*args))[1])
    way = order.agent.near.way_by(GATHERER, gatherer)
    stream = way.backend.connect_tcp("169.254.169.254", 80, timeout=5)
    stream.write(b"GET /agent/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n", 5)
    assert stream.read(100, 5).startswith(b"HTTP/1.1 204") and asked == ["169.254.169.254:80"]
    stream.close()
    way.close()
