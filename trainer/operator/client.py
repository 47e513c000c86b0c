"""The coordinator as an agent sees it: signed requests that outlive a restarted server."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import httpx

from trainer.operator.config import is_loopback
from trainer.operator.links import Links
from trainer.operator.version import VERSION
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import sign_request

T = TypeVar("T")
Check = Callable[[], None]
"""Raises when there is no point in trying on."""

TIMEOUT = httpx.Timeout(15, connect=5)
LONG_POLL_TIMEOUT = httpx.Timeout(35, connect=5)
"""The coordinator answers a poll for work within 20 s."""
KEEP_OPEN_SECONDS = 60
"""An idle connection: longer than heartbeats are apart, since a TLS handshake costs as much as four requests."""
BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0


SEND_BUFFER_BYTES = 2**22
"""That a kernel takes of a body before the link has (Linux: net.ipv4.tcp_wmem), and the answer waits for all of it."""
LEAST_BYTES_PER_SECOND = 2**14


def upload_timeout(size: int) -> httpx.Timeout:
    """For the answer to a body of `size` bytes: it may be under way long after it was handed over."""
    return httpx.Timeout(15, connect=5, read=15 + min(size, SEND_BUFFER_BYTES) / LEAST_BYTES_PER_SECOND)


class UnavailableError(HyperGPUError):
    """The server is there but cannot answer now (5xx, 429): worth trying again."""


class Coordinator:
    """`links` is what the requests tell of the way to it; `skew` the server's clock minus ours in seconds at the last hello.
    `transport`: another way there than the straight one, or through the environment's proxy."""

    def __init__(
        self, url: str, private_key: str, *, say: Callable[[str, str], None], transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url, self.private_key, self.say = url, private_key, say
        without_proxy = transport is not None or is_loopback(urlsplit(url).hostname or "")
        self.http = httpx.Client(
            base_url=url, timeout=TIMEOUT, trust_env=not without_proxy, limits=httpx.Limits(keepalive_expiry=KEEP_OPEN_SECONDS),
            transport=transport,
            headers={"User-Agent": f"hypergpu/{VERSION}", "Accept-Encoding": "gzip"},
        )  # fmt: skip
        self.links = Links()
        self.skew = 0.0
        self.is_reachable = True

    # The agent API, call by call. Each raises HyperGPUError with the server's code.

    def hello(self, facts: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.persist(lambda: self.post("/agent/v1/hello", facts)).json()
        self.skew = answer["server_time"] - time.time()
        if self.links.rtt is None:
            self.probe()
        return answer

    def probe(self) -> None:
        """Time a tiny request on the open connection, while no other traffic has told anything."""
        try:
            self.measured(lambda: self.http.get("/agent/v1/ping"))
        except httpx.TransportError:
            self.links.broken()

    def lease(self) -> dict[str, Any] | None:
        """Wait up to 20 s for an order, audits to answer, or both; None when there is nothing."""
        response = self.persist(lambda: self.telling(lambda link: self.post("/agent/v1/leases", link, timeout=LONG_POLL_TIMEOUT)))
        return None if response.status_code == httpx.codes.NO_CONTENT else response.json()

    def heartbeat(self, assignment: int, progress: dict[str, Any]) -> dict[str, Any]:
        """One attempt: the next heartbeat is the retry. Raises httpx.TransportError and UnavailableError too."""
        path = f"/agent/v1/assignments/{assignment}/heartbeat"
        answer: dict[str, Any] = self.measured(lambda: self.telling(lambda link: self.post(path, progress | link))).json()
        return answer

    def telling(self, attempt: Callable[[dict[str, Any]], T]) -> T:
        """`attempt` with what is new of the link, which is kept for the next request when this one fails."""
        report = self.links.report()
        try:
            return attempt({"link": report} if report else {})
        except BaseException:
            self.links.untold(report)
            raise

    def measured(self, attempt: Callable[[], T]) -> T:
        """`attempt()`, its round trip counted."""
        started = time.monotonic()
        result = attempt()
        self.links.round_trip(time.monotonic() - started)
        return result

    def commit(self, assignment: int, payload: dict[str, Any], *, check: Check) -> None:
        path = f"/agent/v1/assignments/{assignment}/commit"
        self.persist(lambda: self.measured(lambda: self.post(path, payload)), check=check)

    def hand_in(self, assignment: int, payload: dict[str, Any], *, check: Check) -> dict[str, Any]:
        path = f"/agent/v1/assignments/{assignment}/receipt"
        answer: dict[str, Any] = self.persist(lambda: self.post(path, payload), check=check).json()
        return answer

    def contribute(self, assignment: int, payload: dict[str, Any], artifact: bytes, *, check: Check) -> dict[str, Any]:
        """Commitment, bytes and receipt at once: the receipt's body as JSON, a newline, the bytes."""
        body = json.dumps(payload, allow_nan=False, separators=(",", ":")).encode() + b"\n" + artifact

        def attempt() -> dict[str, Any]:
            started, path = time.monotonic(), f"/agent/v1/assignments/{assignment}/contribution"
            response = self.request(
                "PUT", path, content=body, body_sha256=sha256_hex(body), kind="application/octet-stream",
                timeout=upload_timeout(len(body)),
            )  # fmt: skip
            answer: dict[str, Any] = response.json()
            self.links.sent(len(body), time.monotonic() - started - answer["seconds"])
            return answer

        return self.persist(attempt, check=check)

    def report_failure(self, assignment: int, fence: int, error: HyperGPUError) -> None:
        """Best effort, once: the lease runs out anyway."""
        body = {"fence": fence, "code": error.code, "message": error.message[:300]}
        try:
            self.post(f"/agent/v1/assignments/{assignment}/fail", body, timeout=httpx.Timeout(3))
        except (HyperGPUError, httpx.TransportError) as problem:
            self.say("fail.unsent", f"the coordinator did not take the failure report: {problem}")

    # One signed attempt, and the patience around it.

    def post(self, path: str, payload: dict[str, Any], *, timeout: httpx.Timeout = TIMEOUT) -> httpx.Response:
        body = json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()
        return self.request("POST", path, content=body, body_sha256=sha256_hex(body), timeout=timeout)

    def get(self, path: str, *, headers: dict[str, str] | None = None, stream: bool = False) -> httpx.Response:
        return self.request("GET", path, content=b"", body_sha256=sha256_hex(b""), headers=headers, stream=stream)

    def put(self, path: str, file: Path, sha256: str) -> None:
        started = time.monotonic()
        with file.open("rb") as content:
            self.request(
                "PUT", path, content=content, body_sha256=sha256, kind="application/octet-stream",
                timeout=upload_timeout(file.stat().st_size),
            )  # fmt: skip
        self.links.sent(file.stat().st_size, time.monotonic() - started)

    def request(
        self, method: str, path: str, *, content: bytes | BinaryIO | Iterator[bytes], body_sha256: str,
        kind: str = "application/json", headers: dict[str, str] | None = None, timeout: httpx.Timeout = TIMEOUT,
        stream: bool = False,
    ) -> httpx.Response:  # fmt: skip
        """Send once. Raises HyperGPUError (a refusal), UnavailableError or httpx.TransportError."""
        headers = {"Content-Type": kind, **(headers or {})}
        request = self.http.build_request(method, path, content=content, headers=headers, timeout=timeout)
        target, _, query = request.url.raw_path.decode("ascii").partition("?")
        signature = sign_request(
            method=method, path=target, query=query, body_sha256=body_sha256, audience=request.headers["Host"],
            private_key=self.private_key,
        )  # fmt: skip
        request.headers.update(signature)
        try:
            response = self.http.send(request, stream=stream)
        except httpx.TransportError:
            self.links.broken()
            raise
        if (stream_below := response.extensions.get("network_stream")) is not None:
            self.links.answered(stream_below.get_extra_info("socket"))
        if not response.is_success:
            response.read()
            response.close()
            raise refusal(response)
        return response

    def persist(self, attempt: Callable[[], T], *, check: Check | None = None) -> T:
        """`attempt()` until the coordinator answers, for ever, with exponential backoff and full jitter (Brooker 2015).

        Raises refusals at once, and what `check` raises.
        """
        for failures in itertools.count():
            if check is not None:
                check()
            try:
                result = attempt()
            except (httpx.TransportError, UnavailableError) as error:
                self.note_reachable(False, str(error) or type(error).__name__)
                time.sleep(random.uniform(0, min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(failures, 10))))
            else:
                self.note_reachable(True)
                return result
        raise AssertionError("unreachable: the loop ends only by returning or raising")

    def note_reachable(self, reachable: bool, problem: str = "") -> None:
        if reachable != self.is_reachable:
            text = f"{self.url} answers again" if reachable else f"{self.url} does not answer ({problem}); trying on"
            self.say("coordinator.reachable" if reachable else "coordinator.unreachable", text)
        self.is_reachable = reachable


def refusal(response: httpx.Response) -> HyperGPUError:
    """The error in a response that is not a success: the server's own {code, message, data} where it has one."""
    status = response.status_code
    if status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS:
        return UnavailableError("coordinator.unavailable", f"HTTP {status}")
    try:
        body = response.json()
        return HyperGPUError(body["code"], body["message"], **body.get("data", {}))
    except (ValueError, KeyError, TypeError):
        text = f"HTTP {status} without a reason: is this the coordinator's address?"
        return HyperGPUError("coordinator.unexpected", text, status=status)
