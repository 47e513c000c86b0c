"""Who does better over many rounds is rated higher; noise alone lifts nobody."""

import random

from hypothesis import given
from hypothesis import strategies as st

from trainer.scoring.rating import Rating, ranking, rated


def test_ties_are_within_noise_and_refused_come_last():
    improvements = {1: 0.100, 2: 0.095, 3: 0.05, 4: 0.30, 5: 0.101}
    assert ranking(improvements) == [[4], [1, 2, 5], [3]] or ranking(improvements) == [[4], [5, 1, 2], [3]]
    assert ranking(improvements, refused=[4, 9]) == [[5, 1, 2], [3], [4, 9]]
    assert ranking({}, refused=[2]) == [[2]] and ranking({}) == []


def test_the_better_node_is_rated_higher_the_longer_the_surer():
    ratings: dict[int, Rating] = {}
    for _ in range(30):
        ratings = rated(ratings, [[1], [2, 3], [4]])
    assert ratings[1].mu > ratings[2].mu > ratings[4].mu
    assert abs(ratings[2].mu - ratings[3].mu) < 1e-9 and ratings[1].sigma < Rating().sigma


def test_a_node_that_is_refused_now_and_then_falls_behind():
    ratings: dict[int, Rating] = {}
    for number in range(40):
        ratings = rated(ratings, ranking(dict.fromkeys((1, 2, 3), 0.1), refused=[3] if number % 4 == 0 else []))
    assert ratings[3].mu < min(ratings[1].mu, ratings[2].mu) - 1


def test_noise_lifts_nobody_for_long():
    chance = random.Random(5)
    ratings: dict[int, Rating] = {}
    for _ in range(60):
        ratings = rated(ratings, ranking({node: chance.gauss(0.1, 0.004) for node in range(6)}))
    means = [rating.mu for rating in ratings.values()]
    assert max(means) - min(means) < 1


def test_who_stays_away_stays_as_he_is_and_one_alone_wins_nothing():
    known = {1: Rating(), 2: Rating(30.0, 2.0)}
    assert rated(known, [[3], [1]])[2] == known[2] and rated(known, [[1]]) == known and rated({}, []) == {}


@given(st.dictionaries(st.integers(0, 50), st.floats(-5, 5), max_size=12), st.sets(st.integers(0, 50), max_size=5))
def test_everybody_is_ranked_once(improvements, refused):
    nodes = [node for group in ranking(improvements, refused) for node in group]
    assert sorted(nodes) == sorted(set(improvements) | refused)
