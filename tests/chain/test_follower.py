"""The loop: it outlives outages, wakes for work, and stops when told."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.db import OperationalError

from marketplace.chain import follower
from marketplace.chain.follower import Patient
from marketplace.chain.models import Alarm, Cursor
from tests.chain.conftest import Chain
from tests.chain.test_crashes import child_environment
from tests.support.anvil import wait_until
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.chain


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(follower, "BACKOFF_SECONDS", (0.01, 0.02))
    caplog.set_level(logging.INFO, logger="marketplace.chain.follower")


def in_turn(*outcomes: Exception | bool) -> Callable[[], bool]:
    """A step that answers or fails so, one after the other."""
    waiting = list(outcomes)

    def step() -> bool:
        outcome = waiting.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return step


def away() -> HyperGPUError:
    return HyperGPUError("chain.unreachable", "The chain node at x gives no answer.")


@pytest.mark.django_db
def test_an_outage_is_waited_out_with_one_line_at_each_end(patience: None, caplog: pytest.LogCaptureFixture) -> None:
    step = Patient("reading", in_turn(away(), away(), away(), True))
    wait_until(step.run, what="the outage to end")
    assert [record.getMessage() for record in caplog.records] == [
        "reading waits: chain.unreachable: The chain node at x gives no answer.",
        "reading: chain.unreachable is over",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_database_outage_is_waited_out_on_a_new_connection(patience: None, caplog: pytest.LogCaptureFixture) -> None:
    step = Patient("sending", in_turn(OperationalError("server closed the connection"), True))
    wait_until(step.run, what="the outage to end")
    assert caplog.records[0].getMessage() == "sending waits: server closed the connection"


@pytest.mark.django_db
def test_what_does_not_pass_by_itself_alarms_until_it_is_over(patience: None) -> None:
    differ = HyperGPUError("chain.providers_differ", "Two providers differ about the events of blocks 1 to 9.")
    step = Patient("reading", in_turn(True, away(), differ, differ, True))
    assert step.run()
    wait_until(lambda: step.run() or Alarm.objects.exists(), what="the alarm")
    assert Alarm.objects.get().code == "chain.providers_differ" and Alarm.objects.get().subject == "reading"
    wait_until(step.run, what="the end of it")
    assert not Alarm.objects.exists()


@pytest.mark.django_db
def test_a_follower_that_starts_well_ends_what_it_alarmed_about_before_it_stopped(patience: None) -> None:
    Alarm.objects.create(code="chain.history_changed", subject="reading", message="another chain")
    Alarm.objects.create(code="chain.low_balance", subject="0x01", message="not its business")
    assert Patient("reading", in_turn(True)).run()
    assert Alarm.objects.get().code == "chain.low_balance"


def test_a_fault_of_our_own_is_not_waited_out(patience: None) -> None:
    with pytest.raises(ZeroDivisionError):
        Patient("reading", in_turn(ZeroDivisionError())).run()


def follow_for(read: Callable[[], bool], send: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loop on these steps, until one of them has no more to say."""
    stop = threading.Event()

    def until_told(step: Callable[[], bool]) -> Callable[[], bool]:
        def run() -> bool:
            try:
                return step()
            except IndexError:
                stop.set()
                return False

        return run

    monkeypatch.setattr(follower, "read_chain", until_told(read))
    monkeypatch.setattr(follower, "send_promises", until_told(send))
    follower.follow(stop)


@pytest.mark.django_db
def test_nothing_is_sent_while_the_chain_cannot_be_read(patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def send() -> bool:
        sent.append("sent")
        return False

    unreadable = HyperGPUError("chain.history_changed", "another chain")
    follow_for(in_turn(unreadable, unreadable), send, monkeypatch)
    assert sent == ["sent"]  # in the third pass, which could read


@pytest.mark.django_db
def test_what_is_owed_is_sent_while_one_event_cannot_be_applied(patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can write an event; it must not keep others from their money."""
    sent: list[str] = []

    def send() -> bool:
        sent.append("sent")
        return False

    choked = HyperGPUError("chain.projection_failed", "NodeRegistered cannot be applied")
    follow_for(in_turn(choked), send, monkeypatch)
    assert len(sent) >= 2


@pytest.mark.django_db
def test_reading_goes_on_while_nothing_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "BACKOFF_SECONDS", (60.0, 60.0))
    monkeypatch.setattr(follower, "PASS_SECONDS", 0.01)
    reads = in_turn(*[False] * 5)
    sends: list[str] = []

    def send() -> bool:
        sends.append("tried")
        raise HyperGPUError("chain.no_key", "No key is set.")

    follow_for(reads, send, monkeypatch)
    assert sends == ["tried"]


def test_a_new_promise_wakes_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([0, 0, 1])  # two looks in vain, then somebody has promised
    monkeypatch.setattr(follower, "newest_intent", lambda: next(numbers))
    began = time.monotonic()
    follower.rest(threading.Event(), until=began + 20, newest=0)
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
        assert process.wait(60) == 0
    finally:
        process.kill()
