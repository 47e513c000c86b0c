"""From whom a node fetches what others hold too: one near node goes to the coordinator, the rest of its region to that one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

NEARER = 0.5
"""A peer is near when its round trip takes at most this part of the coordinator's."""
MOST_SOURCES = 2
"""Peers that are asked before the coordinator."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 3600.0
"""For which a peer that failed is not asked: doubled each time in a row."""


def sources_of(
    node_id: int, *, rtt_s: float, peers: Mapping[int, float], gatherers: Collection[int] = ()
) -> list[int]:  # fmt: skip
    """Peers to ask first, of `peers` with their round trips in seconds; `rtt_s` is the one to the coordinator.

    Of nodes near each other one has none: it fetches from the coordinator, once for its region. It is one of the round's
    `gatherers` (trainer.network.regions), whose way is good, else the one with the lowest number. Each asks only those before it
    in this order, so nobody waits in a circle. The first comes first, then the nearest.
    """

    def place(node: int) -> tuple[bool, int]:
        return node not in gatherers, node

    near = [(seconds, peer) for peer, seconds in peers.items() if place(peer) < place(node_id) and seconds <= NEARER * rtt_s]
    if not near:
        return []
    first = min((peer for _, peer in near), key=place)
    return [first, *(peer for _, peer in sorted(near) if peer != first)][:MOST_SOURCES]


class Patience:
    """Whom to ask again when. A peer that failed is left alone for a minute, then two, four, ... an hour; then it is tried once,
    and one success makes up for all. Seconds are of any clock."""

    def __init__(self) -> None:
        self.failures: dict[int, int] = {}
        self.until: dict[int, float] = {}

    def may_ask(self, peer: int, now: float) -> bool:
        return now >= self.until.get(peer, now)

    def kept(self, peer: int) -> None:
        self.failures.pop(peer, None)
        self.until.pop(peer, None)

    def failed(self, peer: int, now: float) -> float:
        """Seconds for which it is not asked now."""
        count = self.failures[peer] = self.failures.get(peer, 0) + 1
        pause = min(FIRST_PAUSE_S * 2.0 ** min(count - 1, 16), LONGEST_PAUSE_S)
        self.until[peer] = now + pause
        return pause
