"""Handing in over a bad link: pieces are kept, any of them make the file, and only the committed bytes count."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings

from marketplace.artifacts import pieces, store
from marketplace.training.models import Assignment, Round
from marketplace.training.services import intake
from tests.marketplace.training.work import commit, hand_in, lease, path, train
from tests.marketplace.world import TestNode
from trainer.network.erasure import redundant
from trainer.network.transfers import piece_size, piece_span
from trainer.protocol.canonical import sha256_hex

pytestmark = pytest.mark.django_db


@pytest.fixture
def work(open_round: Round, nodes: list[TestNode]) -> tuple[TestNode, dict[str, Any], bytes]:
    leased = lease(nodes[0])
    data = train(leased)
    assert commit(nodes[0], leased, data).status_code == 200
    return nodes[0], leased, data


def piece_of(data: bytes, count: int, index: int) -> bytes:
    each = piece_size(len(data), count)
    plain = [data[offset : offset + length] for offset, length in (piece_span(len(data), count, at) for at in range(count))]
    return plain[index] if index < count else redundant([one.ljust(each, b"\0") for one in plain], index)


def send(node: TestNode, leased: dict[str, Any], piece: bytes, count: int, index: int):  # type: ignore[no-untyped-def]
    return node.call("PUT", path(leased, f"pieces/{count}/{index}?fence={leased['fence']}"), raw=piece)


def held(node: TestNode, leased: dict[str, Any], count: int) -> dict[str, Any]:
    return node.call("GET", path(leased, f"pieces/{count}?fence={leased['fence']}")).json()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 5, 0, 7]])
def test_any_pieces_make_the_file(work, indices: list[int]):
    node, leased, data = work
    for place, index in enumerate(indices, 1):
        answer = send(node, leased, piece_of(data, 4, index), 4, index)
        assert (answer.status_code, answer.json()) == (200, {"whole": place == 4})
    assert held(node, leased, 4) == {"held": [], "whole": True}
    assert store.read(sha256_hex(data)) == data
    assert hand_in(node, leased, data).status_code == 200
    assert not list((settings.HYPERGPU.state_dir / "artifacts" / "pieces").iterdir())


def test_what_has_come_is_known(work):
    """A piece that comes twice is one; another division of the file starts anew."""
    node, leased, data = work
    for index in (1, 1, 3):
        send(node, leased, piece_of(data, 4, index), 4, index)
    assert held(node, leased, 4) == {"held": [1, 3], "whole": False}
    send(node, leased, piece_of(data, 3, 0), 3, 0)
    assert (held(node, leased, 4)["held"], held(node, leased, 3)["held"]) == ([], [0])


def test_an_upload_that_nobody_goes_on_with_is_forgotten_when_another_begins(work):
    node, leased, data = work
    root = settings.HYPERGPU.state_dir / "artifacts" / "pieces"
    ages = {"old": pieces.GIVEN_UP_SECONDS + 60, "slow": pieces.GIVEN_UP_SECONDS - 60}
    for name, age in ages.items():
        pieces.keep(name, sha256="a" * 64, size=4, pieces=2, index=0, chunks=[b"ab"], piece_sha256=sha256_hex(b"ab"))
        then = time.time() - age
        os.utime(root / name / f"{'a' * 64}-2", (then, then))
    send(node, leased, piece_of(data, 2, 0), 2, 0)
    assert sorted(folder.name for folder in root.iterdir()) == [f"assignment-{leased['assignment_id']}", "slow"]


def test_only_the_committed_bytes_count(work):
    """Each piece may be sound, and the whole not what was committed."""
    node, leased, data = work
    wrong = bytes([data[0] ^ 1]) + data[1:]
    send(node, leased, piece_of(data, 2, 1), 2, 1)
    answer = send(node, leased, piece_of(wrong, 2, 0), 2, 0)
    assert (answer.status_code, answer.json()["code"]) == (422, "artifact.hash_mismatch")
    assert not Assignment.objects.get(pk=leased["assignment_id"]).uploaded
    assert held(node, leased, 2) == {"held": [], "whole": False}, "nobody can say which piece is wrong"


def test_a_piece_that_comes_when_the_file_is_made_leaves_nothing(work, monkeypatch: pytest.MonkeyPatch):
    """It was under way while the others made the file."""
    node, leased, data = work
    store_piece = pieces.keep

    def overtaken(*args: Any, **options: Any) -> None:
        Assignment.objects.filter(pk=leased["assignment_id"]).update(uploaded=True)
        store_piece(*args, **options)

    monkeypatch.setattr(pieces, "keep", overtaken)
    assert send(node, leased, piece_of(data, 4, 1), 4, 1).json() == {"whole": True}
    assert held(node, leased, 4) == {"held": [], "whole": True}


class Slot:
    """What an upload in pieces needs of an assignment: each request has its own, and `rows` is the table."""

    state = Assignment.State.COMMITTED

    def __init__(self, pk: int, data: bytes, rows: set[int]) -> None:
        self.pk, self.rows, self.uploaded, self.began = pk, rows, False, self
        self.committed_sha256, self.committed_size = sha256_hex(data), len(data)

    def refresh_from_db(self) -> None:
        self.uploaded = self.pk in self.rows


def test_of_pieces_that_come_together_one_makes_the_file(monkeypatch: pytest.MonkeyPatch):
    """The third and the fourth, where three are needed: neither changes or deletes what the other reads."""
    rows = set[int]()
    monkeypatch.setattr(
        intake.artifacts, "store_upload",
        lambda chunks, kind, limit, sha256, size: store.write_stream(chunks, limit=limit, expected_sha256=sha256),
    )  # fmt: skip
    monkeypatch.setattr(intake, "note_uploaded", lambda slot: rows.add(slot.pk))
    together = Barrier(2)

    def give(slot: Any, data: bytes, index: int) -> bool:
        piece = piece_of(data, 3, index)
        if index > 3:
            together.wait(10)
        return intake.upload_piece(assignment=slot, pieces=3, index=index, chunks=[piece], sha256=sha256_hex(piece))

    with ThreadPoolExecutor(2) as pool:
        for trial in range(40):
            data = bytes([trial]) * 300_000
            assert not give(Slot(trial, data, rows), data, 1)
            assert not give(Slot(trial, data, rows), data, 3)
            answers = [pool.submit(give, Slot(trial, data, rows), data, index) for index in (4, 5)]
            assert True in [answer.result() for answer in answers]
            assert trial in rows
            assert store.read(sha256_hex(data)) == data
            assert not list((settings.HYPERGPU.state_dir / "artifacts" / "pieces").iterdir())


@pytest.mark.parametrize(("count", "index"), [(1, 0), (4, 8), (200, 0), (0, 0)])
def test_no_more_than_twice_the_file_is_kept(work, count: int, index: int):
    node, leased, data = work
    answer = send(node, leased, data[:10], count, index)
    assert (answer.status_code, answer.json()["code"]) == (422, "upload.no_such_piece")


@pytest.mark.parametrize(("change", "code"), [(lambda piece: piece + b"!", "too_large"), (lambda piece: piece[:-1], "truncated")])
def test_a_piece_has_its_length(work, change, code: str):
    node, leased, data = work
    answer = send(node, leased, change(piece_of(data, 4, 2)), 4, 2)
    assert answer.json()["code"] == f"artifact.{code}"
    assert held(node, leased, 4)["held"] == []


def test_pieces_need_the_lease_and_a_commitment(open_round: Round, nodes: list[TestNode]):
    leased = lease(nodes[0])
    assert send(nodes[0], leased, b"x", 2, 0).json()["code"] == "artifact.not_committed"
    assert send(nodes[1], leased, b"x", 2, 0).json()["code"] == "assignment.not_yours"


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        (None, 200, slice(None)), ("bytes=0-", 206, slice(None)), ("bytes=5-", 206, slice(5, None)),
        ("bytes=5-9", 206, slice(5, 10)), ("bytes=5-999999999", 206, slice(5, None)), ("bytes=-5", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
    ],
)  # fmt: skip
def test_a_download_goes_on_where_it_broke_off(open_round: Round, nodes: list[TestNode], asked, status: int, part: slice):
    sha256 = lease(nodes[0])["order"]["checkpoint"]
    data = store.read(sha256)
    answer = nodes[0].call("GET", f"/agent/v1/artifacts/{sha256}", **({"Range": asked} if asked else {}))
    assert (answer.status_code, b"".join(answer.streaming_content)) == (status, data[part])
    assert int(answer["Content-Length"]) == len(data[part])
    first, last, _ = part.indices(len(data))
    assert answer.get("Content-Range") == (f"bytes {first}-{last - 1}/{len(data)}" if status == 206 else None)


def test_a_range_beyond_the_end_is_refused(open_round: Round, nodes: list[TestNode]):
    sha256 = lease(nodes[0])["order"]["checkpoint"]
    answer = nodes[0].call("GET", f"/agent/v1/artifacts/{sha256}", Range=f"bytes={len(store.read(sha256))}-")
    assert (answer.status_code, answer["Content-Range"]) == (416, f"bytes */{len(store.read(sha256))}")
