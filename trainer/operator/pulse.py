"""Heartbeats for one lease, in a thread, from its first fetch to the end of its upload."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import httpx

from trainer.operator.client import Coordinator, UnavailableError
from trainer.protocol.errors import HyperGPUError

DEADLINE_GRACE_SECONDS = 30
"""How long after a deadline work goes on without word from the coordinator, which may have extended it: it decides, this is
for when it is silent."""
BEATS_PER_AGE, BEATS_PER_LEASE = 10, 3
"""Heartbeats are a tenth of the order's age apart, but at most a third of the lease."""
LOST = ("lease.", "assignment.", "node.")
"""Refusals that say that the order is no longer this node's."""


class Pulse:
    """Tells the coordinator that the order is being worked on, and `check()` whether it still is ours to do.

    `seconds_left` until the order's deadline, as last heard. The lease itself is the first sign of life; the next comes after
    `every` seconds, later ones at growing distances, since a long order does not need to be watched as closely, but so that two
    may be lost before the lease of `lease_seconds` ends. `eager` sends the first progress at once. `carried` is the lease in a
    later round under which the work goes on when its own has closed without it.
    """

    def __init__(
        self, coordinator: Coordinator, *, assignment: int, fence: int, steps: int, seconds_left: float, every: float,
        lease_seconds: float, eager: bool,
    ) -> None:  # fmt: skip
        self.coordinator, self.assignment, self.fence, self.steps, self.every = coordinator, assignment, fence, steps, every
        self.lease_seconds, self.eager, self.started = lease_seconds, eager, time.monotonic()
        self.deadline = time.monotonic() + seconds_left + DEADLINE_GRACE_SECONDS
        self.step = 0
        self.told = 0
        """The last step whose loss has arrived."""
        self.points: list[list[float]] = []
        self.lost: HyperGPUError | None = None
        self.carried: dict[str, Any] | None = None
        self.is_late = False
        self.lock = threading.Lock()
        self.nudge, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.beat_until_ended, daemon=True)

    def __enter__(self) -> Pulse:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ended.set()
        self.nudge.set()
        self.thread.join(timeout=1)  # a heartbeat under way to a silent server must not hold the agent

    def progress(self, step: int, points: list[list[float]]) -> None:
        """`step` steps are done; `points` are new [step, loss]."""
        with self.lock:
            first = self.step == 0
            self.step = step
            self.points += points
        if first and self.eager:
            self.nudge.set()

    def check(self) -> None:
        """Raises HyperGPUError `lease.*`, `assignment.*`, `order.cancelled` or `order.deadline`: drop the work."""
        if self.lost is not None:
            raise self.lost
        self.check_deadline()

    def check_deadline(self) -> None:
        """For a receipt: it may end the lease before its answer arrives, and is then to be repeated, not dropped."""
        if time.monotonic() > self.deadline:
            raise HyperGPUError("order.deadline", "The round's deadline has passed.")

    def carried_lease(self) -> dict[str, Any]:
        """Of the round that takes this late work, once one has opened. For the agent's own thread, after the pulse has ended.
        Raises as `check` does."""
        while True:
            self.beat()
            self.check()
            if self.carried is not None and not self.is_late:
                return self.carried
            time.sleep(self.every)

    def beat_until_ended(self) -> None:
        while self.lost is None:
            self.nudge.wait(self.pause)
            self.nudge.clear()
            if self.ended.is_set():
                return
            self.beat()

    @property
    def pause(self) -> float:
        """Seconds to the next heartbeat."""
        growing = 0.0 if self.is_late else (time.monotonic() - self.started) / BEATS_PER_AGE
        return min(max(self.every, growing), self.lease_seconds / BEATS_PER_LEASE)

    def beat(self) -> None:
        with self.lock:
            points, self.points = self.points, []
            progress = {"fence": self.fence, "step": self.step, "steps": self.steps, "losses": points}
        try:
            answer = self.coordinator.heartbeat(self.assignment, progress)
        except (httpx.TransportError, UnavailableError):
            with self.lock:
                self.points = points + self.points
            return
        except HyperGPUError as error:
            if error.code.startswith(LOST):
                self.lost = error
            else:
                self.coordinator.say("heartbeat.refused", str(error))
            return
        self.told = int(points[-1][0]) if points else self.told
        self.deadline = time.monotonic() + answer["deadline_seconds"] + DEADLINE_GRACE_SECONDS
        self.lease_seconds = answer["lease_seconds"]
        self.is_late = answer.get("late", False)
        self.carried = answer.get("lease", self.carried)
        if answer["cancel"]:
            self.lost = HyperGPUError("order.cancelled", answer.get("reason") or "The coordinator cancelled the order.")
