"""How every task is declared."""

from __future__ import annotations

from functools import partial

from celery import shared_task
from django.db import OperationalError

# A deadlock or a busy database undoes the whole transaction, so the task may simply run again.
slow_task = partial(shared_task, autoretry_for=(OperationalError,), retry_backoff=1, retry_backoff_max=10, max_retries=5)
"""What computes, for as long as its job's size takes: what hangs is ended by `common.driving`."""
task = partial(slow_task, soft_time_limit=280, time_limit=300)
