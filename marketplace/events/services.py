"""emit(), and what happens with an event after its transaction has committed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from marketplace.common import groups
from marketplace.common.times import iso
from marketplace.events.models import Event, Stream
from marketplace.events.types import EVENT_TYPES

log = logging.getLogger(__name__)


class FollowUp(Protocol):
    """A Celery task."""

    def delay(self, **refs: Any) -> Any: ...


FOLLOW_UPS: dict[str, list[FollowUp]] = {}
"""Event type -> tasks that follow. Filled by marketplace/flow.py alone."""


def emit(
    type: str, *, topics: Sequence[str], changes: Mapping[str, Any], refs: Mapping[str, Any] | None = None, follow: bool = True
) -> Event:
    """Record a fact in the caller's transaction; after commit, start what follows and tell the browsers.

    `topics`: the first carries the follow-up tasks (called with `refs`), the others only show the event; with `follow`
    False none does. Raises TransactionManagementError outside a transaction, ValueError for a type that is not listed.
    """
    if type not in EVENT_TYPES:
        raise ValueError(f"{type} is not in marketplace/events/types.py")
    connection = transaction.get_connection()
    connection.validate_no_broken_transaction()
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("emit() belongs inside the transaction of the change it reports")
    events = [
        append(topic, type=type, changes=changes, refs=refs or {}, primary=follow and topic == topics[0]) for topic in topics
    ]
    transaction.on_commit(partial(dispatch, events), robust=True)
    return events[0]


def append(topic: str, *, type: str, changes: Mapping[str, Any], refs: Mapping[str, Any], primary: bool) -> Event:
    stream = next_in_stream(topic)
    done = None if primary and type in FOLLOW_UPS else timezone.now()
    return Event.objects.create(
        stream=stream, seq=stream.seq, type=type, changes=dict(changes), refs=dict(refs), dispatched_at=done
    )


def next_in_stream(topic: str) -> Stream:
    """Take the topic's next number; the row lock keeps the order of numbers that of commits."""
    if not Stream.objects.filter(topic=topic).update(seq=F("seq") + 1):
        Stream.objects.get_or_create(topic=topic)
        Stream.objects.filter(topic=topic).update(seq=F("seq") + 1)
    return Stream.objects.get(topic=topic)


def dispatch(events: Iterable[Event]) -> None:
    """Push events to the browsers and hand their follow-ups to the broker. Both are hints: a dead broker loses nothing,
    since the row stays undispatched for the sweep and the browser sees the gap in seq."""
    for event in events:
        start_follow_ups(event)
        push(event.stream.topic, as_frame(event))


def start_follow_ups(event: Event) -> None:
    if event.dispatched_at is not None:
        return
    try:
        for task in FOLLOW_UPS.get(event.type, []):
            task.delay(**event.refs)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("event %s %s waits for the broker: %s", event.pk, event.type, error)
        return
    event.dispatched_at = timezone.now()
    event.save(update_fields=["dispatched_at"])


def as_frame(event: Event) -> dict[str, Any]:
    """The event as the socket and the catch-up carry it."""
    stream = event.stream
    return {
        "op": "pub", "topic": stream.topic, "epoch": stream.epoch, "seq": event.seq, "type": event.type,
        "at": iso(event.at), "changes": event.changes,
    }  # fmt: skip


def gauge(type: str, *, topics: Sequence[str], key: str, changes: Mapping[str, Any]) -> None:
    """Tell the browsers a value that only matters while it is new; `key` names what it replaces."""
    for topic in topics:
        frame = {"op": "gauge", "topic": topic, "type": type, "at": iso(timezone.now()), "changes": dict(changes)}
        push(topic, frame, key=f"{type}:{key}")


def push(topic: str, frame: dict[str, Any], *, key: str | None = None) -> None:
    try:
        groups.send(group_name(topic), {"type": "stream.frame", "frame": frame, "key": key})
    except (RedisError, OSError) as error:
        log.warning("could not push %s: %s", topic, error)


def group_name(topic: str) -> str:
    """Channels allows letters, digits, hyphen, underscore and full stop."""
    return f"topic.{topic}"


def position(topic: str) -> dict[str, Any]:
    """Where a topic stands; read it before the rows of a snapshot, so that nothing falls between."""
    stream, _ = Stream.objects.get_or_create(topic=topic)
    return {"topic": topic, "epoch": stream.epoch, "seq": stream.seq}


def follow_up(type: str, *tasks: FollowUp) -> None:
    FOLLOW_UPS[type] = list(tasks)
