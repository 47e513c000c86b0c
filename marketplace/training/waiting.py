"""Waking nodes that wait for work. A nudge is a hint: who misses it looks at the rows again soon."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from channels.layers import get_channel_layer
from django.db.models import QuerySet
from redis.exceptions import RedisError

from marketplace.common import groups


async def wait_for_work(node_id: int, *, seconds: float) -> bool:
    """Whether the node was nudged; waits for it for up to `seconds`."""
    layer = get_channel_layer()
    try:
        channel = await layer.new_channel()
        await layer.group_add(f"work.{node_id}", channel)
        try:
            await asyncio.wait_for(layer.receive(channel), timeout=seconds)
            await forget(layer, channel)
            return True
        except TimeoutError:
            return False
        finally:
            await layer.group_discard(f"work.{node_id}", channel)
    except (RedisError, OSError):
        await asyncio.sleep(min(seconds, 0.5))
        return False


async def forget(layer: Any, channel: str) -> None:
    """The pub/sub layer lets go of a channel only when a receive on it is cancelled. Not for a channel whose receive was:
    another receive would subscribe to it anew, and cancelling that leaves the connection of all channels half way."""
    last = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0)
    last.cancel()
    with suppress(asyncio.CancelledError):
        await last


def nudge(rows: QuerySet[Any]) -> None:
    """Wake the nodes of these assignments or audits."""
    for node_id in rows.values_list("node_id", flat=True):
        groups.send(f"work.{node_id}", {"type": "work"})
