"""Local steps so that all nodes finish together (dynamic local updates: Liu et al., arXiv:2401.09135), in whole microseconds.

Integers make the result the same on every machine, and the sum of the steps exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """A node: microseconds of its transfers and of one step (at least 1), and its bounds for steps; `done` of them are done in
    advance, which fewer would throw away. `missed_us`: what its next fetch takes longer for each version that it has missed,
    `behind_us` at most."""

    transfer_us: int
    step_us: int
    least: int
    most: int
    done: int = 0
    missed_us: int = 0
    behind_us: int = 0

    @property
    def fewest(self) -> int:
        return max(self.least, self.done)

    def steps_within(self, us: int) -> int:
        return min(max((us - self.transfer_us) // self.step_us, self.fewest), self.most)

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


LANDS = 0.9
"""Part of its rounds after which work over several rounds is planned to come, so that it misses none of them."""
TOLERANCE = 1.05
"""A node whose least part lasts no more than this multiple of the others' round is waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Steps of a node, and the rounds that they take: with 2 its work counts in the next round, one round late. `hopeless`: even
    its least steps would come too late, or cost it more than they bring."""

    steps: int
    rounds: int = 1
    hopeless: bool = False


def shares(
    paces: Sequence[Pace], *, budget: int, limit_us: int, most_rounds: int, discount: float, fewest: int
) -> list[Share]:  # fmt: skip
    """Steps so that all finish together; a node whose transfers, or whose least steps, do not go with the others' round takes
    several rounds for one part: more local work between two synchronisations.

    Over m rounds of length T a node works 0.9 m T - transfers, for no more than its part of the budget, then pays for the
    versions that it has missed, and its work counts 1 / (1 + discount (m - 1)): the m up to `most_rounds` with the most work a
    round is taken. At least `fewest` nodes take one.
    """
    steps = finish_together(paces, budget=budget, limit_us=limit_us)
    together = common_end(paces, steps)
    beyond = max(budget - sum(pace.fewest for pace in paces), 0) // len(paces)
    rounds = [best_rounds(pace, together, pace.fewest + beyond, most_rounds=most_rounds, discount=discount) for pace in paces]
    by_need = sorted(range(len(paces)), key=lambda place: (rounds[place], place))
    for place in by_need[:fewest]:
        rounds[place] = 1
    longer = {
        place: over_rounds(paces[place], together, paces[place].fewest + beyond, many, most_rounds=most_rounds)
        for place, many in enumerate(rounds) if many > 1
    }  # fmt: skip
    rest = [pace for place, pace in enumerate(paces) if place not in longer]
    left = iter(finish_together(rest, budget=budget - sum(share.steps for share in longer.values()), limit_us=limit_us))
    return [longer.get(place) or Share(steps=next(left)) for place in range(len(paces))]


def common_end(paces: Sequence[Pace], steps: Sequence[int]) -> int:
    """Microseconds after which those are done that are not held at their least, all if there are none."""
    ends = [(pace.transfer_us + one * pace.step_us, one > pace.fewest) for pace, one in zip(paces, steps, strict=True)]
    return max((end for end, free in ends if free), default=max(end for end, _ in ends))


def over_rounds(pace: Pace, together: int, part: int, rounds: int, *, most_rounds: int) -> Share:
    if rounds > most_rounds:
        return Share(steps=pace.least, rounds=most_rounds, hopeless=True)
    steps = pace.steps_within(int(LANDS * rounds * together))
    return Share(steps=min(steps, part), rounds=rounds)


def best_rounds(pace: Pace, together: int, part: int, *, most_rounds: int, discount: float) -> int:
    """Rounds of `together` microseconds that the work of this node, at most `part` steps, had best take; more than `most_rounds`
    when its least steps do not fit into them, or catching up would cost what it brings."""
    least = pace.transfer_us + pace.least * pace.step_us
    worth = {1: float(together - pace.transfer_us)} if least <= TOLERANCE * together else {}
    for many in range(2, most_rounds + 1):
        if least <= LANDS * many * together:
            work = min(LANDS * many * together - pace.transfer_us, part * pace.step_us)
            catching_up = min((many - 1) * pace.missed_us, pace.behind_us)
            worth[many] = (work - catching_up) / (many * (1 + discount * (many - 1)))
    best = max(worth, key=lambda many: (worth[many], -many), default=most_rounds + 1)
    return best if best == 1 or worth.get(best, 0.0) > 0 else most_rounds + 1
