"""How a request's body came in, and its answer went out. Django hands over a body only once it is spooled, and reads a file that
it sends at once, so time and bytes are taken below it, in ASGI."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from django.http import HttpRequest

KEY = "hypergpu.arrival"
"""In the ASGI scope."""


@dataclass(slots=True)
class Arrival:
    """`at` unix seconds of the headers; `size` bytes of the body, the last of them `seconds` later; `sent` bytes of the answer's
    body so far."""

    at: float = field(default_factory=time.time)
    size: int = 0
    seconds: float = 0.0
    sent: int = 0
    started: float = field(default_factory=time.monotonic)

    def came(self, size: int) -> None:
        self.size += size
        self.seconds = time.monotonic() - self.started


def arrival_of(request: HttpRequest) -> Arrival | None:
    """None where the server is not ours (tests of views)."""
    return getattr(request, "scope", {}).get(KEY)
