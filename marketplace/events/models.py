"""Streams and their events."""

from __future__ import annotations

import secrets

from django.db import models


def new_epoch() -> str:
    return secrets.token_hex(4)


class Stream(models.Model):
    """One topic's counter. `epoch` changes only when history is lost, that is with the database."""

    topic = models.CharField(max_length=120, unique=True)
    epoch = models.CharField(max_length=16, default=new_epoch)
    seq = models.BigIntegerField(default=0)


class Event(models.Model):
    """A fact: `changes` holds the entities as they are after it, `refs` what the tasks that follow need."""

    stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="events")
    seq = models.BigIntegerField()
    type = models.CharField(max_length=60)
    at = models.DateTimeField(auto_now_add=True)
    changes = models.JSONField(default=dict)
    refs = models.JSONField(default=dict)
    # Null while the tasks that follow were not handed to the broker; copies in further topics start none.
    dispatched_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["stream", "seq"], name="event_once_per_seq")]
        indexes = [models.Index(fields=["dispatched_at", "id"], name="event_undispatched")]
