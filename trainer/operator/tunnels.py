"""Uploads by way of a near node: it carries a connection to the coordinator, byte for byte, as an HTTP proxy does (CONNECT, RFC
9110, section 9.3.6). Requests stay signed by their own node, and with https nobody on the way can read or change them. Whatever
goes wrong there, the direct way is taken at once.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TypeVar
from urllib.parse import urlsplit

import httpcore
import httpx

from trainer.operator.client import Check, Coordinator
from trainer.operator.emulation import port_of
from trainer.operator.links import Links
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import HEADER_KEY, MAX_SKEW_SECONDS, sign_request, verify_request

T = TypeVar("T")

MOST_TUNNELS = 32
"""That a node carries at once: four connections of each of eight near nodes."""
MOST_OF_ONE = 8
"""Of these, of one near node: its four, and four that it has given up and that are not idle for long enough yet."""
MOST_BYTES = 2**30
"""Of one tunnel, each way."""
MOST_SECONDS = 3600
"""Of one tunnel, whatever flows in it."""
IDLE_SECONDS = 30
"""After which a tunnel in which nothing flows is closed."""
BLOCK = 2**16
LEASES = 4
"""Newest rounds whose near nodes are carried: late work comes rounds later."""
MOST_HEAD = 4096
"""Bytes of the answer to CONNECT."""
ADDRESS_SECONDS = 2.0
"""For one of the addresses of an endpoint to take a connection."""


# The node that carries.


class Guests:
    """Whose connections this node, which others know as `endpoint`, carries to the coordinator at `url`, and nowhere else: nodes
    that the newest leases name."""

    def __init__(self, url: str, endpoint: str | None) -> None:
        target = urlsplit(url)
        self.target = (target.hostname or "", target.port or (443 if target.scheme == "https" else 80))
        self.name = urlsplit(endpoint or "").netloc.lower()
        self.leases: deque[frozenset[str]] = deque(maxlen=LEASES)
        self.lock = threading.Lock()
        self.nonces: dict[str, float] = {}
        self.carried: Counter[str] = Counter()

    def expect(self, hot_keys: Iterable[str]) -> None:
        self.leases.append(frozenset(key.lower() for key in hot_keys))

    def admit(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """The key of the node that asks. What costs nothing is asked first: a signature takes milliseconds of a machine
        that trains. Raises HyperGPUError `gather.stranger`, `gather.elsewhere`, `gather.replayed`, or as `verify_request`."""
        key, audience = headers.get(HEADER_KEY, "").lower(), headers.get("Host", "")
        if not any(key in keys for keys in tuple(self.leases)):
            raise HyperGPUError("gather.stranger", "No lease of this node names that key.")
        if audience.lower() != self.name:
            raise HyperGPUError("gather.elsewhere", f"That request is for {audience}, this is {self.name}.")
        now = time.time()
        asked = verify_request(method=method, path=path, query="", audience=audience, headers=headers, now=int(now))
        with self.lock:
            self.nonces = {nonce: at for nonce, at in self.nonces.items() if now - at <= 2 * MAX_SKEW_SECONDS}
            if asked.nonce in self.nonces:
                raise HyperGPUError("gather.replayed", "That request was made before.")
            self.nonces[asked.nonce] = now
        return key

    def enter(self, key: str) -> bool:
        """Whether there is a place, which is to be left again."""
        with self.lock:
            is_free = self.carried.total() < MOST_TUNNELS and self.carried[key] < MOST_OF_ONE
            self.carried[key] += is_free
            return is_free

    def leave(self, key: str) -> None:
        with self.lock:
            self.carried -= Counter([key])

    def carry(self, guest: socket.socket, welcome: Callable[[], None]) -> None:
        """Pass on what comes, both ways, until both have ended. Raises OSError when the coordinator does not answer."""
        with socket.create_connection(self.target, timeout=5) as coordinator:
            for end in (guest, coordinator):
                end.settimeout(IDLE_SECONDS)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            welcome()
            back = threading.Thread(target=pour, args=(coordinator, guest), daemon=True)
            back.start()
            pour(guest, coordinator)
            back.join()


def pour(source: socket.socket, sink: socket.socket) -> None:
    """Until the source ends; then the sink hears that it has. One that breaks, or has had its share, breaks the other too."""
    passed, ends = 0, time.monotonic() + MOST_SECONDS
    try:
        while data := source.recv(BLOCK):
            passed += len(data)
            if passed > MOST_BYTES or time.monotonic() > ends:
                raise ConnectionAbortedError
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# The node that is carried.


class ByWay(Coordinator):
    """The coordinator by way of node `node` at `endpoint`, one of whose `addresses` is asked, for one upload. Nothing is tried
    twice: it is broken once anything failed. `cut` ends whatever is under way, `close` lets go of all connections too. `links`:
    what an earlier way by that node has told."""

    def __init__(
        self, coordinator: Coordinator, *, node: int, endpoint: str, addresses: Sequence[str], links: Links | None = None
    ) -> None:
        self.backend = Through(endpoint, addresses, key=coordinator.private_key)
        self.tunnels = Tunnelled(self.backend)
        super().__init__(coordinator.url, coordinator.private_key, say=coordinator.say, transport=self.tunnels)
        self.node, self.is_broken, self.links = node, False, links or self.links

    def request(self, method: str, path: str, **options: object) -> httpx.Response:
        """The signed query says by whom it goes, so that the coordinator knows what it measures."""
        mark = "&" if "?" in path else "?"
        try:
            return super().request(method, f"{path}{mark}via={self.node}", **options)  # type: ignore[arg-type]
        except (httpx.TransportError, HyperGPUError):
            self.is_broken = True
            raise

    def persist(self, attempt: Callable[[], T], *, check: Check | None = None) -> T:
        if check is not None:
            check()
        return attempt()

    def cut(self) -> None:
        self.is_broken = True
        self.backend.cut()

    def close(self) -> None:
        """Threads that were left behind with a piece that nobody needs end with their connections."""
        self.cut()
        self.tunnels.close()


@cache
def authorities() -> ssl.SSLContext:
    """Whose certificates are believed. Reading them takes as long as fetching a small file."""
    return httpx.create_ssl_context()


class Tunnelled(httpx.HTTPTransport):
    """As ever, on connections that `backend` makes."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        super().__init__(trust_env=False, verify=authorities())
        self._pool = httpcore.ConnectionPool(ssl_context=authorities(), network_backend=backend)


