"""What hints lost is found again in the rows: events never dispatched, and states that nothing moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from marketplace.events.models import Event
from marketplace.events.services import FollowUp, start_follow_ups

STRAGGLER_AGE = timedelta(seconds=2)

STALLED: list[tuple[Callable[[], Iterable[dict[str, Any]]], FollowUp]] = []
"""Pairs (rows that should have moved by now, as task arguments; the task that moves them). Filled by flow.py alone."""


def dispatch_stragglers() -> int:
    """Start the follow-ups of events whose process died, or whose broker was away, after the commit."""
    late = Event.objects.filter(dispatched_at=None, at__lt=timezone.now() - STRAGGLER_AGE)
    events = list(late.select_related("stream").order_by("id")[:200])
    for event in events:
        start_follow_ups(event)
    return len(events)


def redrive_stalled() -> int:
    """Start again the tasks that were handed to a broker or worker that died."""
    moved = 0
    for find, task in STALLED:
        for refs in find():
            task.delay(**refs)
            moved += 1
    return moved
