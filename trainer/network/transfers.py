"""How a file goes over a link: in one request, or in pieces over several connections, some of them redundant. Pure arithmetic.

A good link pays nothing: one request, as if there were no pieces. What pieces are good for, one after the other:

- **A large file** is never one request: a server takes none of any length, and what has come of it is kept.
- **A broken transfer goes on** where it stopped: the pieces that have come are kept. Whatever the link, a broken upload is
  repeated in pieces; downloads go on from the last byte without any.
- **Several connections**: where loss, or a window on a long path, keeps one connection below what the link carries, several
  together carry more, and one that waits for a retransmission does not stop the others.
- **Erasure-coded pieces** (`erasure.py`): TCP loses no bytes, so redundancy cannot repair anything; what it saves is waiting for
  a connection that hangs. When nothing else is left to send and a piece takes twice as long as pieces do, an idle connection
  sends a redundant one; any `pieces` of those sent make the file. Where no connection hangs it costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.network.facts import Reason
from trainer.network.links import mathis_bps

WINDOW_BYTES = 2**22
"""Of one connection at most, as common systems tune it (Linux: net.ipv4.tcp_wmem, 4 MiB)."""
LOSSY = 0.001
"""Part of the segments from which on several connections are worth their headers, whatever the goodput was."""
BOUND = 0.5
"""A connection that reaches this part of what TCP allows it is bound by TCP, not by the link."""
CONNECTIONS = 4
PIECES_PER_CONNECTION = 4
SPARE = CONNECTIONS - 1
"""Redundant pieces: while one connection does anything at all, the others may hang."""
LONG_FILE = 2**20
"""Bytes from which on a file shows what a path carries: smaller ones are sent before TCP has reached its rate."""
MOST_BODY = 2**26
"""Bytes from which on a file goes in pieces of no more, whatever the link: a server takes bodies of several times that, and a
piece is held in memory."""
LEAST_PIECE = 2**14
"""Bytes: a request's head is a twentieth of it."""
MOST_PIECES = 128
"""Together with as many redundant ones they have numbers below 256 (the code's limit)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """`pieces` that make the file, over so many `connections`; `spare` redundant ones at most. One piece: a single request."""

    connections: int
    pieces: int
    spare: int
    reason: Reason


def transfer_of(
    size: int, *, rtt_s: float | None = None, loss: float = 0.0, rate: float | None = None, broken: bool = False
) -> Transfer:
    """How to send `size` bytes over a link of measured round trip, loss (part of the segments) and goodput (`rate`, bytes/s), as
    far as they are known. `broken`: an attempt in one request has failed."""
    most = min(MOST_PIECES, size // LEAST_PIECE)
    if most < 2:
        return whole("It is small.")
    why = None
    if loss >= LOSSY:
        why = Reason(code="transfer.lossy", text=f"{loss:.1%} of the segments are lost: {CONNECTIONS} connections carry more.")
    elif rtt_s and rate and size >= LONG_FILE and rate >= BOUND * connection_rate(rtt_s, loss):
        text = f"At {1000 * rtt_s:.0f} ms one connection is bound by TCP ({rate / 1e6:.3g} MB/s): {CONNECTIONS} carry more."
        why = Reason(code="transfer.long_path", text=text)
    least = math.ceil(size / MOST_BODY)
    if why is not None:
        pieces = min(most, max(least, CONNECTIONS * PIECES_PER_CONNECTION))
        return Transfer(connections=CONNECTIONS, pieces=pieces, spare=SPARE, reason=why)
    if broken:
        why = Reason(code="transfer.broken", text="A request was cut off: sent in pieces, so that what has come is kept.")
    elif least > 1:
        why = Reason(code="transfer.large", text=f"{size / 1e6:,.0f} MB are too much for one request: what has come is kept.")
    if why is not None:
        return Transfer(connections=1, pieces=min(most, max(least, PIECES_PER_CONNECTION**2)), spare=0, reason=why)
    return whole("The link is good.")


def whole(why: str) -> Transfer:
    return Transfer(connections=1, pieces=1, spare=0, reason=Reason(code="transfer.whole", text=f"{why} One request."))


def connection_rate(rtt_s: float, loss: float) -> float:
    """Bytes/s of one connection at most."""
    return min(WINDOW_BYTES / rtt_s, mathis_bps(rtt_s, loss) / 8)


def piece_size(size: int, pieces: int) -> int:
    """Bytes of each piece but the last, which has the rest; redundant ones are as long as the first."""
    return math.ceil(size / pieces)


def piece_span(size: int, pieces: int, index: int) -> tuple[int, int]:
    """Offset and length of plain piece `index`."""
    each = piece_size(size, pieces)
    return index * each, min(each, size - index * each)
