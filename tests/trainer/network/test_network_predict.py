"""Predictions of rounds: seconds and their doubt, when waiting stops to pay, and how good they were."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.network.test_network_policy import fact
from trainer.network.facts import Measure
from trainer.network.predict import LEAST_DOUBT, Prediction, best_close, left_of, predict, relative_errors


def test_a_part_is_two_round_trips_the_bytes_and_the_samples():
    found = predict(fact(0, 8.0, up=2e6, down=4e6, rtt_s=0.1), samples=80, fetch_bytes=4e6, upload_bytes=1e6)
    assert (found.fetch_s, found.compute_s, found.upload_s) == pytest.approx((1.1, 10.0, 0.6))
    assert found.doubt_s == pytest.approx(LEAST_DOUBT * 11.7)
    assert found.done_by(11.7) == pytest.approx(0.5) and found.done_by(13) > 0.98


def test_doubt_comes_from_the_measures_or_from_what_predictions_were_off_by():
    node = fact(0, 8.0)
    wavering = type(node)(
        **{**{name: getattr(node, name) for name in node.__slots__}, "up": Measure(value=1e6, deviation=5e5, source="transfer")}
    )
    found = predict(wavering, samples=8, fetch_bytes=0, upload_bytes=1e7)
    assert found.doubt_s == pytest.approx(10 * 0.62665, rel=0.02)
    late = type(node)(**{**{name: getattr(node, name) for name in node.__slots__}, "spread": 0.4})
    assert predict(late, samples=80, fetch_bytes=0, upload_bytes=0).doubt_s == pytest.approx(0.4 * 10.02)


def test_what_is_left_of_a_part_follows_from_what_was_heard_of_it():
    part = Prediction(fetch_s=4.0, compute_s=10.0, upload_s=2.0, doubt_s=1.6)
    begun, computing = left_of(part, gone_s=1.0), left_of(part, gone_s=9.0, computed=0.5)
    sending = left_of(part, gone_s=15.0, computed=1.0, sending_s=0.5)
    assert (begun.fetch_s, begun.compute_s, begun.upload_s, begun.doubt_s) == pytest.approx((3, 10, 2, 1.5))
    assert (computing.fetch_s, computing.compute_s, computing.upload_s) == (0, 5, 2)
    assert (sending.total_s, sending.doubt_s) == pytest.approx((1.5, 0.25)), "half of the half second that it is behind"


def test_who_is_overdue_is_taken_to_need_as_long_again_and_nobody_is_sure_of_it():
    part = Prediction(fetch_s=0.2, compute_s=13.0, upload_s=1.0, doubt_s=1.0)
    hangs = left_of(part, gone_s=20.2)
    assert (hangs.fetch_s, hangs.compute_s, hangs.upload_s) == pytest.approx((20, 13, 1))
    assert hangs.doubt_s == pytest.approx(17), "half of all that is left"
    assert left_of(part, gone_s=60.0, computed=1.0, sending_s=5.0).upload_s == 4


ends = st.lists(st.tuples(st.floats(1, 100), st.floats(0.01, 0.5)), min_size=2, max_size=8)


@settings(deadline=None)
@given(ends, st.floats(0, 0.9))
def test_a_round_closes_between_its_quorum_and_its_limit(found, late_worth):
    predicted = {node: Prediction(fetch_s=0, compute_s=s, upload_s=0, doubt_s=s * d) for node, (s, d) in enumerate(found)}
    quorum = math.ceil(2 * len(found) / 3)
    same = dict.fromkeys(predicted, 1.0)
    close = best_close(predicted, same, same, late_worth=late_worth, quorum=quorum, limit_s=90.0)
    soonest = sorted(one.total_s for one in predicted.values())[quorum - 1]
    assert min(soonest, 90.0) <= close.deadline_s <= 90.0 and 0 < close.expected_s <= close.deadline_s + 1e-9


def test_waiting_for_a_straggler_pays_until_it_does_not():
    def closing(last_s: float, *, worth: float = 1.0, late_worth: float = 0.0) -> float:
        predicted = {node: Prediction(fetch_s=0, compute_s=10, upload_s=0, doubt_s=0.5) for node in range(7)}
        predicted[7] = Prediction(fetch_s=0, compute_s=last_s, upload_s=0, doubt_s=last_s / 20)
        works = dict.fromkeys(predicted, 1.0) | {7: worth}
        return best_close(predicted, works, dict.fromkeys(works, 1.0), late_worth=late_worth, quorum=6, limit_s=1e6).deadline_s

    assert closing(10.5) > 11
    assert closing(60.0) < 13
    assert closing(14.0, worth=8.0) > 14 > closing(14.0, worth=0.2)
    assert closing(13.0, worth=4.0, late_worth=0.9) < closing(13.0, worth=4.0)


def test_the_expected_length_is_that_of_many_drawn_rounds():
    predicted = {node: Prediction(fetch_s=0, compute_s=10 + node, upload_s=0, doubt_s=2) for node in range(5)}
    same = dict.fromkeys(predicted, 1.0)
    close = best_close(predicted, same, dict.fromkeys(predicted, 0.9), late_worth=0.0, quorum=4, limit_s=1e6)
    draws, chance = [], random.Random(0)
    for _ in range(20_000):
        comes = [chance.gauss(one.total_s, one.doubt_s) if chance.random() < 0.9 else math.inf for one in predicted.values()]
        draws.append(min(max(comes), close.deadline_s))
    assert close.expected_s == pytest.approx(sum(draws) / len(draws), rel=0.02)


def test_relative_errors_are_of_what_it_took():
    assert relative_errors([(10, 8), (10, 20)]) == [0.25, 0.5]
