"""Bodies are counted as they arrive, answers as they leave. Django's ASGI handler spools a whole body to disk before any view
or signature is looked at, so what is too large, or of a stranger, must be stopped before Django; and how long it took is known
here alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from marketplace.common.arrival import KEY, Arrival
from marketplace.common.errors import http_status
from trainer.protocol.errors import HyperGPUError

SMALL_BODY = 2 * 2**20
MOST_AT_ONCE = 16
"""Uploads of one sender that are under way in a process: an agent has four connections, and those that it has given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """Who sends it, and the most bytes that it may have."""

    sender: str
    limit: int


Admit = Callable[[dict[str, Any]], Awaitable[Upload | None]]
"""What a request's scope, its head, says of its body; None where it is no upload. Raises HyperGPUError."""


class BodyLimit:
    """ASGI middleware: 413 for a body above 2 MiB, or of an upload above what `admit` says, who is asked before the first byte
    of it is received."""

    def __init__(self, app: Any, *, admit: Admit) -> None:
        self.app = app
        self.admit = admit
        self.under_way = Counter[str]()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        arrival = Arrival()
        try:
            upload = await self.admit(scope)
            with self.place(upload):
                await self.bounded(scope | {KEY: arrival}, receive, send, limit=SMALL_BODY if upload is None else upload.limit)
        except HyperGPUError as refusal:
            await refuse(send, refusal)

    @contextmanager
    def place(self, upload: Upload | None) -> Iterator[None]:
        """Among what its sender has under way. Raises HyperGPUError `upload.too_many`."""
        if upload is None:
            yield
            return
        if self.under_way[upload.sender] >= MOST_AT_ONCE:
            raise HyperGPUError("upload.too_many", f"{MOST_AT_ONCE} of your uploads are under way; wait until one is done.")
        self.under_way[upload.sender] += 1
        try:
            yield
        finally:
            self.under_way -= Counter([upload.sender])

    async def bounded(self, scope: dict[str, Any], receive: Any, send: Any, *, limit: int) -> None:
        """The application's answer. Raises HyperGPUError `artifact.too_large` where the body goes on beyond the limit."""
        arrival: Arrival = scope[KEY]
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            raise too_large(limit)

        async def counted() -> dict[str, Any]:
            message: dict[str, Any] = await receive()
            arrival.came(len(message.get("body", b"")))
            if arrival.size > limit:
                raise too_large(limit)
            return message

        async def sent(message: dict[str, Any]) -> None:
            await send(message)
            arrival.sent += len(message.get("body", b""))

        await self.app(scope, counted, sent)


def too_large(limit: int) -> HyperGPUError:
    return HyperGPUError("artifact.too_large", f"The body is larger than the {limit} bytes allowed here.", limit=limit)


async def refuse(send: Any, refusal: HyperGPUError) -> None:
    """Answer at once. Of a stranger, and of what is too large, nothing more is read; others may end what they send, for a
    connection that is closed under a sender may take the answer with it."""
    status = http_status(refusal.code)
    headers = [(b"content-type", b"application/json")]
    if status in (401, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(refusal.as_json()).encode()})
