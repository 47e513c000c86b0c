"""Files over bad links: in pieces, over several connections, with redundant ones. trainer.network.transfers says when and why."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from trainer.network.erasure import redundant
from trainer.network.estimators import Estimate
from trainer.network.transfers import Transfer, piece_size, piece_span, transfer_of
from trainer.operator.client import BACKOFF_SECONDS, Check, Coordinator, UnavailableError, upload_timeout
from trainer.operator.emulation import emulated_loss
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError

BLOCK = 2**14
"""Bytes of a body between two looks at whether they are still wanted."""
STRIPE = 2**16
"""Bytes of each piece from which a redundant one is computed at a time."""
FIRST_RANGE = 2**16
"""Bytes of a download that are asked for before its size is known."""
LOOK_SECONDS = 0.05
SURE = 2.0
"""Standard deviations below its estimate that a loss is counted as."""
HANGS = 2.0
"""Multiple of what a piece usually takes after which one is taken to hang (hedged requests: Dean and Barroso 2013, "The tail at
scale"): only then is a redundant one worth its bytes."""


class Place(NamedTuple):
    """Where a file goes: the path `whole` in one request, `in_pieces` with what follows; both with the `query`."""

    whole: str
    in_pieces: str
    query: str


def upload(coordinator: Coordinator, assignment: int, fence: int, artifact: Path, sha256: str, *, check: Check) -> None:
    """Send the committed bytes."""
    path = f"/agent/v1/assignments/{assignment}"
    send(coordinator, Place(f"{path}/artifact", f"{path}/pieces", f"fence={fence}"), artifact, sha256, check=check)


def show(coordinator: Coordinator, audit: int, evidence: Path, sha256: str, *, check: Check) -> None:
    """Send what an audit asks for."""
    path, query = f"/agent/v1/audits/{audit}", f"sha256={sha256}&size={evidence.stat().st_size}"
    send(coordinator, Place(f"{path}/evidence", f"{path}/pieces", query), evidence, sha256, check=check)


def send(coordinator: Coordinator, place: Place, file: Path, sha256: str, *, check: Check) -> None:
    """In one request over a good link, else, or once a request was cut off, or where the file is large, in pieces."""
    size, path = file.stat().st_size, f"{place.whole}?{place.query}"
    transfer = choose(coordinator, size, rate=coordinator.links.up)
    if transfer.pieces == 1:
        in_pieces = transfer_of(size, broken=True)

        def in_one_request() -> bool:
            try:
                coordinator.put(path, file, sha256)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise  # nothing was under way
            except httpx.TransportError:
                if in_pieces.pieces == 1:
                    raise
                return False
            return True

        if coordinator.persist(in_one_request, check=check):
            return
        transfer = in_pieces
    coordinator.say("transfer.pieces", f"{transfer.pieces} pieces: {transfer.reason.text}")
    started = time.monotonic()
    coordinator.persist(lambda: send_pieces(coordinator, place, file, transfer, check=check), check=check)
    coordinator.links.sent(size, time.monotonic() - started)


def choose(coordinator: Coordinator, size: int, *, rate: Estimate | None) -> Transfer:
    """How to move a file, by what the link's traffic has told so far."""
    links, loss = coordinator.links, emulated_loss()
    if loss is None:  # as much as is sure: one segment in the first hundred is no lossy link
        loss = max(0.0, links.loss.value - SURE * links.loss.deviation) if links.loss else 0.0
    return transfer_of(size, rtt_s=links.path_s, loss=loss, rate=rate.value if rate else None)


class Pieces:
    """Numbers of pieces for several workers: each is drawn once, given back when it failed. Redundant ones are drawn when nothing
    else is left to do and one that is under way hangs. `whole` is set once the file is complete. Times are of any clock."""

    def __init__(self, plain: list[int], spare: list[int] | None = None) -> None:
        self.todo, self.spare = deque(plain), deque(spare or [])
        self.under_way: dict[int, float] = {}
        self.took: list[float] = []
        self.whole = threading.Event()
        self.lock = threading.Lock()
        if not plain and not spare:
            self.whole.set()

    def draw(self, now: float) -> int | None:
        with self.lock:
            if self.whole.is_set():
                return None
            if self.todo:
                number = self.todo.popleft()
            elif (due := self.next_spare()) is not None and now >= due:
                number = self.spare.popleft()
            else:
                return None
            self.under_way[number] = now
            return number

    def next_spare(self) -> float | None:
        """When the oldest piece under way will have taken so long that it hangs; None when there is none to wait for."""
        if self.todo or not (self.spare and self.under_way and self.took):
            return None
        return min(self.under_way.values()) + HANGS * statistics.median(self.took)

    @property
    def is_over(self) -> bool:
        """Whether a worker that has nothing to do now will have nothing any more."""
        return self.whole.is_set() or not (self.todo or (self.spare and self.under_way and self.took))

    def came(self, number: int, now: float) -> bool:
        """Whether nothing is left to do."""
        with self.lock:
            self.took.append(now - self.under_way.pop(number))
            return not self.todo and not self.under_way

    def failed(self, number: int) -> None:
        with self.lock:
            del self.under_way[number]
            self.todo.appendleft(number)


def work_off(pieces: Pieces, move: Callable[[int], bool | None], *, connections: int, check: Check) -> None:
    """Have `move(number)` done for each piece by so many threads, each with a connection of its own, until it says that the file
    is whole (None: it is when nothing is left to do). A thread whose connection breaks tries on; those that are not needed any
    more are left behind.

    Raises what `check` raises, refusals of the coordinator, OSError of this machine's disk, or UnavailableError when all were
    sent and the file is not whole.
    """
    refusals: list[HyperGPUError | OSError] = []

    def work() -> None:
        failures = 0
        while not refusals:
            if (number := pieces.draw(time.monotonic())) is None:
                if pieces.is_over:
                    return
                pieces.whole.wait(LOOK_SECONDS)
                continue
            try:
                is_whole = move(number)
                was_last = pieces.came(number, time.monotonic())
                if is_whole or (is_whole is None and was_last):
                    pieces.whole.set()
                failures = 0
            except (httpx.TransportError, UnavailableError):
                pieces.failed(number)
                pieces.whole.wait(random.uniform(0, min(1.0, BACKOFF_SECONDS * 2**failures)))
                failures += 1
            except (HyperGPUError, OSError) as refusal:
                refusals.append(refusal)
            except NotWantedError:
                return

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        while not pieces.whole.wait(LOOK_SECONDS):
            check()
            if refusals:
                raise refusals[0]
            if not any(thread.is_alive() for thread in threads) and not pieces.whole.is_set():
                raise UnavailableError("coordinator.unavailable", "all pieces were sent, and the file is not whole; asking again")
    finally:
        pieces.whole.set()  # whatever ended it: nobody begins another piece


class NotWantedError(Exception):
    """The file is whole: the rest of a piece need not be sent."""


def send_pieces(coordinator: Coordinator, place: Place, file: Path, transfer: Transfer, *, check: Check) -> None:
    """One pass: what the coordinator does not hold yet."""
    size, path = file.stat().st_size, f"{place.in_pieces}/{transfer.pieces}"
    answer = coordinator.get(f"{path}?{place.query}").json()
    if answer["whole"]:
        return
    held = set(answer["held"])
    plain = [number for number in range(transfer.pieces) if number not in held]
    spare = [number for number in range(transfer.pieces, transfer.pieces + transfer.spare) if number not in held]
    pieces = Pieces(plain, spare)

    def send(number: int) -> bool:
        data = read_piece(file, size, transfer.pieces, number)

        def body() -> Iterator[bytes]:
            for offset in range(0, len(data), BLOCK):
                if pieces.whole.is_set():
                    raise NotWantedError
                yield data[offset : offset + BLOCK]

        response = coordinator.request(
            "PUT", f"{path}/{number}?{place.query}", content=body(), body_sha256=sha256_hex(data),
            kind="application/octet-stream", headers={"Content-Length": str(len(data))},
            timeout=upload_timeout(len(data)),
        )  # fmt: skip
        return bool(response.json()["whole"])

    work_off(pieces, send, connections=transfer.connections, check=check)


def read_piece(file: Path, size: int, pieces: int, number: int) -> bytes:
    """A plain piece of the file, or a redundant one."""
    with file.open("rb") as source:
        if number < pieces:
            offset, length = piece_span(size, pieces, number)
            source.seek(offset)
            return source.read(length)
        each, made = piece_size(size, pieces), bytearray()
        for offset in range(0, each, STRIPE):
            length = min(STRIPE, each - offset)
            stripes = []
            for plain in range(pieces):
                begin, there = piece_span(size, pieces, plain)
                source.seek(begin + offset)
                stripes.append(source.read(max(0, min(length, there - offset))).ljust(length, b"\0"))
            made += redundant(stripes, number)
        return bytes(made)


# Downloads.


def download_in_ranges(coordinator: Coordinator, sha256: str, part: Path, transfer: Transfer, *, check: Check) -> None:
    """Fetch an artifact into `part` by ranges over several connections; ranges of an earlier attempt that are there are kept. The
    link's goodput is that of all of them together."""
    started, ranges = time.monotonic(), part.with_name(part.name + ".ranges")
    ranges.mkdir(exist_ok=True)
    total = first_range(coordinator, sha256, ranges / "0")
    rest = total - FIRST_RANGE
    count = min(transfer.connections * 4, max(1, rest // FIRST_RANGE)) if rest > 0 else 0
    files = [ranges / "0", *(ranges / f"{number + 1}-{count}" for number in range(count))]
    spans = [piece_span(rest, count, number) for number in range(count)]
    held = sum(map(size_of, files[1:]))
    pieces = Pieces([number for number in range(count) if size_of(files[number + 1]) < spans[number][1]])

    def receive(number: int) -> None:
        offset, length = spans[number]
        append_range(coordinator, sha256, files[number + 1], first=FIRST_RANGE + offset, length=length, over=pieces.whole)

    work_off(pieces, receive, connections=transfer.connections, check=check)
    coordinator.links.received(total - held, time.monotonic() - started)
    with part.open("wb") as joined:
        for file in files:
            joined.write(file.read_bytes())
            file.unlink()
    ranges.rmdir()


def first_range(coordinator: Coordinator, sha256: str, file: Path) -> int:
    """Fetch the first range, which tells the size of the whole."""
    headers = {"Accept-Encoding": "identity", "Range": f"bytes=0-{FIRST_RANGE - 1}"}
    response = coordinator.get(f"/agent/v1/artifacts/{sha256}", headers=headers)
    file.write_bytes(response.content)
    return int(response.headers.get("Content-Range", f"/{len(response.content)}").rpartition("/")[2])


def append_range(coordinator: Coordinator, sha256: str, file: Path, *, first: int, length: int, over: threading.Event) -> None:
    """Go on with a range where its file ends."""
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={first + size_of(file)}-{first + length - 1}"}
    response = coordinator.get(f"/agent/v1/artifacts/{sha256}", headers=headers, stream=True)
    try:
        with file.open("ab") as sink:
            for chunk in response.iter_raw():
                if over.is_set():
                    raise NotWantedError
                sink.write(chunk)
    finally:
        response.close()


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
