"""Bodies are counted as they arrive, answers as they leave. Django's ASGI handler spools a whole body to disk before any view
or signature is looked at, so what is too large must be stopped before Django, and how long it took is known here alone."""

from __future__ import annotations

import json
import re
from typing import Any

from marketplace.common.arrival import KEY, Arrival

UPLOADS = re.compile(
    r"^/api/v1/datasets$|^/agent/v1/assignments/\d+/(?:artifact|pieces/\d+/\d+)$"
    r"|^/agent/v1/audits/\d+/(?:evidence|pieces/\d+/\d+)$"
)
SMALL_BODY = 2 * 2**20


class BodyTooLargeError(Exception):
    """Ends a request whose body went on beyond its limit."""


class BodyLimit:
    """ASGI middleware: 413 for a body above 2 MiB, on the upload paths above `upload_limit` bytes."""

    def __init__(self, app: Any, *, upload_limit: int) -> None:
        self.app = app
        self.upload_limit = upload_limit

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        limit = self.upload_limit if UPLOADS.match(scope["path"]) else SMALL_BODY
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await refuse(send, limit)
            return
        arrival = Arrival()

        async def counted() -> dict[str, Any]:
            message: dict[str, Any] = await receive()
            arrival.came(len(message.get("body", b"")))
            if arrival.size > limit:
                raise BodyTooLargeError
            return message

        async def sent(message: dict[str, Any]) -> None:
            await send(message)
            arrival.sent += len(message.get("body", b""))

        try:
            await self.app(scope | {KEY: arrival}, counted, sent)
        except BodyTooLargeError:
            await refuse(send, limit)


async def refuse(send: Any, limit: int) -> None:
    error = {
        "code": "artifact.too_large",
        "message": f"The body is larger than the {limit} bytes allowed here.",
        "data": {"limit": limit},
    }
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error).encode()})
