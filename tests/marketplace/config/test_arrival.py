"""How long a body took to arrive, over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from marketplace.common.arrival import KEY, Arrival
from marketplace.config.body_limit import BodyLimit, Upload

PIECES, PAUSE = 10, 0.01
PATH = "/agent/v1/assignments/1/artifact"


@pytest.fixture
def arrivals() -> Iterator[tuple[int, threading.Event, list[Arrival]]]:
    """A server's port, whether it has begun to receive, and what arrived there."""
    found, begun = list[Arrival](), threading.Event()

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        begun.set()
        while (await receive()).get("more_body"):
            pass
        found.append(scope[KEY])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):
            await send({"type": "http.response.body", "body": b"a" * 700, "more_body": True})
        await send({"type": "http.response.body"})

    async def admit(scope: dict[str, Any]) -> Upload:
        return Upload(sender="a node", limit=2**20)

    listener = socket.create_server(("127.0.0.1", 0))
    limited = BodyLimit(application, admit=admit)
    server = uvicorn.Server(uvicorn.Config(limited, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1], begun, found
    server.should_exit = True
    thread.join(10)


def test_given_a_slow_sender_then_its_pace_is_seen(arrivals: tuple[int, threading.Event, list[Arrival]]) -> None:
    port, begun, found = arrivals
    before = time.time()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {PIECES * 1000}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        assert begun.wait(10)
        for _ in range(PIECES):
            time.sleep(PAUSE)  # the slow link
            connection.sendall(b"z" * 1000)
        while connection.recv(1000):
            pass
    (arrival,) = found
    assert arrival.size == PIECES * 1000
    assert PIECES * PAUSE <= arrival.seconds < 10
    assert before <= arrival.at <= time.time()
    assert arrival.sent == 1400
