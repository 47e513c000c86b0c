"""How many blocks one read asks for: more while answers come quickly, half after trouble (AIMD, as TCP's window).

A provider limits a read by blocks, by events or by time, and says none of it beforehand. Method: safe-transaction-service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings

from marketplace.chain.models import Cursor

QUICK_SECONDS = 1.0
SLOW_SECONDS = 4.0
STEP = 10
"""Blocks that a quick read adds."""


@contextmanager
def paced(cursor: Cursor, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Around a read of `cursor.span` blocks: adapts the span, in memory and in the database."""
    most = settings.HYPERGPU.chain.log_range
    cursor.span = asked = min(cursor.span, most)
    began = clock()
    try:
        yield
    except Exception:
        cursor.span = max(asked // 2, 1)
        raise
    else:
        took = clock() - began
        if took > SLOW_SECONDS:
            cursor.span = max(asked // 2, 1)
        elif took < QUICK_SECONDS:
            cursor.span = min(asked + STEP, most)
    finally:
        if cursor.span != asked:
            Cursor.objects.filter(pk=cursor.pk).update(span=cursor.span)
