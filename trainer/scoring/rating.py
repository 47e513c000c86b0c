"""A node's long-term rating: each round is a match, ranked by loss improvement (OpenSkill, Weng and Lin 2011, JMLR 12:267-300).

One round's improvement is mostly the noise of its batch. A rating says over many rounds and jobs who tends to do better than
whom, and how sure that is.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from openskill.models import PlackettLuce

MODEL = PlackettLuce()
TIE = 0.2
"""Improvements within this part of the round's median are equally good: about the spread of honest ones."""


@dataclass(frozen=True, slots=True)
class Rating:
    """Skill as a normal distribution: mean `mu`, standard deviation `sigma`."""

    mu: float = MODEL.mu
    sigma: float = MODEL.sigma


def ranking(improvements: Mapping[int, float], refused: Collection[int] = ()) -> list[list[int]]:
    """Groups of node ids, best first, ties together; whose contribution was refused comes last, whatever it scored."""
    accepted = {node: value for node, value in improvements.items() if node not in refused}
    noise = TIE * abs(statistics.median(accepted.values())) if accepted else 0.0
    groups: list[list[int]] = []
    best = 0.0
    for value, node in sorted(((value, node) for node, value in accepted.items()), key=lambda pair: (-pair[0], pair[1])):
        if not groups or value < best - noise:
            groups.append([])
            best = value
        groups[-1].append(node)
    return groups + ([sorted(refused)] if refused else [])


def rated(ratings: Mapping[int, Rating], ranking: Sequence[Sequence[int]]) -> dict[int, Rating]:
    """Ratings after a round with this ranking: those of everybody who took part, new ones included, and of the others as they
    were. A round of one changes nothing."""
    places = [(node, place) for place, group in enumerate(ranking) for node in group]
    if len(places) < 2:
        return dict(ratings)
    before = [ratings.get(node, Rating()) for node, _ in places]
    after = MODEL.rate(
        [[MODEL.create_rating([one.mu, one.sigma])] for one in before], ranks=[float(place) for _, place in places]
    )
    return {**ratings, **{node: Rating(team[0].mu, team[0].sigma) for (node, _), team in zip(places, after, strict=True)}}
