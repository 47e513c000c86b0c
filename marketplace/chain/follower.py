"""The loop that keeps the database and the chain together: index, send, and index again, several times a second."""

from __future__ import annotations

import logging
import threading
import time

from django.db import OperationalError, close_old_connections
from django.db.models import Max

from marketplace.chain.indexer import index_once
from marketplace.chain.models import Intent
from marketplace.chain.sender import assign_nonces, broadcast_due, track_receipts
from marketplace.chain.windows import WINDOW
from trainer.protocol.errors import HyperGPUError

log = logging.getLogger(__name__)

PASS_SECONDS = 0.25
PEEK_SECONDS = 0.05
BACKOFF_SECONDS = (0.5, 15.0)


def pass_once() -> bool:
    """Every step once. True when there is more to do at once.

    The indexer comes first: it is what notices that the node serves another chain, or lags, and then nothing is sent.
    """
    indexed = index_once()
    assigned = assign_nonces()
    broadcast_due()
    track_receipts()
    return indexed >= WINDOW or assigned > 0


def follow(stop: threading.Event) -> None:
    """Run passes until `stop`. An outage of node or database is waited out: one line when it begins, one when it ends."""
    delay, trouble = BACKOFF_SECONDS[0], ""
    while not stop.is_set():
        close_old_connections()
        newest, started = newest_intent(), time.monotonic()
        try:
            busy = pass_once()
        except (HyperGPUError, OperationalError) as error:
            code = error.code if isinstance(error, HyperGPUError) else "database"
            if code != trouble:
                log.warning("waiting: %s", error)
            trouble = code
            stop.wait(delay)
            delay = min(delay * 2, BACKOFF_SECONDS[1])
            continue
        if trouble:
            log.info("over: %s", trouble)
        delay, trouble = BACKOFF_SECONDS[0], ""
        if not busy:
            rest(stop, until=started + PASS_SECONDS, newest=newest)


def rest(stop: threading.Event, *, until: float, newest: int) -> None:
    """Sleep to the next pass, or until someone has promised something new."""
    while (left := until - time.monotonic()) > 0 and newest_intent() == newest:
        if stop.wait(min(left, PEEK_SECONDS)):
            return


def newest_intent() -> int:
    return Intent.objects.aggregate(newest=Max("id"))["newest"] or 0
