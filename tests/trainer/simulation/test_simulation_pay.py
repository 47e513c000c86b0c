"""Pay by the product's rules, and what chance leaves of it."""

from __future__ import annotations

import pytest

from trainer.protocol.spec import AuditSpec
from trainer.simulation.attackers import ONE_SEGMENT
from trainer.simulation.pay import earned, kept
from trainer.simulation.rounds import Row


def row(number: int, units: dict[int, int], qualities: dict[int, int]) -> Row:
    rest = {"seconds": 0.0, "loss": 1.0, "accuracy": 0.0, "samples": 0, "sent": 0.0, "received": 0.0, "busy": 0.0}
    return Row(round=number, units=units, qualities=qualities, **rest)


def test_a_round_pays_units_times_quality_and_nothing_for_a_refused_contribution():
    rows = [row(0, {1: 160, 2: 80}, {1: 10_000, 2: 5_000}), row(1, {1: 160}, {1: 7_500})]
    assert earned(rows, 1) == [160, 120] and earned(rows, 2) == [40] and earned(rows, 3) == []


def test_what_audits_leave_against_cases_by_hand():
    spec = AuditSpec(rate=0.1, newcomer_rate=0.5, newcomer_rounds=1, segments=1)
    # All false: seen with 0.5 in the first round, with 0.1 in the second; kept only if never seen.
    found = kept([100, 60], spec, steps=20, false=1.0)
    assert found.pay == pytest.approx(0.5 * 0.9 * 160)
    assert found.net == pytest.approx(found.pay - 0.5 * 100 - 0.5 * 0.1 * 160)
    # One of four segments of five steps is false: a quarter of that chance.
    assert kept([100], spec, steps=20, false=ONE_SEGMENT).pay == pytest.approx(100 * (1 - 0.125))
    assert kept([100], spec, steps=20, false=0.5).pay == pytest.approx(100 * (1 - 0.25))
    assert kept([100], spec, steps=20, false=0.0) == (100, 100)
    assert kept([], spec, steps=20, false=1.0) == (0, 0)
