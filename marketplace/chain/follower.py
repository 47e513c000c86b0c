"""The loop that keeps the database and the chain together: index, send, and index again, several times a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from django.db import InterfaceError, OperationalError, connections
from django.db.models import Max

from marketplace.chain.alarms import end_alarms, raise_alarm
from marketplace.chain.indexer import has_more, index_once
from marketplace.chain.models import Intent
from marketplace.chain.projections import FAILED
from marketplace.chain.sender import assign_nonces, broadcast_due, track_receipts
from marketplace.chain.watch import watch_balances
from trainer.protocol.errors import HyperGPUError

log = logging.getLogger(__name__)

PASS_SECONDS = 0.25
PEEK_SECONDS = 0.05
WATCH_SECONDS = 10.0
NOT_BY_ITSELF = {FAILED, "chain.history_changed", "chain.providers_differ", "chain.wrong_chain", "chain.no_key", "chain.bad_key"}
"""Troubles that do not pass by waiting: somebody must come."""
BACKOFF_SECONDS = (0.5, 15.0)


def read_chain() -> bool:
    """True when there is more to read at once."""
    index_once()
    return has_more()


def send_promises() -> bool:
    """True when something new is on its way, so that its group's next may follow soon."""
    moved = assign_nonces()
    broadcast_due()
    track_receipts()
    return moved > 0


def watch() -> bool:
    watch_balances()
    return False


def pass_once() -> None:
    """Every step once. Raises what the steps raise.

    Reading comes first: it is what notices that the node lags or serves another chain, and then nothing may be sent.
    """
    read_chain()
    send_promises()


class Patient:
    """A step that waits out an outage of node or database: one line when it begins, one when it ends."""

    def __init__(self, name: str, step: Callable[[], bool]) -> None:
        self.name, self.step = name, step
        self.trouble, self.delay, self.not_before = "", BACKOFF_SECONDS[0], 0.0
        self.first = True

    def run(self) -> bool:
        """What the step answers; False while it waits."""
        if time.monotonic() < self.not_before:
            return False
        try:
            busy = self.step()
        except (HyperGPUError, OperationalError, InterfaceError) as error:
            self.wait(error)
            return False
        if self.trouble:
            log.info("%s: %s is over", self.name, self.trouble)
        if self.trouble or self.first:
            end_alarms(self.name)
        self.first = False
        self.trouble, self.delay = "", BACKOFF_SECONDS[0]
        return busy

    def wait(self, error: Exception) -> None:
        trouble = error.code if isinstance(error, HyperGPUError) else "database outage"
        if trouble != self.trouble:
            log.warning("%s waits: %s", self.name, error, exc_info=error.__cause__ if trouble == FAILED else None)
        if trouble in NOT_BY_ITSELF:
            with suppress(OperationalError, InterfaceError):  # a database that is away too is no reason to stop
                raise_alarm(trouble, self.name, str(error))
        if not isinstance(error, HyperGPUError):
            connections.close_all()  # a connection that failed once is not trusted again
        self.trouble, self.not_before = trouble, time.monotonic() + self.delay
        self.delay = min(self.delay * 2, BACKOFF_SECONDS[1])


def follow(stop: threading.Event) -> None:
    """Run passes until `stop`."""
    reading, sending, watching = Patient("reading", read_chain), Patient("sending", send_promises), Patient("watching", watch)
    watch_at = 0.0
    while not stop.is_set():
        started, newest = time.monotonic(), newest_intent()
        if started >= watch_at:
            watching.run()
            watch_at = started + WATCH_SECONDS
        busy = reading.run()
        # A projection that chokes says nothing against the node: what is owed is still sent.
        if reading.trouble in ("", FAILED):
            busy = sending.run() or busy
        if reading.trouble or sending.trouble:
            stop.wait(PASS_SECONDS)
        elif not busy:
            rest(stop, until=started + PASS_SECONDS, newest=newest)


def rest(stop: threading.Event, *, until: float, newest: int) -> None:
    """Sleep to the next pass, or until someone promises something newer than the pass has seen."""
    while (left := until - time.monotonic()) > 0 and newest_intent() == newest:
        if stop.wait(min(left, PEEK_SECONDS)):
            return


def newest_intent() -> int:
    """0 also while the database does not answer: the next pass will say so."""
    try:
        return Intent.objects.aggregate(newest=Max("id"))["newest"] or 0
    except (OperationalError, InterfaceError):
        return 0
