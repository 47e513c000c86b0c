"""What an agent's own traffic tells of its link: collected as it happens, told with the requests that go out anyway."""

from __future__ import annotations

import socket
import threading
from collections import deque
from typing import Any

from trainer.network.estimators import Estimate, part, rate, smoothed
from trainer.operator.emulation import emulated_loss
from trainer.operator.tcp_info import tcp_info

MOST_SAMPLES = 16
"""Of a kind that wait to be told: the newest."""
STALL_SECONDS, STALL_DEVIATIONS = 0.2, 4.0
"""A small request that took so much longer than usual has waited for a segment to be sent again (the least retransmission
timeout of common kernels): how loss is found where the kernel does not count it."""
SEGMENTS = 2
"""Of a small request, there and back."""
TOLD_SEGMENTS = 64
"""Fewer are not worth the bytes that tell them, and what was lost may turn out not to be."""
EMULATED_SEGMENTS = 10**6
"""In which an emulated link's loss is told: more than any that were counted before."""
RECENT = 64
"""Round trips, the least of which is the path's."""
UNKNOWN_SECONDS = 3.0
UNKNOWN_UP_SECONDS = 30.0
LEAST_TRANSFER_SECONDS = 0.001


class Links:
    """Samples since they were last told, and this node's own smoothed view: `rtt` (s), `up`, `down` (bytes/s), `loss`.

    Two threads use it, the agent's and its heartbeat's.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rtt: Estimate | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.up: Estimate | None = None
        self.down: Estimate | None = None
        self.loss: Estimate | None = None
        self.reconnects = 0
        self.is_connected = False
        self.told_reconnects: int | None = None
        self.probed = False
        self.waiting: dict[str, Any] = {}
        self.seen: dict[tuple[Any, ...], tuple[int, int]] = {}

    # What happens.

    def round_trip(self, seconds: float) -> None:
        """Of a small request on an open connection."""
        with self.lock:
            self.recent.append(seconds)
            usual = self.rtt
            self.rtt = smoothed(self.rtt, seconds)
            self.wait("rtt", round(seconds * 1000, 1))
            if self.probed and usual is not None:
                stalled = seconds > usual.value + max(STALL_SECONDS, STALL_DEVIATIONS * usual.deviation)
                self.count(int(stalled), SEGMENTS)

    def sent(self, size: int, seconds: float) -> None:
        """A file went up; `seconds` with the round trip of its answer."""
        with self.lock:
            net = self.net(seconds)
            self.up = rate(self.up, amount=size, seconds=net)
            self.wait("up", [size, round(net, 4)])

    def received(self, size: int, seconds: float) -> None:
        """A file came down; `seconds` from its request on."""
        with self.lock:
            net = self.net(seconds)
            self.down = rate(self.down, amount=size, seconds=net)
            self.wait("down", [size, round(net, 4)])

    def answered(self, connection: socket.socket | None) -> None:
        """After an answer: what the kernel has counted on the connection that brought it. Of an emulated link it has counted a
        loopback's: what that link loses is told once, as such."""
        info, emulated = tcp_info(connection) if connection is not None else None, emulated_loss()
        with self.lock:
            self.is_connected = True
            self.probed = info is None and emulated is None
            if emulated is not None and self.loss is None:
                self.count(round(emulated * EMULATED_SEGMENTS), EMULATED_SEGMENTS)
            if connection is None or info is None or emulated is not None:
                return
            try:
                ends = (connection.getsockname(), connection.getpeername())
            except OSError:  # the other end is gone by now
                return
            segments, retransmits = self.seen.get(ends, (0, 0))
            if info.segments < segments:  # another connection from the same port
                segments, retransmits = 0, 0
            self.seen = {ends: (info.segments, info.retransmits)} | {key: old for key, old in self.seen.items() if key != ends}
            while len(self.seen) > MOST_SAMPLES:
                self.seen.popitem()
            if info.segments > segments:
                self.count(info.retransmits - retransmits, info.segments - segments)

    def peer(self, node: int, seconds: float) -> None:
        """A round trip to another node's endpoint."""
        with self.lock:
            self.waiting.setdefault("peers", {})[node] = round(seconds * 1000, 2)

    def shared(self, node: int, size: int, seconds: float) -> None:
        """A file came from another node; `seconds` from the question on."""
        with self.lock:
            self.waiting.setdefault("shared", {})[node] = [size, round(seconds, 4)]

    def broken(self) -> None:
        """A request found no connection or lost it. Attempts in a row are one loss, those before the first answer none."""
        with self.lock:
            self.reconnects += self.is_connected
            self.is_connected = False

    def seconds_down(self, size: int) -> float:
        """What a file of `size` bytes from the coordinator is expected to take; some seconds while nothing is known."""
        with self.lock:
            if self.down is None or self.rtt is None:
                return UNKNOWN_SECONDS
            return self.rtt.value + size / self.down.value

    def seconds_up(self, size: int) -> float:
        """What a file of `size` bytes to the coordinator is expected to take; some more seconds while nothing is known."""
        with self.lock:
            if self.up is None or self.rtt is None:
                return UNKNOWN_UP_SECONDS
            return self.rtt.value + size / self.up.value

    @property
    def path_s(self) -> float | None:
        """The least of the last round trips: of the path alone, without what a busy coordinator takes to answer (RTprop of BBR,
        Cardwell et al. 2016)."""
        with self.lock:
            return min(self.recent, default=None)

    # What is told.

    def report(self) -> dict[str, Any]:
        """What is new, for the next request's body: see LinkReport in the coordinator. Give it back with `untold` when the
        request did not arrive."""
        with self.lock:
            report, self.waiting = self.waiting, {}
            lost, segments = report.get("loss", (0, 0))
            if 0 < segments < TOLD_SEGMENTS:
                self.waiting["loss"] = report.pop("loss")
            elif lost < 0:  # the receiver had what was told to be lost
                report["loss"] = [0, segments]
            if self.probed and "loss" in report:
                report["probed"] = True
            if "loss" in report and emulated_loss() is not None:
                report["emulated"] = True
            if self.reconnects != self.told_reconnects:
                report["reconnects"] = self.told_reconnects = self.reconnects
            return report

    def untold(self, report: dict[str, Any]) -> None:
        with self.lock:
            self.told_reconnects = None if "reconnects" in report else self.told_reconnects
            for kind in ("rtt", "up", "down"):
                if samples := report.get(kind, []) + self.waiting.get(kind, []):
                    self.waiting[kind] = samples[-MOST_SAMPLES:]
            for kind in ("peers", "shared"):
                if of_nodes := report.get(kind, {}) | self.waiting.get(kind, {}):
                    self.waiting[kind] = of_nodes
            if "loss" in report:
                hits, trials = self.waiting.get("loss", (0, 0))
                self.waiting["loss"] = [report["loss"][0] + hits, report["loss"][1] + trials]

    # Under the lock.

    def net(self, seconds: float) -> float:
        """A transfer's own time, without a round trip."""
        return max(seconds - (self.rtt.value if self.rtt else 0.0), LEAST_TRANSFER_SECONDS)

    def wait(self, kind: str, sample: Any) -> None:
        self.waiting[kind] = [*self.waiting.get(kind, []), sample][-MOST_SAMPLES:]

    def count(self, lost: int, segments: int) -> None:
        self.loss = part(self.loss, hits=lost, trials=segments)
        hits, trials = self.waiting.get("loss", (0, 0))
        self.waiting["loss"] = [hits + lost, trials + segments]
