"""Signed requests, retries, and downloads that survive breaks."""

from __future__ import annotations

import os
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.operator import client as client_module
from trainer.operator.cache import fetch, prune
from trainer.operator.client import BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, Coordinator
from trainer.operator.results import MAX_POINTS, loss_points
from trainer.operator.transfers import upload
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import HEADER_BODY, HEADER_NONCE, verify_request

URL = "https://market.example"
KEY = "0x" + "44" * 32
DATA = bytes(range(256)) * 8


def check() -> None:
    return


@pytest.fixture
def sleeps(monkeypatch):
    """Backoff pauses, recorded instead of slept."""
    taken: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", taken.append)
    return taken


@pytest.fixture
def said():
    return []


@pytest.fixture
def connect(said):
    def with_answers(*answers):
        """A coordinator whose server answers in turn: a response, or an exception to raise. Keeps the requests."""
        coordinator = Coordinator(URL, KEY, say=lambda event, text: said.append(event))
        coordinator.requests = []
        left = list(answers)

        def handle(request: httpx.Request) -> httpx.Response:
            coordinator.requests.append(request)
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        coordinator.http = httpx.Client(base_url=URL, transport=httpx.MockTransport(handle))
        return coordinator

    return with_answers


def test_given_a_request_then_its_signature_covers_method_path_query_body_and_host(connect, tmp_path):
    artifact = tmp_path / "artifact"
    artifact.write_bytes(DATA)
    coordinator = connect(httpx.Response(200, json={}))
    upload(coordinator, 3, 9, artifact, sha256_hex(DATA), check=check)

    (request,) = coordinator.requests
    verify_request(
        method="PUT", path="/agent/v1/assignments/3/artifact", query="fence=9", audience="market.example",
        headers=request.headers, now=int(time.time()),
    )  # fmt: skip
    assert request.headers[HEADER_BODY] == sha256_hex(DATA)
    assert request.headers["Content-Length"] == str(len(DATA))


def test_given_a_server_that_is_away_then_each_retry_is_signed_anew_and_said_once(connect, sleeps, said):
    away = [httpx.ConnectError("refused")] * 8
    coordinator = connect(*away, httpx.Response(503), httpx.Response(429), httpx.Response(204))

    assert coordinator.lease() is None
    assert len({request.headers[HEADER_NONCE] for request in coordinator.requests}) == 11
    assert said == ["coordinator.unreachable", "coordinator.reachable"]
    limits = [min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**n) for n in range(10)]
    assert all(0 <= pause <= limit for pause, limit in zip(sleeps, limits, strict=True))


def test_given_a_refusal_then_it_is_raised_with_its_code_and_not_tried_again(connect, sleeps):
    body = {"code": "lease.stale_fence", "message": "Ask again.", "data": {"fence": 4}}
    coordinator = connect(httpx.Response(409, json=body))
    with pytest.raises(HyperGPUError) as caught:
        coordinator.commit(1, {}, check=check)

    assert (caught.value.code, caught.value.data) == ("lease.stale_fence", {"fence": 4})
    assert sleeps == []


def test_given_an_answer_of_something_else_then_the_refusal_asks_for_the_address(connect):
    with pytest.raises(HyperGPUError) as caught:
        connect(httpx.Response(404, text="<html>not here</html>")).lease()
    assert caught.value.code == "coordinator.unexpected"


def test_given_work_that_is_lost_meanwhile_then_trying_ends(connect, sleeps):
    def lost() -> None:
        if len(sleeps) == 3:
            raise HyperGPUError("order.deadline", "Too late.")

    with pytest.raises(HyperGPUError, match=r"order\.deadline"):
        connect(*[httpx.ReadTimeout("slow")] * 3).commit(1, {}, check=lost)


def test_given_a_broken_download_then_it_goes_on_where_it_broke(connect, sleeps, tmp_path):
    def break_off():
        yield DATA[:1000]
        raise httpx.ReadError("gone")

    coordinator = connect(httpx.Response(200, content=break_off()), httpx.Response(206, stream=httpx.ByteStream(DATA[1000:])))
    path = fetch(coordinator, sha256_hex(DATA), tmp_path, check=check)

    assert path.read_bytes() == DATA
    assert [request.headers.get("Range") for request in coordinator.requests] == [None, "bytes=1000-"]
    assert fetch(coordinator, sha256_hex(DATA), tmp_path, check=check) == path
    assert len(coordinator.requests) == 2, "what is here is not fetched again"


@pytest.mark.parametrize("first", [httpx.Response(200, stream=httpx.ByteStream(DATA)), httpx.Response(416, text="")])
def test_given_a_server_that_cannot_resume_then_the_download_starts_over(connect, sleeps, tmp_path, first):
    (tmp_path / f".{sha256_hex(DATA)}.part").write_bytes(b"left over")
    coordinator = connect(first, httpx.Response(200, stream=httpx.ByteStream(DATA)))

    assert fetch(coordinator, sha256_hex(DATA), tmp_path, check=check).read_bytes() == DATA


def test_given_bytes_that_are_not_the_artifact_then_nothing_appears(connect, tmp_path):
    coordinator = connect(httpx.Response(200, stream=httpx.ByteStream(b"something else")))
    with pytest.raises(HyperGPUError, match=r"artifact\.hash_mismatch"):
        fetch(coordinator, sha256_hex(DATA), tmp_path, check=check)
    assert list(tmp_path.iterdir()) == []


def test_given_more_than_may_be_kept_then_what_was_used_longest_ago_goes(tmp_path):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    prune(tmp_path, keep_bytes=250)

    assert {path.name for path in tmp_path.iterdir()} == {"newest", "middle"}


@given(st.integers(1, 10_000))
def test_given_any_number_of_steps_then_at_most_64_points_go_out_and_the_last_step_is_one(steps):
    points = loss_points([float(step) for step in range(1, steps + 1)], steps=steps)

    assert 1 <= len(points) <= MAX_POINTS
    assert points[-1] == [steps, float(steps)]
    assert all(step == loss for step, loss in points)
