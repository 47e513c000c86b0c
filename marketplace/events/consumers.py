"""The live socket: topics with replay of what was missed; gauges thinned to the newest."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from marketplace.events import selectors
from marketplace.events.services import group_name, position

TOPIC = re.compile(r"^(market|job\.\d{1,18}|operator\.0x[0-9a-f]{40})$")
MAX_TOPICS = 32
GAUGE_SECONDS = 0.1


class EventConsumer(AsyncJsonWebsocketConsumer):
    """Every topic is public: what it shows stands on a public page or on the chain."""

    async def connect(self) -> None:
        self.topics: set[str] = set()
        self.gauges: dict[str, dict[str, Any]] = {}
        self.flushing: asyncio.Task[None] | None = None
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if self.flushing:
            self.flushing.cancel()
        for topic in self.topics:
            await self.channel_layer.group_discard(group_name(topic), self.channel_name)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        match content:
            case {"op": "ping", "t": t}:
                await self.send_json({"op": "pong", "t": t})
            case {"op": "sub", "topic": str(topic)} if TOPIC.match(topic) and len(self.topics) < MAX_TOPICS:
                await self.subscribe(topic, content.get("since"))
            case {"op": "unsub", "topic": str(topic)}:
                self.topics.discard(topic)
                await self.channel_layer.group_discard(group_name(topic), self.channel_name)
            case _:
                await self.send_json(
                    {"op": "error", "code": "socket.bad_message", "message": "Send ping, sub or unsub with a topic."}
                )

    async def subscribe(self, topic: str, since: Any) -> None:
        # Join first, read second: what commits in between arrives twice and is dropped by its seq, never lost.
        self.topics.add(topic)
        await self.channel_layer.group_add(group_name(topic), self.channel_name)
        stream = await database_sync_to_async(position)(topic)
        missed = await database_sync_to_async(selectors.missed_events)(stream, since)
        mode = "snapshot" if missed is None else "replay"
        await self.send_json({"op": "sub_ok", **stream, "mode": mode})
        for frame in missed or []:
            await self.send_json(frame)

    async def stream_frame(self, message: dict[str, Any]) -> None:
        frame, key = message["frame"], message["key"]
        if frame["topic"] not in self.topics:
            return
        if key is None:
            await self.send_json(frame)
            return
        self.gauges[f"{frame['topic']}:{key}"] = frame
        if self.flushing is None or self.flushing.done():
            self.flushing = asyncio.create_task(self.flush_gauges())

    async def flush_gauges(self) -> None:
        await asyncio.sleep(GAUGE_SECONDS)
        waiting, self.gauges = self.gauges, {}
        for frame in waiting.values():
            await self.send_json(frame)
