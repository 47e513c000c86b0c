"""Health: who takes part with how much, and the way back."""

from __future__ import annotations

import dataclasses

import pytest

from tests.trainer.network.test_network_policy import fact
from trainer.network.facts import Measure, Reason
from trainer.network.health import HealthSettings, Standing, assess, score_of

SETTINGS = HealthSettings()


def test_the_score_is_the_weighted_sum():
    node = dataclasses.replace(fact(0, 4.0), reliability=0.9, quality=0.5, uptime=0.6, loss=Measure(value=0.1))
    expected = 0.4 * 0.5 + 0.3 * 0.9 * 0.9 + 0.2 * 0.5 + 0.1 * 0.6
    assert score_of(node, median_speed=8.0, settings=SETTINGS) == pytest.approx(expected)
    assert score_of(fact(0, 80.0), median_speed=8.0, settings=SETTINGS) == pytest.approx(1.0)


def test_a_newcomer_takes_part_and_so_does_a_slow_machine():
    assert assess(fact(0, 1e-9, source="assumed"), None, round=0, median_speed=8.0).level == "normal"
    assert assess(fact(0, 0.5), None, round=0, median_speed=8.0).level == "normal"
    assert assess(fact(0), None, round=0, median_speed=8.0).level == "high"


def ill(reliability: float = 0.0) -> object:
    return dataclasses.replace(fact(0, 0.5), reliability=reliability, quality=0.5, uptime=0.5)


def run(kept: list[bool]) -> list[Standing]:
    """Standings round by round of a node that is ill, whose orders are kept or not as `kept` says, when it has one."""
    found: list[Standing] = []
    outcomes = iter(kept)
    last: bool | None = None
    for number in range(60):
        standing = assess(ill(), found[-1] if found else None, round=number, median_speed=8.0, kept=last)  # type: ignore[arg-type]
        found.append(standing)
        last = None if standing.level == "excluded" else next(outcomes, None)
        if last is None and standing.level != "excluded":
            break
    return found


def test_nobody_is_left_out_unseen_and_each_time_for_twice_as_long():
    found = run([False] * 4)
    spells = [len(spell) for spell in "".join("x" if one.level == "excluded" else "." for one in found).split(".") if spell]
    assert found[0].level == "probation" and spells == [2, 4, 8, 16]
    assert "Left out until round" in found[1].reason.text and found[1].reason.code == "health.excluded"


def test_on_probation_it_stays_while_it_keeps_its_orders_and_recovery_forgets():
    found = run([True] * 5)
    assert {one.level for one in found} == {"probation"}
    before = Standing(level="probation", score=0.2, exclusions=3, reason=found[0].reason)
    well = assess(dataclasses.replace(fact(0), reliability=0.8), before, round=9, median_speed=8.0, kept=True)
    assert well.level == "high" and well.exclusions == 0
    low = assess(dataclasses.replace(fact(0, 0.5), reliability=0.3, quality=0.5), before, round=9, median_speed=8.0, kept=True)
    assert low.level == "low" and low.exclusions == 3
    longest = assess(ill(), dataclasses.replace(before, exclusions=50), round=9, median_speed=8.0, kept=False)  # type: ignore[arg-type]
    assert longest.until == 9 + SETTINGS.most_rounds


def test_probation_says_since_when_it_is():
    out = Standing(level="excluded", score=0.2, until=5, exclusions=1, reason=Reason(code="health.excluded", text=""))
    first = assess(ill(), out, round=7, median_speed=8.0, kept=False)  # type: ignore[arg-type]
    later = assess(ill(), first, round=9, median_speed=8.0, kept=None)  # type: ignore[arg-type]
    assert (first.level, first.until) == (later.level, later.until) == ("probation", 7)
    assert assess(ill(), None, round=3, median_speed=8.0).until == 3  # type: ignore[arg-type]
