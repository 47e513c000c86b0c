from __future__ import annotations

from typing import Any

import pytest

from marketplace.config.body_limit import SMALL_BODY, BodyLimit, Upload

UPLOAD = "/agent/v1/assignments/7/artifact"


async def send_body(path: str, chunks: list[bytes], *, announced: int | None = None, limit: int = 10 * SMALL_BODY) -> int:
    """Status with which a body is answered; the application behind reads all of it."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def admit(scope: dict[str, Any]) -> Upload | None:
        return Upload(sender="a node", limit=limit) if scope["path"] == UPLOAD else None

    headers = [] if announced is None else [(b"content-length", str(announced).encode())]
    await BodyLimit(application, admit=admit)({"type": "http", "path": path, "headers": headers}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/api/v1/jobs", SMALL_BODY, 200),
        ("/api/v1/jobs", SMALL_BODY + 1, 413),
        (UPLOAD, SMALL_BODY + 1, 200),
        (UPLOAD, 11 * SMALL_BODY, 413),
    ],
)
async def test_bodies_are_limited_by_what_arrives(path: str, size: int, status: int) -> None:
    half = size // 2
    assert await send_body(path, [b"x" * half, b"x" * (size - half)]) == status


async def test_an_announced_length_is_refused_before_a_byte_is_read() -> None:
    assert await send_body("/api/v1/jobs", [], announced=SMALL_BODY + 1) == 413
