"""What hints lost is found again in the rows: events never dispatched, and states that nothing moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from marketplace.common.tasks import each
from marketplace.events.models import Event
from marketplace.events.services import FollowUp, start_follow_ups

STRAGGLER_AGE = timedelta(seconds=2)

Kind = tuple[Callable[[], Iterable[dict[str, Any]]], FollowUp]
STALLED: list[Kind] = []
"""Pairs (rows that should have moved by now, as task arguments; the task that moves them). Filled by flow.py alone."""


def dispatch_stragglers() -> int:
    """Start the follow-ups of events whose process died, or whose broker was away, after the commit."""
    late = Event.objects.filter(dispatched_at=None, at__lt=timezone.now() - STRAGGLER_AGE)
    events = list(late.select_related("stream").order_by("id")[:200])
    each(events, start_follow_ups)
    return len(events)


def redrive_stalled() -> None:
    """Start again the tasks that were handed to a broker or worker that died."""
    each(STALLED, redrive)


def redrive(kind: Kind) -> None:
    find, task = kind
    each(find(), lambda refs: task.delay(**refs))
