"""Other operators' endpoints: what this node offers at its own, and how it asks theirs. Bytes are verified by their hash, so
that nobody has to be trusted; whatever goes wrong there, the coordinator has the file as well."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from trainer.operator.client import Check
from trainer.operator.config import sha256_of
from trainer.operator.emulation import port_of
from trainer.operator.links import Links
from trainer.operator.places import Deadlines, Places
from trainer.operator.tunnels import Guests, authorities
from trainer.protocol.errors import HyperGPUError

MOST_CONNECTIONS, MOST_WAITERS, MOST_READERS = 64, 32, 16
"""At once: connections of whoever comes, requests that wait for a file, and files that are sent."""
CONNECTIONS_OF_ONE, WAITERS_OF_ONE, READERS_OF_ONE = 16, 8, 8
"""Of these, of one address: several near nodes may share theirs."""
IDLE_SECONDS = 15
"""For a request's head to come, however it trickles in."""
LEAST_RATE = 2**14
"""Bytes a second: who reads a file more slowly is not waited for."""
MOST_WAIT_SECONDS = 30.0
PING_AGAIN_SECONDS = 600
TIMEOUT = httpx.Timeout(5, connect=2)
ARTIFACT = re.compile(r"^/artifacts/([0-9a-f]{64})$")


class Shelf:
    """Artifacts that this node gives away: outer steps and checkpoints, which are public, by SHA-256 in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shared, self.changed = folder, set[str](), threading.Condition()
        self.readers, self.waiters = Places(MOST_READERS, READERS_OF_ONE), Places(MOST_WAITERS, WAITERS_OF_ONE)

    def put(self, sha256: str) -> None:
        with self.changed:
            self.shared.add(sha256)
            self.changed.notify_all()

    def find(self, sha256: str, *, wait: float, who: str = "") -> Path | None:
        """Its file, if it is here within `wait` seconds: it may be on its way to this node. Who waits takes nobody's place that
        asks for what is here."""
        if wait > 0 and sha256 not in self.shared and self.waiters.enter(who):
            try:
                with self.changed:
                    self.changed.wait_for(lambda: sha256 in self.shared, timeout=min(wait, MOST_WAIT_SECONDS))
            finally:
                self.waiters.leave(who)
        path = self.folder / sha256
        return path if sha256 in self.shared and path.exists() else None


class Endpoint(ThreadingHTTPServer):
    """GET /ping and GET /artifacts/<sha256>?wait=<seconds> for all, CONNECT to the coordinator for `guests`; nothing else."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], shelf: Shelf, guests: Guests | None = None) -> None:
        self.shelf, self.guests = shelf, guests
        self.places, self.deadlines = Places(MOST_CONNECTIONS, CONNECTIONS_OF_ONE), Deadlines()
        self.strangers = dict[socket.socket, str]()
        super().__init__(address, Asked)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, if there is a place."""
        if not self.places.enter(client_address[0]):
            return self.shutdown_request(request)
        self.strangers[request] = client_address[0]
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.release(request)
        super().shutdown_request(request)

    def release(self, connection: socket.socket) -> None:
        """It is over, or no stranger's."""
        self.deadlines.lift(connection)
        if (who := self.strangers.pop(connection, None)) is not None:
            self.places.leave(who)

    def service_actions(self) -> None:
        self.deadlines.cut(time.monotonic())


class Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: Endpoint

    def handle_one_request(self) -> None:
        self.server.deadlines.give(self.connection, IDLE_SECONDS)
        super().handle_one_request()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/ping":
            return self.head(204)
        found = ARTIFACT.match(path)
        wait = parse_qs(query).get("wait", ["0"])[0]
        if found is None or not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", wait):
            return self.head(404)
        shelf, who = self.server.shelf, self.client_address[0]
        self.server.deadlines.give(self.connection, MOST_WAIT_SECONDS + IDLE_SECONDS)
        file = shelf.find(found[1], wait=float(wait), who=who)
        if file is None:
            return self.head(404)
        if not shelf.readers.enter(who):
            return self.head(503)
        try:
            self.give(file)
        except OSError:
            self.close_connection = True
        finally:
            shelf.readers.leave(who)

    def give(self, file: Path) -> None:
        with file.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            self.server.deadlines.give(self.connection, IDLE_SECONDS + size / LEAST_RATE)
            self.head(200, length=size)
            shutil.copyfileobj(content, self.wfile, 256 * 1024)

    def do_CONNECT(self) -> None:
        """Carry a near node's connection to the coordinator, which is the only place it leads to, whatever it asks for."""
        guests, self.close_connection = self.server.guests, True
        if guests is None:
            return self.head(404)
        try:
            key = guests.admit("CONNECT", self.path, dict(self.headers))
        except HyperGPUError:
            return self.head(403)
        if not guests.enter(key):
            return self.head(503)
        self.server.release(self.connection)  # tunnels have limits of their own
        try:
            guests.carry(self.connection, lambda: self.head(200))
        except OSError:
            return
        finally:
            guests.leave(key)

    def head(self, status: int, *, length: int = 0) -> None:
        self.send_response_only(status)
        if status != 204 and (self.command, status) != ("CONNECT", 200):
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


