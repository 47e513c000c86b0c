"""Which other nodes a node is told of with its order: near ones to fetch from or to upload by, and some to time the way to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from django.utils import timezone

from marketplace.operators.facts import ASSUMED, Quantity
from marketplace.operators.models import Measurement, Node
from marketplace.operators.selectors import online_since
from trainer.network.sources import sources_of

MOST_PINGS = 3
"""Nodes that one is told to time with one order: each of them costs bytes in the answer."""
PING_AGAIN = timedelta(hours=1)


def peers_of(node_id: int, *, among: Iterable[int], size: int, vias: Mapping[int, int] | None = None) -> dict[str, Any]:
    """{sources, pings: {node: endpoint}, size, gather: {node, url}, carry: [hot key]}: what the lease's answer says of the
    round's other nodes, as far as there is something to say. `size` is that of the file which they all need, in bytes; `vias`
    by whom whose upload goes."""
    vias = vias or {}
    online = Node.objects.filter(pk__in=list(among), last_seen__gte=online_since(), retired=False)
    carried = online.filter(pk__in=[node for node, via in vias.items() if via == node_id]).order_by("id")
    found: dict[str, Any] = {"carry": list(carried.values_list("hot_key", flat=True))}
    if endpoints := dict(online.exclude(pk=node_id).exclude(endpoint="").values_list("pk", "endpoint")):
        rows = Measurement.objects.filter(node_id=node_id, quantity=Quantity.PEER_RTT, of__in=[str(peer) for peer in endpoints])
        known = {int(row.of): row for row in rows.defer("history")}
        rtt = Node.objects.values_list("measured", flat=True).get(pk=node_id).get("rtt", {}).get("value", ASSUMED[Quantity.RTT])
        near = {peer: row.value for peer, row in known.items()}
        chosen = sources_of(node_id, rtt_s=rtt, peers=near, gatherers=set(vias.values()))
        old = timezone.now() - PING_AGAIN
        due = [peer for peer in sorted(endpoints) if peer not in known or known[peer].at < old]
        # Each node begins elsewhere, so that together they soon have timed all pairs.
        turn = sum(peer < node_id for peer in due)
        found["sources"] = {str(peer): endpoints[peer] for peer in chosen}
        found["pings"] = {str(peer): endpoints[peer] for peer in (due[turn:] + due[:turn])[:MOST_PINGS]}
        if (via := vias.get(node_id)) in endpoints:
            found["gather"] = {"node": via, "url": endpoints[via]}
    found = {name: value for name, value in found.items() if value}
    return found | {"size": size} if "sources" in found else found
