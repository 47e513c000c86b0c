"""How every task is declared, and how one goes over many rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from celery import shared_task
from django.db import OperationalError

log = logging.getLogger(__name__)
Row = TypeVar("Row")

# A deadlock or a busy database undoes the whole transaction, so the task may simply run again.
slow_task = partial(shared_task, autoretry_for=(OperationalError,), retry_backoff=1, retry_backoff_max=10, max_retries=5)
"""What computes, for as long as its job's size takes: what hangs is ended by `common.driving`."""
task = partial(slow_task, soft_time_limit=280, time_limit=300)


def each(rows: Iterable[Row], act: Callable[[Row], object]) -> int:
    """Act on one row after the other; what fails is logged with its row and keeps no other from its turn. Returns for how many
    `act` answered that something has changed."""
    changed = 0
    for row in rows:
        try:
            changed += bool(act(row))
        except Exception:
            log.exception("passed over %r", row)
    return changed