class Pinned(httpx.HTTPTransport):
    """Connects to one of `addresses`, whatever the URL's name means by then; Host and TLS's server name stay the URL's."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(trust_env=False, verify=authorities())
        self.addresses = addresses

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        port = port_of(str(request.url))
        while True:
            request.url = request.url.copy_with(host=self.addresses[0], port=port)
            try:
                return super().handle_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if len(self.addresses) == 1:
                    raise
                self.addresses = self.addresses[1:]


class Peers:
    """Asks other nodes' endpoints. `may_be_local`: addresses of this machine are meant, since the coordinator's is one."""

    def __init__(self, links: Links, *, may_be_local: bool, most_bytes: int = 2**30) -> None:
        self.links, self.may_be_local, self.most_bytes = links, may_be_local, most_bytes
        self.pinged: dict[int, float] = {}

    def ping_all(self, endpoints: Mapping[int, str]) -> threading.Thread | None:
        """In a thread: time the way to each that was not timed lately. Results go out with the next heartbeat."""
        now = time.monotonic()
        due = {node: url for node, url in endpoints.items() if now - self.pinged.get(node, float("-inf")) > PING_AGAIN_SECONDS}
        if not due:
            return None
        self.pinged |= dict.fromkeys(due, now)

        def ping_due() -> None:
            for node, url in due.items():
                self.ping(node, url)

        thread = threading.Thread(target=ping_due, daemon=True)
        thread.start()
        return thread

    def ping(self, node: int, url: str) -> None:
        """One round trip on a connection that is open already; nothing when nobody answers, or nobody may be asked."""
        if not (addresses := self.addresses_to_ask(url)):
            return
        try:
            with httpx.Client(base_url=url, timeout=TIMEOUT, transport=Pinned(addresses), trust_env=False) as http:
                http.get("/ping")
                started = time.monotonic()
                http.get("/ping")
                self.links.peer(node, time.monotonic() - started)
        except (httpx.HTTPError, httpx.InvalidURL):
            return

    def fetch(self, url: str, sha256: str, folder: Path, *, seconds: float, check: Check) -> bool:
        """The artifact into `folder`, if the peer has it or gets it soon: it may take `seconds` to get it, and as long again to
        send it. False when it does not come so; what is not the artifact is thrown away. Raises what `check` raises."""
        if not (addresses := self.addresses_to_ask(url)):
            return False
        part, ends = folder / f".{sha256}.{threading.get_ident()}.part", time.monotonic() + 2 * seconds + 1
        wait = min(seconds, MOST_WAIT_SECONDS)
        try:
            timeout = httpx.Timeout(wait + 1, connect=2)
            with (
                httpx.Client(base_url=url, timeout=timeout, transport=Pinned(addresses), trust_env=False) as http,
                http.stream("GET", f"/artifacts/{sha256}", params={"wait": f"{wait:.3f}"}) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    return False
                with part.open("wb") as file:
                    for chunk in response.iter_raw():
                        check()
                        file.write(chunk)
                        if time.monotonic() > ends or file.tell() > self.most_bytes:
                            return False
            if sha256_of(part) != sha256:
                return False
            os.replace(part, folder / sha256)
            return True
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        finally:
            part.unlink(missing_ok=True)

    def addresses_to_ask(self, url: str) -> list[str]:
        """What the endpoint's host resolves to, or nothing if any of it is not to be asked. An operator may announce anything:
        this machine's own services, its network and the network's metadata are not asked. Ask these, not the name again."""
        try:
            host = urlsplit(checked_endpoint(url)).hostname
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except (HyperGPUError, OSError, ValueError):  # ValueError: brackets without an address, a label too long
            return []
        return found if all(self.may_ask(ipaddress.ip_address(address)) for address in found) else []

    def may_ask(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address.sixtofour or address
        return not address.is_link_local if self.may_be_local else address.is_global


def checked_endpoint(url: str) -> str:
    """An address that others can ask, scheme://host[:port]. Raises HyperGPUError `config.endpoint`."""
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", url) or len(url) > 200:
        raise HyperGPUError("config.endpoint", f"{url} is not an endpoint such as http://203.0.113.7:7070, without a path.")
    return url


def listening_address(listen: str | None, endpoint: str) -> tuple[str, int]:
    """Where to listen: HOST:PORT, or the endpoint's port on all addresses. Raises HyperGPUError `config.endpoint`."""
    host, _, port = (listen or "").rpartition(":")
    try:
        number = int(port) if listen else urlsplit(endpoint).port
    except ValueError:
        number = None
    if number is None:
        raise HyperGPUError("config.endpoint", "Say where to listen: --listen HOST:PORT, or a port in --public-url.")
    return host.strip("[]") or "0.0.0.0", number
