"""Nodes that ask each other: over real sockets, verified by hash, with the coordinator as the way out."""

from __future__ import annotations

import json
import socket
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from fake_coordinator import FakeCoordinator

from trainer.network.sources import FIRST_PAUSE_S
from trainer.operator.agent import Agent
from trainer.operator.config import AgentConfig, Home
from trainer.operator.console import Console
from trainer.operator.emulation import WAYS
from trainer.operator.identity import address_of
from trainer.operator.links import Links
from trainer.operator.peers import Asked, Endpoint, Peers, Pinned, Shelf, checked_endpoint, listening_address
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError

KEY = "0x" + "44" * 32
STEP = b"an encoded outer step" * 5000
NAME = sha256_hex(STEP)


def check() -> None:
    return


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    return Shelf(folder)


@pytest.fixture
def url(shelf):
    endpoint = Endpoint(("127.0.0.1", 0), shelf)
    yield f"http://127.0.0.1:{endpoint.server_address[1]}"
    endpoint.close()


@pytest.fixture
def peers():
    return Peers(Links(), may_be_local=True)


def put(shelf: Shelf, data: bytes = STEP) -> None:
    (shelf.folder / NAME).write_bytes(data)
    shelf.put(NAME)


def test_given_an_endpoint_then_the_way_to_it_is_timed_and_told_once(peers, url):
    peers.ping_all({3: url}).join(10)
    assert 0 < peers.links.report()["peers"][3] < 5000
    assert peers.ping_all({3: url}) is None, "it was timed just now"


def test_given_nobody_at_an_endpoint_then_nothing_is_told(peers):
    peers.ping(3, "http://127.0.0.1:9")
    assert "peers" not in peers.links.report()


def test_given_a_peer_that_has_the_file_then_it_comes_from_there(peers, shelf, url, tmp_path):
    put(shelf)
    assert peers.fetch(url, NAME, tmp_path, seconds=1, check=check)
    assert (tmp_path / NAME).read_bytes() == STEP


def test_given_an_emulated_link_to_a_peer_then_it_is_reached_there(peers, shelf, url, tmp_path, monkeypatch):
    monkeypatch.setenv(WAYS, json.dumps({"127.0.0.1:9": urlsplit(url).port}))
    put(shelf)
    assert peers.fetch("http://127.0.0.1:9", NAME, tmp_path, seconds=1, check=check)
    monkeypatch.delenv(WAYS)
    assert not peers.fetch("http://127.0.0.1:9", NAME, tmp_path, seconds=1, check=check)


def test_given_a_peer_that_is_still_getting_it_then_it_is_waited_for(peers, shelf, url, tmp_path):
    got: list[bool] = []
    asking = threading.Thread(target=lambda: got.append(peers.fetch(url, NAME, tmp_path, seconds=20, check=check)))
    asking.start()
    put(shelf)
    asking.join(20)
    assert got == [True]


def test_given_a_peer_without_it_then_no_longer_is_waited_than_was_said(peers, url, tmp_path):
    started = time.monotonic()
    assert not peers.fetch(url, NAME, tmp_path, seconds=0.05, check=check)
    assert time.monotonic() - started < 15, "an endpoint waits for up to 30 s"


def test_given_other_bytes_than_the_artifact_then_they_are_thrown_away(peers, shelf, url, tmp_path):
    put(shelf, b"something else")
    assert not peers.fetch(url, NAME, tmp_path, seconds=1, check=check)
    assert not list(tmp_path.glob("*" + NAME + "*"))


def test_given_a_file_that_was_not_put_on_the_shelf_then_nobody_gets_it(shelf, url):
    (shelf.folder / NAME).write_bytes(STEP)
    with httpx.Client(base_url=url) as http:
        asked = (f"/artifacts/{NAME}", "/artifacts/../hot.key", f"/artifacts/{NAME}?wait=-1", "/")
        assert [http.get(path).status_code for path in asked] == [404] * 4


@pytest.mark.parametrize(
    "where",
    [
        "http://169.254.169.254", "http://2852039166", "http://127.0.0.1:80", "http://127.1", "http://2130706433", "http://localhost",
        "http://0.0.0.0", "http://[::]", "http://[::1]", "http://[::ffff:127.0.0.1]", "http://[2002:7f00:1::]", "http://10.0.0.1",
        "http://10.255.255.254", "http://192.168.0.1", "http://[fd00::1]", "http://[1.2]", "ftp://x", "http://a/b", "http://u@a",
    ],
)  # fmt: skip
def test_given_an_address_that_nobody_should_announce_then_it_is_not_asked(where):
    assert Peers(Links(), may_be_local=False).addresses_to_ask(where) == []


