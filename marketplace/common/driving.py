"""Slow work on rows, driven again when its worker or its message is lost: who is at it says so as long as it lives.

What waits in a queue, and what a worker is at, is not lost, however long it takes: only deaths and failures count against it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from django.db import DatabaseError, connection
from django.db.models import F, Model, Q, QuerySet
from django.db.models.functions import Now

from marketplace.common.models import Driven

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)
D = TypeVar("D", bound=Driven)

STALL = timedelta(seconds=10)
"""A row without a sign of life for this long is handed over again."""
BEAT = 2.5
"""Seconds between a worker's signs of life."""
MAX_DRIVES = 5
"""What was begun this often without a result kills its workers, or fails in them: it is given up with a reason."""
LONGEST = 12 * 3600.0
"""Seconds after which work hangs for certain: its process ends itself, as if it were killed."""


def lost(rows: QuerySet[M]) -> QuerySet[M]:
    """Those that nobody was asked to drive, or whose worker or message has been silent for too long, by the database's clock."""
    return rows.filter(Q(driven_at=None) | Q(driven_at__lt=Now() - STALL))


def claim(rows: QuerySet[Any]) -> list[int]:
    """Ids of lost rows, marked as handed over now: any worker may take them."""
    ids = list(lost(rows).values_list("pk", flat=True)[:100])
    free = {"worker": ""} if issubclass(rows.model, Driven) else {}
    lost(rows.model.objects.filter(pk__in=ids)).update(driven_at=Now(), **free)
    return ids


def drivable(rows: QuerySet[D]) -> list[int]:
    """As `claim`, without what is to be given up."""
    return claim(rows.filter(drives__lt=MAX_DRIVES))


def hopeless(rows: QuerySet[D]) -> QuerySet[D]:
    """Those that were begun too often, and that nobody is at any more."""
    return lost(rows.filter(drives__gte=MAX_DRIVES))


@contextmanager
def under_way(rows: QuerySet[D], pk: int) -> Iterator[D | None]:
    """That one of `rows`, taken for this worker as long as the block runs; None if it is done, or another worker is at it."""
    me = secrets.token_hex(8)
    mine = rows.model._default_manager.filter(pk=pk, worker=me)
    if not rows.filter(pk=pk, worker="").update(worker=me, driven_at=Now(), drives=F("drives") + 1):
        yield None
        return
    over = threading.Event()
    threading.Thread(target=show_life, args=(mine, over), name=f"life of {pk}", daemon=True).start()
    try:
        yield rows.filter(pk=pk).first()
    finally:
        over.set()
        mine.update(worker="", driven_at=Now())


def show_life(mine: QuerySet[Any], over: threading.Event) -> None:
    """Until the work is over, or was handed to another worker because this one seemed dead."""
    began = time.monotonic()
    while not over.wait(BEAT):
        if time.monotonic() - began > LONGEST:
            log.critical("work has hung for %s hours: this process ends", LONGEST / 3600)
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            if not mine.update(driven_at=Now()):
                return
        except DatabaseError as error:
            log.warning("no sign of life: %s", error)
        finally:
            connection.close()
