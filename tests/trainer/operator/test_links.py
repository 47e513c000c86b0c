"""What traffic tells of a link: against real sockets of this machine, and each sample told once."""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from trainer.operator.client import Coordinator
from trainer.operator.emulation import LOSS
from trainer.operator.links import MOST_SAMPLES, STALL_SECONDS, TOLD_SEGMENTS, Links
from trainer.operator.tcp_info import tcp_info
from trainer.operator.transfers import upload

KEY = "0x" + "44" * 32
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    bodies: list[bytes] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_PUT = do_POST

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def coordinator():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield Coordinator(f"http://127.0.0.1:{server.server_address[1]}", KEY, say=lambda *_: None)
    server.shutdown()
    server.server_close()


def test_given_an_emulated_link_then_its_loss_is_told_once_and_as_such(coordinator, monkeypatch):
    monkeypatch.setenv(LOSS, "0.02")
    links = coordinator.links
    coordinator.post("/x", {})
    report = links.report()
    assert (report["loss"], report["emulated"], links.loss.value) == ([20_000, 1_000_000], True, 0.02)
    coordinator.post("/x", {})
    assert "loss" not in links.report()
    links.untold(report)
    assert (again := links.report())["loss"] == report["loss"] and again["emulated"]


@LINUX
def test_given_a_real_connection_then_the_kernel_tells_its_round_trip_and_segments():
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            before = tcp_info(near)
            for _ in range(20):
                near.sendall(b"x")
                far.recv(1)
                far.sendall(b"y")
                near.recv(1)
            after = tcp_info(near)

    assert before is not None and after is not None
    assert after.segments - before.segments == 20, "one data segment for each byte, as each was answered first"
    assert after.retransmits == 0
    assert 0 < after.min_rtt_s <= after.rtt_s < 1, "of the loopback, in seconds"
    assert after.rttvar_s < 1


def test_given_something_that_is_no_connection_then_the_kernel_is_not_asked():
    closed = socket.socket()
    closed.close()
    assert tcp_info(closed) is None


@LINUX
def test_given_real_requests_then_round_trips_and_segments_are_told_once(coordinator):
    for _ in range(TOLD_SEGMENTS):
        coordinator.measured(lambda: coordinator.post("/agent/v1/x", {}))
    report = coordinator.links.report()

    assert len(report["rtt"]) == MOST_SAMPLES
    assert 0 < coordinator.links.rtt.value < 1
    assert report["loss"][0] == 0
    assert report["loss"][1] >= TOLD_SEGMENTS, "each request takes a segment at least"
    assert "probed" not in report
    assert report["reconnects"] == 0
    assert coordinator.links.report() == {}, "nothing is new"


def test_given_a_real_upload_then_bytes_and_seconds_are_told(coordinator, tmp_path):
    file = tmp_path / "artifact"
    file.write_bytes(b"z" * 200_000)
    upload(coordinator, 1, 1, file, "00" * 32, check=lambda: None)

    ((size, seconds),) = coordinator.links.report()["up"]
    assert size == 200_000
    assert 0 < seconds < 5
    assert coordinator.links.up.value > 200_000 / 5


def test_given_a_greeting_without_other_traffic_then_the_way_is_probed(coordinator, monkeypatch):
    monkeypatch.setattr(coordinator, "persist", lambda attempt: httpx.Response(200, json={"server_time": 0}))
    coordinator.hello({})
    assert coordinator.links.rtt.samples == 1


def test_given_a_request_that_fails_then_what_it_told_goes_with_the_next(coordinator):
    coordinator.links.round_trip(0.05)

    def broken(link):
        assert link["link"]["rtt"] == [50.0]
        raise httpx.ReadError("gone")

    with pytest.raises(httpx.ReadError):
        coordinator.telling(broken)
    coordinator.links.round_trip(0.06)
    assert coordinator.telling(lambda link: link["link"]["rtt"]) == [50.0, 60.0]


def test_given_a_coordinator_that_is_busy_then_the_paths_own_round_trip_stays():
    links = Links()
    for seconds in [0.02] + [0.5] * 20:
        links.round_trip(seconds)
    assert links.path_s == 0.02
    assert links.rtt.value > 0.4


def test_given_a_connection_that_is_lost_then_it_counts_once_however_often_it_is_tried(coordinator):
    links = coordinator.links
    for _ in range(3):
        links.broken()
    assert links.report()["reconnects"] == 0, "it was never there"
    coordinator.post("/agent/v1/x", {})
    coordinator.http = httpx.Client(base_url="http://127.0.0.1:9")
    for _ in range(3):
        with pytest.raises(httpx.TransportError):
            coordinator.post("/agent/v1/x", {})
    assert links.report()["reconnects"] == 1


def test_given_a_platform_whose_kernel_does_not_tell_then_stalled_requests_count_as_losses():
    links = Links()
    links.answered(None)
    for seconds in [0.05] * TOLD_SEGMENTS + [0.05 + 2 * STALL_SECONDS] + [0.05]:
        links.round_trip(seconds)

    report = links.report()
    assert report["loss"][0] == 1
    assert report["probed"]
    assert links.loss.value == pytest.approx(1 / report["loss"][1])
