"""Local steps so that all nodes finish together (dynamic local updates: Liu et al., arXiv:2401.09135), in whole microseconds.

Integers make the result the same on every machine, and the sum of the steps exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """A node: microseconds of its transfers and of one step (at least 1), and its bounds for steps."""

    transfer_us: int
    step_us: int
    least: int
    most: int

    def steps_within(self, us: int) -> int:
        return min(max((us - self.transfer_us) // self.step_us, self.least), self.most)

    def until_next(self, us: int) -> int:
        """Microseconds from `us` until it has done one step more than `steps_within(us)`."""
        return self.transfer_us + (self.steps_within(us) + 1) * self.step_us - us


def finish_together(paces: Sequence[Pace], *, budget: int, limit_us: int | None = None) -> list[int]:
    """Steps of each node: the longest round in which all that finish together do at most `budget` steps, `limit_us` at most.
    Steps that rounding leaves over go to those that would finish one more first; the lower bounds stand in any case."""
    longest = max(pace.transfer_us + pace.most * pace.step_us for pace in paces)
    if limit_us is not None:
        longest = min(longest, limit_us)
    below, above = 0, longest + 1  # the answer is in [below, above)
    while above - below > 1:
        middle = (below + above) // 2
        if sum(pace.steps_within(middle) for pace in paces) <= budget:
            below = middle
        else:
            above = middle
    steps = [pace.steps_within(below) for pace in paces]
    rest = budget - sum(steps) if below < longest else 0
    could = [place for place, pace in enumerate(paces) if steps[place] < pace.most]
    for place in sorted(could, key=lambda place: (paces[place].until_next(below), place))[: max(rest, 0)]:
        steps[place] += 1
    return steps
