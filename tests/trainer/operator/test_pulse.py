"""Heartbeats beside the work: what they carry, and when they say to drop it."""

from __future__ import annotations

import threading

import httpx
import pytest

from trainer.operator.pulse import DEADLINE_GRACE_SECONDS, Pulse
from trainer.protocol.errors import HyperGPUError

FINE = {"cancel": False, "reason": None, "lease_seconds": 10, "deadline_seconds": 60}


class Server:
    """Answers heartbeats in turn, the last answer for ever."""

    def __init__(self, *answers: dict | Exception) -> None:
        self.answers, self.beats, self.said = list(answers), [], []
        self.beaten = threading.Condition()

    def heartbeat(self, assignment: int, progress: dict) -> dict:
        with self.beaten:
            self.beats.append(progress)
            self.beaten.notify_all()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def say(self, event: str, text: str) -> None:
        self.said.append(event)

    def until(self, beats: int) -> None:
        with self.beaten:
            assert self.beaten.wait_for(lambda: len(self.beats) >= beats, timeout=60)


def pulse(server: Server, *, every: float = 0.01, seconds_left: float = 60, eager: bool = False) -> Pulse:
    return Pulse(
        server, assignment=1, fence=2, steps=10, seconds_left=seconds_left, every=every, lease_seconds=9, eager=eager
    )  # type: ignore[arg-type]  # fmt: skip


def test_given_a_heartbeat_that_did_not_arrive_then_its_points_travel_with_the_next():
    server = Server(httpx.ConnectError("down"), FINE)
    beating = pulse(server)
    beating.progress(1, [[1, 2.5]])
    beating.beat()
    beating.progress(2, [[2, 2.0]])
    beating.beat()
    beating.beat()

    assert [beat["losses"] for beat in server.beats] == [[[1, 2.5]], [[1, 2.5], [2, 2.0]], []]
    assert [beat["step"] for beat in server.beats] == [1, 2, 2]
    assert beating.told == 2


def test_given_an_eager_pulse_then_the_first_progress_is_sent_at_once():
    server = Server(FINE)
    with pulse(server, every=60, eager=True) as beating:
        beating.progress(1, [[1, 2.5]])
        server.until(beats=1)
        beating.progress(2, [[2, 2.0]])
    assert [beat["step"] for beat in server.beats] == [1]


def test_given_an_order_that_ends_before_the_first_heartbeat_is_due_then_none_is_sent():
    server = Server(FINE)
    with pulse(server, every=60) as beating:
        beating.progress(10, [[10, 2.5]])
    assert server.beats == []


def test_given_a_long_order_then_heartbeats_thin_out_but_two_may_be_lost_before_the_lease_ends():
    beating = pulse(Server(FINE), every=1)
    assert beating.pause == 1
    beating.started -= 20
    assert beating.pause == pytest.approx(2, abs=0.1)
    beating.started -= 1000
    assert beating.pause == 3
    beating.beat()
    assert beating.pause == FINE["lease_seconds"] / 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (FINE | {"cancel": True, "reason": "round.closed"}, "order.cancelled"),
        (HyperGPUError("lease.stale_fence", "Ask again."), "lease.stale_fence"),
        (HyperGPUError("assignment.not_yours", "Not yours."), "assignment.not_yours"),
    ],
)
def test_given_a_word_that_ends_the_order_then_check_raises_it(answer, code):
    beating = pulse(Server(answer))
    beating.check()
    beating.beat()
    with pytest.raises(HyperGPUError) as caught:
        beating.check()
    assert caught.value.code == code
    beating.check_deadline()


def test_given_a_refusal_of_one_request_then_the_work_goes_on():
    server = Server(HyperGPUError("request.clock_skew", "Set the time."))
    beating = pulse(server)
    beating.beat()
    beating.check()
    assert server.said == ["heartbeat.refused"]


def test_given_silence_beyond_the_deadline_then_the_work_is_dropped_and_an_extension_keeps_it():
    server = Server(FINE)
    late = pulse(server, seconds_left=-DEADLINE_GRACE_SECONDS - 1)
    with pytest.raises(HyperGPUError, match=r"order\.deadline"):
        late.check()
    late.beat()
    late.check()
