"""Judging a round costs a bounded part of what was trained in it."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from trainer.scoring.effort import LEAST_SAMPLES, MOST_SAMPLES, SHARE, TRAINING_PASSES, is_looked_at, score_samples


@given(trained=st.integers(1, 10**7), updates=st.integers(1, 200), kind=st.sampled_from(sorted(MOST_SAMPLES)))
def test_scores_cost_their_share_of_the_training_unless_that_is_too_few_samples(trained, updates, kind):
    size = score_samples(kind, trained=trained, updates=updates)
    assert LEAST_SAMPLES <= size <= MOST_SAMPLES[kind]
    assert size == LEAST_SAMPLES or size * (updates + 1) <= SHARE * TRAINING_PASSES * trained
    assert size <= score_samples(kind, trained=2 * trained, updates=updates)


def test_what_is_dear_is_looked_at_as_often_as_its_share_allows():
    seeds = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]
    looked = [is_looked_at(seed, passes=960, trained=320) for seed in seeds]
    assert abs(sum(looked) / len(seeds) - SHARE * TRAINING_PASSES * 320 / 960) < 0.03
    assert looked == [is_looked_at(seed, passes=960, trained=320) for seed in seeds]
    assert all(is_looked_at(seed, passes=96, trained=320) for seed in seeds)
    assert all(is_looked_at("f" * 64, passes=passes, trained=10**6) for passes in (1, 10**5))
