"""Estimates against what the RFC and arithmetic say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.network.estimators import LEAST_SECONDS, Estimate, part, rate, smoothed, thinned

SECONDS = st.floats(1e-3, 1e3)


def test_given_round_trips_then_value_and_deviation_follow_rfc_6298():
    first = smoothed(None, 0.1)
    second = smoothed(first, 0.2)

    assert (first.value, first.deviation) == (0.1, 0.05)
    assert second.value == pytest.approx(7 / 8 * 0.1 + 1 / 8 * 0.2)
    assert second.deviation == pytest.approx(3 / 4 * 0.05 + 1 / 4 * 0.1)
    assert second.samples == 2


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_given_any_samples_then_the_value_stays_among_them(samples):
    known = None
    for sample in samples:
        known = smoothed(known, sample)
    assert min(samples) * (1 - 1e-9) <= known.value <= max(samples) * (1 + 1e-9)


def test_given_one_slow_transfer_then_the_rate_falls_by_the_time_that_it_cost():
    fast = rate(None, amount=1e6, seconds=1)
    then = rate(fast, amount=1e6, seconds=9)
    assert 1e6 / then.value == pytest.approx(3 / 4 * 1 + 1 / 4 * 9)


def test_given_what_was_too_short_to_time_then_it_only_raises_the_rate():
    known = Estimate(value=1e6, samples=5)
    assert rate(known, amount=1000, seconds=1e-6) == known, "1 kB within 5 ms says nothing about 1 MB/s"
    assert 1e6 < rate(known, amount=1e6, seconds=1e-6).value <= 1e6 / LEAST_SECONDS


def test_given_segments_then_loss_is_the_part_sent_again_and_forgets_the_old():
    known = part(None, hits=10, trials=1000)
    assert known.value == pytest.approx(0.01)
    for _ in range(100):
        known = part(known, hits=0, trials=1000)
    assert known.value < 1e-4
    assert part(known, hits=-50, trials=10).value == 0, "what was no loss after all"


@given(st.integers(1, 400), st.integers(2, 40))
def test_given_any_stream_of_points_then_a_bounded_history_keeps_its_ends_and_its_order(count, most):
    history: list[tuple[float, float]] = []
    for number in range(count):
        history = thinned([*history, (float(number), math.sin(number))], now=float(number), most=most)

    assert len(history) <= max(most, 2)
    assert history == sorted(history)
    assert (history[0][0], history[-1][0]) == (0.0, float(count - 1))


def test_given_an_hour_of_points_then_the_newest_are_dense_and_the_old_ones_rare():
    history: list[tuple[float, float]] = []
    for second in range(3600):
        history = thinned([*history, (float(second), 0.0)], now=float(second), most=60)

    newest = sum(1 for at, _ in history if at >= 3600 - 60)
    assert newest > 10, "of the last minute"
    assert sum(1 for at, _ in history if at < 1800) >= 3, "of the first half hour"
