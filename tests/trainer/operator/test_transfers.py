"""Files over bad links: what has come stays, a slow connection is not waited for, a good link pays nothing."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import wait_until
from eth_account import Account
from fake_coordinator import NODE_ID, FakeCoordinator, Slot, Version

from trainer.network import transfers
from trainer.network.estimators import Estimate
from trainer.network.profiles import LinkSpec, NodeSpec, Profile
from trainer.network.shaper import HOST, Shaper
from trainer.network.transfers import CONNECTIONS
from trainer.operator.cache import fetch
from trainer.operator.client import Coordinator
from trainer.operator.config import Home
from trainer.operator.emulation import LOSS
from trainer.operator.results import Evidence
from trainer.operator.shower import Shower
from trainer.operator.transfers import Pieces, read_piece, upload, work_off
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec

KEY = "0x" + "44" * 32
FAST = LinkSpec(up_bps=1e12, down_bps=1e12)
DATA = os.urandom(400_000)


def check() -> None:
    return


@pytest.fixture
def server() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator()
    fake.registered[Account.from_key(KEY).address] = NODE_ID
    yield fake
    fake.stop()


@pytest.fixture
def link(server) -> Iterator[Callable[..., Shaper]]:
    """An emulated link to the server: 8 Mb/s each way, so that DATA takes 0.4 s."""
    running = []

    def open_link(**options: float) -> Shaper:
        spec = NodeSpec(samples_per_second=1, up_bps=8e6, down_bps=8e6, **options)
        profile = Profile(name="test", description="A test's.", parameters=1, coordinator=FAST, nodes=(spec,))
        running.append(Shaper(profile, (HOST, server.port)))
        return running[-1].__enter__()

    yield open_link
    for shaper in running:
        shaper.__exit__(None, None, None)


def committed(server: FakeCoordinator) -> Slot:
    nothing = Version(base="0" * 64, checkpoint="0" * 64)
    slot = server.offer(JobSpec(), nothing)
    slot.fence, slot.committed = 1, {"sha256": sha256_hex(DATA), "size": len(DATA)}
    return slot


def connected(shaper: Shaper, said: list[str] | None = None) -> Coordinator:
    return Coordinator(shaper.links[0].url, KEY, say=lambda event, text: said.append(event) if said is not None else None)


def cut(shaper: Shaper, *, after: int, way: str) -> None:
    """Break what is open once so many bytes have passed."""

    def wait() -> None:
        wait_until(lambda: getattr(shaper.links[0].traffic, way) >= after)
        shaper.loop.call_soon_threadsafe(shaper.links[0].break_all)

    threading.Thread(target=wait, daemon=True).start()


def test_over_a_good_link_an_upload_is_one_request_and_nothing_else(server, link, tmp_path):
    slot, file = committed(server), tmp_path / "artifact"
    file.write_bytes(DATA)
    shaper = link()
    upload(connected(shaper), slot.id, 1, file, sha256_hex(DATA), check=check)
    assert slot.artifact == DATA
    assert slot.calls == ["artifact"]
    assert shaper.links[0].traffic.up < len(DATA) + 1_000


def test_an_upload_that_is_cut_off_goes_on_in_pieces_and_sends_none_of_them_twice(server, link, tmp_path):
    slot, file, said = committed(server), tmp_path / "artifact", []
    file.write_bytes(DATA)
    shaper = link()
    cut(shaper, after=150_000, way="up")
    cut(shaper, after=300_000, way="up")
    upload(connected(shaper, said), slot.id, 1, file, sha256_hex(DATA), check=check)
    assert slot.artifact == DATA
    assert "transfer.pieces" in said
    assert shaper.links[0].traffic.broken >= 1
    assert slot.numbers == sorted(set(slot.numbers)), "each piece arrived once"


def test_large_evidence_goes_in_pieces_over_a_good_link_too_and_is_deleted_then(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "MOST_BODY", 100_000)
    home, sha256 = Home.at(tmp_path / "home"), sha256_hex(DATA)
    (home.artifacts / sha256).write_bytes(DATA)
    said: list[tuple[str, Any]] = []
    console = SimpleNamespace(say=lambda event, text, **data: said.append((event, data.get("audit_id"))))
    shower = Shower(Coordinator(server.url, KEY, say=console.say), home, console)
    audits = [{"audit_id": number, "segment": 0} for number in (7, 8)]
    shower.show(audits[0], Evidence(sha256=sha256, size=len(DATA), job_id=1, round=2))
    assert shower.has(audits[0]) and not shower.has(audits[1]), "it is sent once, however often the coordinator reminds"
    wait_until(lambda: ("audit.answered", 7) in said)
    assert server.evidence == {7: DATA} and len(server.shown_pieces[7]) > 1
    assert not (home.artifacts / sha256).exists()
    shower.show(audits[1], Evidence(sha256=sha256, size=len(DATA), job_id=1, round=2))  # which is gone
    wait_until(lambda: ("audit.failed", 8) in said)
    assert not shower.has(audits[1]), "it may be shown again"


def test_over_a_lossy_link_an_upload_takes_several_connections_and_any_pieces(server, link, tmp_path, monkeypatch):
    monkeypatch.setenv(LOSS, "0.05")
    slot, file, said = committed(server), tmp_path / "artifact", []
    file.write_bytes(DATA)
    shaper = link(latency_s=0.005, loss=0.05)
    coordinator = connected(shaper, said)
    upload(coordinator, slot.id, 1, file, sha256_hex(DATA), check=check)
    assert slot.artifact == DATA
    assert "artifact" not in slot.calls
    assert shaper.links[0].traffic.connections >= CONNECTIONS
    assert coordinator.links.up is not None


@pytest.mark.parametrize("loss", ["0", "0.05"])
def test_a_download_that_is_cut_off_keeps_what_has_come(server, link, tmp_path, monkeypatch, loss):
    """In one stream, and in ranges over several connections."""
    monkeypatch.setenv(LOSS, loss)
    sha256, shaper = server.put(DATA), link()
    cut(shaper, after=250_000, way="down")
    path = fetch(connected(shaper), sha256, tmp_path, check=check)
    assert path.read_bytes() == DATA
    assert shaper.links[0].traffic.broken >= 1
    assert shaper.links[0].traffic.down < 1.6 * len(DATA)
    assert [entry.name for entry in tmp_path.iterdir()] == [sha256], "nothing is left over"


def test_a_download_in_ranges_measures_the_link_anew_over_all_of_them(server, tmp_path, monkeypatch):
    """From the first request until the last byte has come: each range alone has a part of the link. Here each request takes a
    second and a half, one after the other however many connections there are."""
    monkeypatch.setenv(LOSS, "0.05")
    coordinator, now, lock = Coordinator(server.url, KEY, say=lambda *_: None), [100.0], threading.Lock()
    coordinator.links.round_trip(0.02)
    coordinator.links.down = Estimate(value=0.01e6, samples=9)
    get, asked = coordinator.get, []

    def get_slowly(path: str, **options: Any) -> httpx.Response:
        response = get(path, **options)
        with lock:
            asked.append(path)
            now[0] += 1.5
        return response

    monkeypatch.setattr(coordinator, "get", get_slowly)
    monkeypatch.setattr("trainer.operator.transfers.time", SimpleNamespace(monotonic=lambda: now[0]))
    fetch(coordinator, server.put(DATA), tmp_path, check=check)
    assert len(asked) > CONNECTIONS
    ((size, seconds),) = coordinator.links.report()["down"]
    assert (size, seconds) == (len(DATA), pytest.approx(1.5 * len(asked), abs=0.1))
    assert coordinator.links.down.value > 0.01e6
    assert coordinator.links.down.samples == 10


def test_a_connection_that_stalls_is_not_waited_for():
    """Any three of five make the file."""
    pieces, released, came = Pieces([0, 1, 2], [3, 4]), threading.Event(), []
    lock = threading.Lock()

    def move(number: int) -> bool:
        if number == 1:
            released.wait(30)
        with lock:
            came.append(number)
            return len(came) >= 3

    began = time.monotonic()
    work_off(pieces, move, connections=2, check=check)
    assert time.monotonic() - began < 20
    assert 1 not in came
    released.set()


def test_redundant_pieces_wait_until_one_hangs():
    """Pieces take a second: the third is missed after two more."""
    pieces = Pieces([0, 1, 2], [3, 4])
    assert [pieces.draw(0.0), pieces.draw(0.0)] == [0, 1]
    pieces.came(0, 1.0)
    assert pieces.draw(1.0) == 2
    pieces.came(1, 1.0)
    assert [pieces.draw(1.5), pieces.draw(2.9), pieces.next_spare()] == [None, None, 3.0]
    assert [pieces.draw(3.0), pieces.draw(3.0)] == [3, 4]
    pieces.failed(2)
    assert pieces.draw(4.0) == 2
    assert not pieces.whole.is_set()


def test_what_the_coordinator_refuses_ends_the_upload():
    def move(number: int) -> bool:
        raise HyperGPUError("lease.stale_fence", "Ask again.")

    with pytest.raises(HyperGPUError, match=r"lease\.stale_fence|Ask again"):
        work_off(Pieces([0, 1]), move, connections=2, check=check)


def test_a_full_disk_ends_the_transfer_and_is_named():
    """The coordinator answers: asking it again would not help."""

    def move(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        work_off(Pieces([0, 1]), move, connections=2, check=check)


def test_a_long_path_is_told_from_a_full_one(server, link, tmp_path):
    """At 20 MB/s and half a second one connection is as fast as its window allows."""
    sha256, shaper, said = server.put(DATA), link(), []
    coordinator = connected(shaper, said)
    coordinator.links.round_trip(0.5)
    coordinator.links.down = Estimate(value=20e6, samples=9)
    assert fetch(coordinator, sha256, tmp_path, check=check).read_bytes() == DATA
    assert "transfer.ranges" in said


def test_pieces_of_a_file_are_its_bytes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(DATA)
    assert b"".join(read_piece(file, len(DATA), 7, number) for number in range(7)) == DATA
    assert len(read_piece(file, len(DATA), 7, 9)) == len(read_piece(file, len(DATA), 7, 0))
