"""The virtual clock: events in order of their time."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

Event = TypeVar("Event")


class Clock(Generic[Event]):
    """A queue of events; `now` is the time (seconds) of the last one taken. Those of one time come in the order in which they
    were scheduled, so that a run is the same every time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.scheduled = 0
        self.queue: list[tuple[float, int, Event]] = []

    def schedule(self, time: float, event: Event) -> None:
        """Raises ValueError for a time that has passed."""
        if not time >= self.now:
            raise ValueError(f"It is {self.now:g} s already: nothing can happen at {time:g} s.")
        heapq.heappush(self.queue, (time, self.scheduled, event))
        self.scheduled += 1

    def take(self) -> Event:
        """The next event; `now` becomes its time. Raises IndexError when there is none."""
        self.now, _, event = heapq.heappop(self.queue)
        return event

    @property
    def next(self) -> float:
        """Time of the next event; infinity when there is none."""
        return self.queue[0][0] if self.queue else math.inf

    def __len__(self) -> int:
        return len(self.queue)
