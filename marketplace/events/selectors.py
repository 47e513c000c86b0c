"""Reads of the event log."""

from __future__ import annotations

from typing import Any

from marketplace.events.models import Event
from marketplace.events.services import as_frame

REPLAY_LIMIT = 500


def missed_events(stream: dict[str, Any], since: Any) -> list[dict[str, Any]] | None:
    """Frames after `since`, or None when a fresh snapshot is the better way (other epoch, too many, nonsense)."""
    match since:
        case {"epoch": str(epoch), "seq": int(seq)} if epoch == stream["epoch"] and 0 <= seq <= stream["seq"]:
            if stream["seq"] - seq > REPLAY_LIMIT:
                return None
            return events_after(stream["topic"], seq, limit=REPLAY_LIMIT)
    return None


def events_after(topic: str, seq: int, *, limit: int) -> list[dict[str, Any]]:
    events = Event.objects.filter(stream__topic=topic, seq__gt=seq).select_related("stream").order_by("seq")
    return [as_frame(event) for event in events[:limit]]