class Through(httpcore.NetworkBackend):
    """Makes connections to the coordinator by way of an endpoint. Any other host is reached there too, if the node lets it."""

    def __init__(self, endpoint: str, addresses: Sequence[str], *, key: str) -> None:
        self.url, self.addresses, self.key = urlsplit(endpoint), list(addresses), key
        self.below = httpcore.SyncBackend()
        self.lock = threading.Lock()
        self.sockets: list[socket.socket] = []
        self.is_cut = False

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        """`timeout` is for all of it: every address, TLS, the answer to CONNECT. Raises httpcore.ConnectError or a timeout."""
        ends = time.monotonic() + (timeout or IDLE_SECONDS)
        stream = self.connect(ends)
        try:
            self.keep(stream)
            if self.url.scheme == "https":
                stream = stream.start_tls(authorities(), self.url.hostname, self.left(ends))
            self.ask(stream, f"{host}:{port}", ends)
        except BaseException:
            stream.close()
            raise
        return stream

    def left(self, ends: float) -> float:
        """Seconds until `ends`. Nothing goes on that was cut: who waits has been given up."""
        if self.is_cut:
            raise httpcore.ConnectError("the way by this node was given up")
        if (left := ends - time.monotonic()) <= 0:
            raise httpcore.ConnectTimeout("the node does not answer in time")
        return left

    def connect(self, ends: float) -> httpcore.NetworkStream:
        port = port_of(self.url.geturl())
        for address in self.addresses[:-1]:
            seconds = min(self.left(ends), ADDRESS_SECONDS)
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self.below.connect_tcp(address, port, timeout=seconds)
        return self.below.connect_tcp(self.addresses[-1], port, timeout=min(self.left(ends), ADDRESS_SECONDS))

    def keep(self, stream: httpcore.NetworkStream) -> None:
        """A socket of our own on the same connection, which TLS does not take away, unless it was cut while it was made."""
        with self.lock:
            if self.is_cut:
                raise httpcore.ConnectError("the way by this node was given up")
            try:
                self.sockets.append(socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno())))
            except OSError as error:
                raise httpcore.ConnectError(str(error)) from error

    def ask(self, stream: httpcore.NetworkStream, authority: str, ends: float) -> None:
        """For a tunnel. Byte by byte: what follows the answer is the coordinator's."""
        signed = sign_request(
            method="CONNECT", path=authority, query="", body_sha256=sha256_hex(b""), audience=self.url.netloc,
            private_key=self.key,
        )  # fmt: skip
        head = [f"CONNECT {authority} HTTP/1.1", f"Host: {self.url.netloc}", *(f"{name}: {one}" for name, one in signed.items())]
        stream.write("\r\n".join([*head, "", ""]).encode("ascii"), self.left(ends))
        answer = b""
        while not answer.endswith(b"\r\n\r\n") and len(answer) < MOST_HEAD:
            if not (byte := stream.read(1, self.left(ends))):
                break
            answer += byte
        if not answer.startswith(b"HTTP/1.1 200"):
            raise httpcore.ConnectError(f"the node does not carry this: {answer[:80]!r}")

    def cut(self) -> None:
        """End all connections that were made or are being made, also under who waits for them."""
        with self.lock:
            self.is_cut = True
            for one in self.sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self.sockets.clear()
