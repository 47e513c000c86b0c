"""Strangers at a node's endpoint: so many at once, so many of one address, none for longer than it takes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from conftest import wait_until

from trainer.operator import peers
from trainer.operator.peers import CONNECTIONS_OF_ONE, IDLE_SECONDS, LEAST_RATE, READERS_OF_ONE, WAITERS_OF_ONE, Endpoint, Shelf
from trainer.operator.places import Places
from trainer.protocol.canonical import sha256_hex

STEP = b"an encoded outer step" * 500_000
NAME, NOWHERE = sha256_hex(STEP), "cd" * 32


@pytest.fixture
def endpoint(tmp_path) -> Iterator[Endpoint]:
    (tmp_path / NAME).write_bytes(STEP)
    shelf = Shelf(tmp_path)
    shelf.put(NAME)
    opened = Endpoint(("127.0.0.1", 0), shelf)
    yield opened
    opened.close()


def ask(endpoint: Endpoint, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{endpoint.server_address[1]}{path}", timeout=10, trust_env=False)


def connect(endpoint: Endpoint, stack: ExitStack, head: str = "") -> socket.socket:
    connection = stack.enter_context(socket.create_connection(endpoint.server_address[:2], timeout=10))
    connection.sendall(head.encode())
    return connection


def test_places_are_few_and_fewer_for_one():
    places = Places(3, 2)
    assert [places.enter(who) for who in "aaab"] == [True, True, False, True]
    assert not places.enter("c")
    places.leave("a")
    assert places.enter("c")


def test_idle_strangers_have_few_threads(endpoint):
    before = threading.active_count()
    with ExitStack() as stack:
        held = [connect(endpoint, stack) for _ in range(4 * CONNECTIONS_OF_ONE)]
        for turned_away in held[CONNECTIONS_OF_ONE:]:
            assert turned_away.recv(1) == b""
        assert threading.active_count() <= before + CONNECTIONS_OF_ONE
    wait_until(lambda: not endpoint.strangers)
    assert ask(endpoint, "/ping").status_code == 204


def test_who_waits_takes_nobodys_place(endpoint):
    with ExitStack() as stack:
        for _ in range(WAITERS_OF_ONE):
            connect(endpoint, stack, f"GET /artifacts/{NOWHERE}?wait=30 HTTP/1.1\r\n\r\n")
        wait_until(lambda: endpoint.shelf.waiters.taken.total() == WAITERS_OF_ONE)
        assert ask(endpoint, f"/artifacts/{NAME}?wait=30").content == STEP
        assert ask(endpoint, f"/artifacts/{NOWHERE}?wait=30").status_code == 404, "at once: it waits no more"
        endpoint.shelf.put(NOWHERE)  # they go
        wait_until(lambda: endpoint.shelf.waiters.taken.total() == 0)


def test_who_reads_nothing_is_not_waited_for(endpoint):
    """The system holds some of what is sent; the rest of the file waits for its reader."""
    with ExitStack() as stack:
        for _ in range(READERS_OF_ONE):
            connect(endpoint, stack, f"GET /artifacts/{NAME} HTTP/1.1\r\n\r\n")
        wait_until(lambda: endpoint.shelf.readers.taken.total() == READERS_OF_ONE)
        assert ask(endpoint, f"/artifacts/{NAME}").status_code == 503
        endpoint.deadlines.cut(time.monotonic() + IDLE_SECONDS + len(STEP) / LEAST_RATE)
        wait_until(lambda: endpoint.shelf.readers.taken.total() == 0)
        assert ask(endpoint, "/ping").status_code == 204


def test_a_head_has_its_time_however_it_trickles_in(endpoint, monkeypatch):
    monkeypatch.setattr(peers, "IDLE_SECONDS", 0.3)
    trickled = 0
    with ExitStack() as stack:
        slow = connect(endpoint, stack, "GET /ping HTTP/1.1\r\n")
        slow.settimeout(0.05)
        while True:
            try:
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                slow.sendall(b"x")
                trickled += 1
                assert trickled < 200, "it is waited for"
            except OSError:
                break
    assert trickled > 0
