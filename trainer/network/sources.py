"""From whom a node fetches what others hold too: one near node goes to the coordinator, the rest of its region to that one."""

from __future__ import annotations

from collections.abc import Mapping

NEARER = 0.5
"""A peer is near when its round trip takes at most this part of the coordinator's."""
MOST_SOURCES = 2
"""Peers that are asked before the coordinator."""


def sources_of(node_id: int, *, rtt_s: float, peers: Mapping[int, float]) -> list[int]:
    """Peers to ask first, of `peers` with their round trips in seconds; `rtt_s` is the one to the coordinator.

    Of nodes near each other the one with the lowest number has none: it fetches from the coordinator, once for its region.
    Each asks only lower numbers, so nobody waits in a circle. The lowest comes first, then the nearest.
    """
    near = sorted((seconds, peer) for peer, seconds in peers.items() if peer < node_id and seconds <= NEARER * rtt_s)
    if not near:
        return []
    first = min(peer for _, peer in near)
    return [first, *(peer for _, peer in near if peer != first)][:MOST_SOURCES]
