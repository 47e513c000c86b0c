"""The loop: it outlives outages, wakes for work, and stops when told."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections

from marketplace.chain import follower
from marketplace.chain.models import Cursor
from tests.chain.conftest import Chain, promise_mint
from tests.chain.test_crashes import child_environment
from tests.support.anvil import wait_until
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.chain


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., threading.Thread]]:
    """Runs the loop in a thread with these outcomes of its passes; then it idles."""
    stop = threading.Event()
    started: list[threading.Thread] = []

    def start(*outcomes: Exception | bool) -> threading.Thread:
        waiting = list(outcomes)

        def pass_once() -> bool:
            if not waiting:
                stop.set()
                return False
            outcome = waiting.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        def body() -> None:
            try:
                follower.follow(stop)
            finally:
                connections.close_all()

        monkeypatch.setattr(follower, "pass_once", pass_once)
        thread = threading.Thread(target=body)
        thread.start()
        started.append(thread)
        thread.join(20)
        return thread

    yield start
    stop.set()
    for thread in started:
        thread.join(5)


@pytest.mark.django_db(transaction=True)
def test_an_outage_is_waited_out_with_one_line_at_each_end(
    run: Callable[..., threading.Thread], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follower, "BACKOFF_SECONDS", (0.01, 0.02))
    caplog.set_level(logging.INFO, logger="marketplace.chain.follower")
    away = HyperGPUError("chain.unreachable", "The chain node at x gives no answer.")
    thread = run(away, away, away, False, OperationalError("database is locked"), False)
    assert not thread.is_alive()
    assert [record.getMessage() for record in caplog.records] == [
        "waiting: chain.unreachable: The chain node at x gives no answer.",
        "over: chain.unreachable",
        "waiting: database is locked",
        "over: database",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_new_promise_wakes_the_loop(chain: Chain) -> None:
    before = follower.newest_intent()
    promise_mint("mint:1")
    began = time.monotonic()
    follower.rest(threading.Event(), until=began + 20, newest=before)
    assert time.monotonic() - began < 5


@pytest.mark.django_db
def test_one_pass_by_command(chain: Chain) -> None:
    call_command("follow_chain", "--once")
    assert Cursor.objects.get().block > 0


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_the_process_stops_on_sigterm(chain: Chain) -> None:
    process = subprocess.Popen([sys.executable, "manage.py", "follow_chain"], env=child_environment(chain))
    try:
        wait_until(Cursor.objects.exists, what="the first pass")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
