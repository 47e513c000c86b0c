"""The event log: nothing without its commit, nothing lost, nothing twice in effect."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from marketplace.config.asgi import application
from marketplace.events import services, sweeping
from marketplace.events.models import Event, Stream


class Recorder:
    """Stands where a Celery task would: remembers its calls, and fails like a dead broker when told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.dead = False

    def delay(self, **refs: Any) -> None:
        if self.dead:
            raise OperationalError("connection refused")
        self.calls.append(refs)


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(services.FOLLOW_UPS, "job.changed", [recorder])
    return recorder


def happen(*topics: str, **refs: Any) -> None:
    with transaction.atomic():
        services.emit("job.changed", topics=topics or ("job.1",), changes={"job": {"id": 1}}, refs=refs)


@pytest.mark.django_db(transaction=True)
def test_what_follows_starts_after_the_commit(follower: Recorder) -> None:
    with transaction.atomic():
        services.emit("job.changed", topics=["job.1"], changes={}, refs={"thing_id": 7})
        assert follower.calls == []
    assert follower.calls == [{"thing_id": 7}]
    assert Event.objects.get().dispatched_at is not None


@pytest.mark.django_db(transaction=True)
def test_nothing_follows_a_rollback(follower: Recorder) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        services.emit("job.changed", topics=["job.1"], changes={})
        raise RuntimeError("the change failed")
    assert follower.calls == []
    assert not Event.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_emit_outside_a_transaction_is_our_own_bug() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        services.emit("job.changed", topics=["job.1"], changes={})


@pytest.mark.django_db(transaction=True)
def test_a_dead_broker_loses_nothing(follower: Recorder) -> None:
    follower.dead = True
    happen(thing_id=7)
    assert Event.objects.get().dispatched_at is None
    follower.dead = False
    assert sweeping.dispatch_stragglers() == 0, "a young event is left to its own process"
    Event.objects.update(at=timezone.now() - timedelta(seconds=10))
    assert sweeping.dispatch_stragglers() == 1
    assert sweeping.dispatch_stragglers() == 0
    assert follower.calls == [{"thing_id": 7}]


@pytest.mark.django_db(transaction=True)
def test_each_topic_counts_without_gaps_and_only_the_first_starts_tasks(follower: Recorder) -> None:
    happen("job.1", "market")
    happen("job.2", "market")
    assert list(Event.objects.filter(stream__topic="market").order_by("seq").values_list("seq", flat=True)) == [1, 2]
    assert Stream.objects.get(topic="job.1").seq == 1
    assert len(follower.calls) == 2


class Socket(ApplicationCommunicator):
    """A browser's socket on our own origin. (channels.testing would want daphne.)"""

    def __init__(self) -> None:
        headers = [(b"origin", b"http://testserver"), (b"host", b"testserver")]
        scope = {"type": "websocket", "path": "/ws/v1/events", "query_string": b"", "headers": headers, "subprotocols": []}
        super().__init__(application, scope)

    async def connect(self) -> None:
        await self.send_input({"type": "websocket.connect"})
        assert (await self.receive_output(2))["type"] == "websocket.accept"

    async def send_json_to(self, message: dict[str, Any]) -> None:
        await self.send_input({"type": "websocket.receive", "text": json.dumps(message)})

    async def receive_json_from(self) -> dict[str, Any]:
        return dict(json.loads((await self.receive_output(2))["text"]))

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(2)


async def subscribe(socket: Socket, topic: str, since: dict[str, Any] | None = None) -> dict[str, Any]:
    await socket.send_json_to({"op": "sub", "topic": topic, "since": since})
    return dict(await socket.receive_json_from())


@pytest.mark.django_db(transaction=True)
async def test_the_socket_replays_what_was_missed_and_follows_live(follower: Recorder) -> None:
    happen_later = sync_to_async(happen)
    await happen_later()
    await happen_later()
    socket = Socket()
    await socket.connect()
    first = await subscribe(socket, "job.1")
    assert (first["op"], first["mode"], first["seq"]) == ("sub_ok", "snapshot", 2)
    await socket.send_json_to({"op": "unsub", "topic": "job.1"})
    again = await subscribe(socket, "job.1", {"epoch": first["epoch"], "seq": 1})
    assert again["mode"] == "replay"
    assert (await socket.receive_json_from())["seq"] == 2
    await happen_later()
    live = await socket.receive_json_from()
    assert (live["op"], live["seq"], live["changes"]) == ("pub", 3, {"job": {"id": 1}})
    other_epoch = await subscribe(socket, "job.1", {"epoch": "other", "seq": 1})
    assert other_epoch["mode"] == "snapshot"
    await socket.send_json_to({"op": "ping", "t": 5})
    assert await socket.receive_json_from() == {"op": "pong", "t": 5}
    await socket.send_json_to({"op": "sub", "topic": "../etc"})
    assert (await socket.receive_json_from())["code"] == "socket.bad_message"
    await socket.disconnect()


@pytest.mark.django_db(transaction=True)
async def test_gauges_are_thinned_to_the_newest() -> None:
    socket = Socket()
    await socket.connect()
    await subscribe(socket, "job.1")

    def measure() -> None:
        for step in range(20):
            services.gauge("assignment.progress", topics=["job.1"], key="1", changes={"assignments": [{"id": 1, "step": step}]})

    await sync_to_async(measure)()
    frame = await socket.receive_json_from()
    assert (frame["op"], frame["changes"]["assignments"][0]["step"]) == ("gauge", 19)
    assert await socket.receive_nothing(timeout=0.3)
    await socket.disconnect()