@pytest.fixture
def names(monkeypatch):
    """Names and their addresses, one answer after the other; what is no name here resolves as ever."""
    answers: dict[str, list[list[str]]] = {}
    resolve = socket.getaddrinfo

    def answer(host, port, *args, **options):
        if host not in answers:
            return resolve(host, port, *args, **options)
        return [entry for address in answers[host].pop(0) for entry in resolve(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return answers


@pytest.mark.parametrize(
    ("addresses", "asked"),
    [
        (["8.8.8.8"], ["8.8.8.8"]), (["8.8.8.8", "2001:4860:4860::8888"], ["8.8.8.8", "2001:4860:4860::8888"]),
        (["169.254.169.254"], []), (["8.8.8.8", "10.0.0.1"], []),
    ],
)  # fmt: skip
def test_given_a_name_then_all_that_it_resolves_to_must_be_public(names, addresses, asked):
    names["metadata.google.internal"] = [addresses]
    assert Peers(Links(), may_be_local=False).addresses_to_ask("http://metadata.google.internal") == asked


def test_given_a_name_then_it_is_resolved_once_and_still_named_to_the_peer(peers, names, shelf, url, tmp_path, monkeypatch):
    hosts: list[str] = []
    answer = Asked.do_GET
    monkeypatch.setattr(Asked, "do_GET", lambda asked: (hosts.append(asked.headers["Host"]), answer(asked))[1])
    put(shelf)
    names["node.example"] = [["127.0.0.2", "127.0.0.1"]]  # nobody is at the first; a second question would find no answer
    named = url.replace("127.0.0.1", "node.example")
    assert peers.fetch(named, NAME, tmp_path, seconds=1, check=check)
    assert hosts == [named.removeprefix("http://")]


def test_given_a_peer_with_tls_then_the_certificate_is_asked_of_its_name(monkeypatch):
    sent: list[httpx.Request] = []
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, request: sent.append(request) or httpx.Response(204))
    with httpx.Client(base_url="https://node.example:7070", transport=Pinned(["8.8.8.8"])) as http:
        http.get("/ping")
    assert (sent[0].url.host, sent[0].headers["Host"]) == ("8.8.8.8", "node.example:7070")
    assert sent[0].extensions["sni_hostname"] == "node.example"


def test_given_a_public_url_then_its_port_is_listened_at():
    assert listening_address(None, checked_endpoint("http://203.0.113.7:7070")) == ("0.0.0.0", 7070)
    assert listening_address("127.0.0.1:0", "https://node.example") == ("127.0.0.1", 0)
    for listen, endpoint in ((None, "https://node.example"), ("nowhere", "http://a:1")):
        with pytest.raises(HyperGPUError, match=r"config\.endpoint"):
            listening_address(listen, endpoint)


@pytest.fixture
def agent(tmp_path):
    coordinator = FakeCoordinator()
    coordinator.put(STEP)
    console = Console(as_json=True)
    agent = Agent(
        AgentConfig(home=Home.at(tmp_path / "agent"), coordinator=coordinator.url, name="x"), console,
        SimpleNamespace(facts=None, ahead=None), KEY,
    )  # fmt: skip
    coordinator.registered[address_of(KEY)] = 7
    yield agent, coordinator
    coordinator.stop()


def order(**fields):
    return SimpleNamespace(**{"job_id": 1, "round": 1, "delta": NAME, "checkpoint": None} | fields)


def test_given_a_near_node_with_the_outer_step_then_the_coordinator_sends_nothing_and_this_node_has_it_too(agent, shelf, url):
    mine, coordinator = agent
    put(shelf)
    mine.near.named = {"sources": {"3": url}, "size": len(STEP)}
    mine.fetch(order(), "outer step", NAME, SimpleNamespace(check=check))

    assert coordinator.served == []
    assert mine.near.shelf.find(NAME, wait=0).read_bytes() == STEP


def test_given_near_nodes_that_are_gone_or_lie_then_the_coordinator_sends_it(agent, shelf, url):
    mine, coordinator = agent
    put(shelf, b"something else")
    mine.near.named = {"sources": {"2": "http://127.0.0.1:9", "3": url}, "size": len(STEP)}
    mine.fetch(order(), "outer step", NAME, SimpleNamespace(check=check))

    assert coordinator.served == [NAME]
    assert (mine.home.cache / NAME).read_bytes() == STEP


def test_given_a_near_node_that_withholds_then_it_is_not_asked_again_in_the_next_round_but_later(agent, shelf, url, monkeypatch):
    mine, coordinator = agent
    mine.near.named, rounds = (
        {"sources": {"3": url}, "size": len(STEP)},
        [b"one step" * 9000, b"another" * 9000, b"a third" * 9000],
    )
    asked: list[str] = []
    answer = Asked.do_GET
    monkeypatch.setattr(Asked, "do_GET", lambda request: (asked.append(request.path), answer(request))[1])
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("trainer.operator.neighbours.time", clock)

    now = 100.0
    for data in rounds[:2]:
        name = coordinator.put(data)
        mine.fetch(order(delta=name), "outer step", name, SimpleNamespace(check=check))
    assert len(asked) == 1
    assert coordinator.served == [sha256_hex(data) for data in rounds[:2]]

    now += FIRST_PAUSE_S
    name = sha256_hex(rounds[2])
    (shelf.folder / name).write_bytes(rounds[2])
    shelf.put(name)
    mine.fetch(order(delta=name), "outer step", name, SimpleNamespace(check=check))
    assert len(coordinator.served) == 2, "it gives again, and is asked again"


def test_given_data_then_it_comes_from_the_coordinator_and_is_given_to_nobody(agent, shelf, url):
    mine, coordinator = agent
    put(shelf)
    mine.near.named = {"sources": {"3": url}, "size": len(STEP)}
    mine.fetch(order(delta=None), "data", NAME, SimpleNamespace(check=check))

    assert coordinator.served == [NAME]
    assert mine.near.shelf.find(NAME, wait=0) is None
