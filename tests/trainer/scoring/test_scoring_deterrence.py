"""The arithmetic of stake and audit rate, against the published table and against counting."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.scoring.deterrence import CASE_TAKES, AuditPolicy, detection, deterrence, needed_at_stake, needed_rate

parts = st.floats(0.01, 1.0)
policies = st.builds(
    AuditPolicy, rate=parts, segments=st.integers(1, 12), audited=st.integers(1, 12), miss_rate=st.floats(0, 0.9)
)  # fmt: skip


@pytest.mark.parametrize(("rate", "least", "safe"), [(0.02, 35, 106), (0.05, 14, 42), (0.10, 7.1, 21), (0.20, 3.5, 11)])
def test_what_must_be_at_stake(rate, least, safe):
    policy = AuditPolicy(rate=rate, segments=10, audited=2, miss_rate=0.01)
    assert needed_at_stake(policy, safety=1) == pytest.approx(least, rel=0.02)
    assert needed_at_stake(policy) == pytest.approx(safe, rel=0.04)


@given(policy=policies, skipped=parts)
def test_detection_is_what_counting_gives(policy, skipped):
    hit = set(range(math.ceil(skipped * policy.segments - 1e-9)))
    draws = list(itertools.combinations(range(policy.segments), min(policy.audited, policy.segments)))
    counted = sum(bool(hit & set(draw)) for draw in draws) / len(draws)
    assert detection(skipped, policy) == pytest.approx(counted * (1 - policy.miss_rate))


@given(policy=policies, skipped=parts)
def test_with_what_is_needed_at_stake_no_part_is_worth_skipping(policy, skipped):
    outlook = deterrence(skipped, policy, at_stake=needed_at_stake(policy, safety=1))
    assert outlook.gain <= 1e-9 and outlook.needed <= needed_at_stake(policy) * (1 + 1e-9)


def test_without_audits_cheating_pays_and_nothing_is_enough():
    policy = AuditPolicy(rate=0.0, segments=8)
    outlook = deterrence(0.5, policy, at_stake=100)
    assert outlook.gain == pytest.approx(0.35) and outlook.needed == outlook.rounds == math.inf and outlook.caught == 0
    assert needed_at_stake(policy) == math.inf


def test_a_lazy_node_is_deterred_by_money_not_by_certainty():
    policy = AuditPolicy(rate=0.05, segments=10, audited=2, miss_rate=0.01)
    outlook = deterrence(0.1, policy, at_stake=42)
    assert outlook.rounds == pytest.approx(101, rel=0.01)
    assert outlook.gain < 0


def test_honest_work_risks_nothing():
    outlook = deterrence(0.0, AuditPolicy(rate=0.5, segments=4), at_stake=10)
    assert outlook.gain == outlook.needed == outlook.caught == 0


@given(missed=st.floats(0, 0.9), safety=st.floats(0.5, 3))
def test_at_the_deterring_rate_what_a_case_takes_is_what_is_needed(missed, safety):
    rate = needed_rate(miss_rate=missed, safety=safety)
    if rate <= 1:
        policy = AuditPolicy(rate=rate, segments=8, miss_rate=missed)
        assert needed_at_stake(policy, safety=safety) == pytest.approx(CASE_TAKES)


def test_what_a_case_takes_deters_newcomers_and_nobody_who_is_rarely_audited():
    """Twice the pay of a round at an audit in two rounds, and in fifty: the defaults of a job."""
    newcomer, old_hand = (AuditPolicy(rate=rate, segments=4, audited=2, miss_rate=0.01) for rate in (0.5, 0.02))
    assert deterrence(1.0, newcomer, at_stake=CASE_TAKES).gain < 0 < deterrence(1.0, old_hand, at_stake=CASE_TAKES).gain
    assert 0.35 < needed_rate(miss_rate=0.01) < 0.36
