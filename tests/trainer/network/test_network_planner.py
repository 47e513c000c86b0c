"""Proposals for a job, and its learning curve."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from tests.trainer.network.test_network_policy import COUNT, SPEC, fact
from trainer.network.curve import rounds_to_target
from trainer.network.planner import Span, forecast, propose
from trainer.protocol.spec import RoundSpec, TargetSpec, parse_spec

JOB = SPEC.model_copy(update={"target": TargetSpec(metric="loss", value=1.2), "rounds": RoundSpec(rounds=50, nodes=4, quorum=2)})
CHEAP = [dataclasses.replace(fact(node, 4.0), rate=10) for node in range(4)]
FAST = [dataclasses.replace(fact(node + 4, 16.0), rate=30) for node in range(4)]


def curve(number: int, *, noise: float = 0.0, chance: random.Random | None = None) -> float:
    return (1 + 2 * number**-0.7) * (1 + (chance.gauss(0, noise) if chance else 0))


def test_the_curve_finds_when_a_power_law_meets_the_target():
    found = rounds_to_target(JOB, [(number, curve(number)) for number in range(1, 16)])
    assert found.known and found.expected == pytest.approx(10 ** (1 / 0.7), rel=0.05)
    accuracy = JOB.model_copy(update={"target": TargetSpec(metric="accuracy", value=0.9)})
    found = rounds_to_target(accuracy, [(number, 1 - 0.5 / number) for number in range(1, 5)] + [(5, 0.88), (6, 0.89)])
    assert found.low >= 6


def test_its_interval_holds_the_truth_nine_times_of_ten():
    chance, held = random.Random(1), 0
    truth = (2 / 0.3) ** (1 / 0.7)
    job = JOB.model_copy(update={"target": TargetSpec(metric="loss", value=1.3)})
    for _ in range(100):
        found = rounds_to_target(job, [(number, curve(number, noise=0.02, chance=chance)) for number in range(1, 11)])
        held += found.low <= truth <= (math.inf if found.high is None else found.high)
    assert held >= 90


def test_what_is_not_known_is_said():
    nothing = rounds_to_target(JOB, [])
    assert (nothing.expected, nothing.high, nothing.known) == (50, None, False)
    flat = rounds_to_target(JOB, [(number, 2.0 + 0.01 * number) for number in range(1, 12)])
    assert not flat.known and flat.high is None and "not improve" in flat.basis
    never = rounds_to_target(JOB, [(number, 1.5 + 2 * number**-1.5) for number in range(1, 30)])
    assert never.high is None
    assert rounds_to_target(JOB, [(1, 2.0), (2, 1.1)]).expected == 2


def test_least_time_takes_the_fast_and_least_price_the_cheap():
    quick, cheap = (propose(CHEAP + FAST, JOB, count=COUNT, goal=goal)[0] for goal in ("time", "price"))
    assert quick.nodes == (4, 5, 6, 7) and set(cheap.nodes) <= {0, 1, 2, 3}
    assert quick.seconds.expected < cheap.seconds.expected and quick.price.expected > cheap.price.expected
    assert quick.round_price == 4 * 40 * 8 * 30 and quick.seconds.high is None
    assert quick.changes == () and quick.spec == JOB
    assert quick.rounds.expected == 50 and "Its 50 rounds" in quick.reasons[0].text
    assert propose(CHEAP[:1], JOB, count=COUNT, goal="time") == []


def test_a_job_that_is_still_to_be_written_may_change_steps_and_density():
    slow = [dataclasses.replace(one, up=dataclasses.replace(one.up, value=2e5)) for one in CHEAP]
    found = propose(slow, JOB, count=COUNT, goal="time", free=True)
    assert {"inner.steps 20", "inner.steps 80"} <= {change for one in found for change in one.changes}
    assert found[0].seconds.expected <= min(one.seconds.expected for one in found if not one.changes)


def test_a_change_that_saves_next_to_nothing_is_not_advised():
    one_step = JOB.model_copy(update={"inner": JOB.inner.model_copy(update={"steps": 1})})
    found = propose(CHEAP, one_step, count=10_000, goal="time", free=True)
    assert found[0].changes == () and min(one.seconds.expected for one in found) < found[0].seconds.expected
    found = propose(CHEAP, one_step, count=3_000_000, goal="time", free=True)
    assert found[0].changes and all(one.seconds.expected > 1.05 * found[0].seconds.expected for one in found if not one.changes)


def test_what_a_job_would_need_is_written_into_it():
    """Half the steps want more rounds, and a job does as many as it says."""
    for one in propose(CHEAP + FAST, JOB, count=COUNT, goal="price", free=True):
        assert one.spec.rounds.nodes == len(one.nodes) and one.spec.rounds.rounds == math.ceil(one.rounds.expected)
        assert (one.spec == JOB) == (one.changes == ())


def test_the_least_price_is_that_of_those_in_time_and_it_says_when_none_is():
    options = propose(CHEAP + FAST, JOB, count=COUNT, goal="price")
    cheap, quick = options[0], min(options, key=lambda one: one.seconds.expected)
    deadline_s = (cheap.seconds.expected + quick.seconds.expected) / 2
    found = propose(CHEAP + FAST, JOB, count=COUNT, goal="price", deadline_s=deadline_s)
    in_time = [one for one in found if one.in_time]
    assert found[: len(in_time)] == in_time and cheap.nodes not in [one.nodes for one in in_time]
    assert found[0].price.expected == min(one.price.expected for one in in_time) > cheap.price.expected
    assert "before the deadline, but nothing bounds" in found[0].reasons[-1].text
    none = propose(CHEAP + FAST, JOB, count=COUNT, goal="price", deadline_s=1.0)
    assert not any(one.in_time for one in none) and none[0].nodes == quick.nodes
    assert none[0].reasons[-1].code == "planner.deadline" and "too late" in none[0].reasons[-1].text


def test_a_forecast_is_of_the_rounds_that_are_written():
    seen = forecast(FAST, JOB, count=COUNT, overhead=Span(expected=1.0, low=0.5, high=5.0))
    assert seen is not None and seen.nodes == (4, 5, 6, 7) and seen.rounds.expected == 50 and seen.round_s.expected > 1.0
    assert forecast([], JOB, count=COUNT) is None
    assert seen.price.expected == 50 * seen.round_price and seen.seconds.expected == 50 * seen.round_s.expected


def test_what_is_in_doubt_of_nodes_and_between_rounds_widens_a_round_and_the_whole():
    between = Span(expected=1.0, low=0.5, high=5.0)

    def lasting(**changes: float) -> Span:
        seen = forecast([dataclasses.replace(one, **changes) for one in FAST], JOB, count=COUNT, overhead=between)
        assert seen is not None and seen.seconds.low == pytest.approx(seen.rounds.low * seen.round_s.low)
        assert 0 < seen.round_s.low < seen.round_s.expected < (seen.round_s.high or 0.0)
        return seen.round_s

    sure, unsure = lasting(), lasting(overhead_s=2.0, overhead_doubt_s=2.0)
    assert unsure.expected > sure.expected + 1.5
    assert (unsure.high or 0.0) - unsure.low > (sure.high or 0.0) - sure.low + 1.0 > 5.5


def test_more_seen_rounds_bound_the_answer():
    seen = [(number, curve(number)) for number in range(1, 16)]
    best = propose(CHEAP, JOB, count=COUNT, goal="time", seen=seen)[0]
    assert best.rounds.high is not None and best.rounds.low <= best.rounds.expected <= best.rounds.high
    assert best.rounds.expected == pytest.approx(10 ** (1 / 0.7) - 15, rel=0.1)
    assert best.seconds.expected == pytest.approx(best.rounds.expected * best.round_s.expected)


@pytest.mark.parametrize("changes", [{"rounds": RoundSpec(rounds=60_000, nodes=4, quorum=2)}, {"inner": {"steps": 8_000}}])
def test_what_may_not_be_written_is_not_proposed(changes):
    job = parse_spec(JOB.model_copy(update=changes).model_dump(mode="json", warnings=False))
    found = propose(CHEAP + FAST, job, count=COUNT, goal="price", free=True)
    assert found and all(parse_spec(one.spec.model_dump(mode="json")) == one.spec for one in found)
    assert {one.spec.rounds.rounds for one in found} <= set(range(1, 100_001))
