"""Plans of rounds: all finish together within the budget, links are fitted, and every decision says why."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.network.facts import Measure, NodeFacts
from trainer.network.health import Standing
from trainer.network.policy import Ahead, Late, Reason, Settings, plain, plan_round
from trainer.network.predict import Prediction
from trainer.network.steps import Pace, best_rounds, finish_together
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec, NetworkSpec, RoundSpec

COUNT = 10_000_000
SPEC = JobSpec(inner=InnerSpec(steps=40, batch_size=8), rounds=RoundSpec(nodes=8, quorum=2, deadline_seconds=86_400))
LINK = {"up": 1e7, "down": 1e7, "rtt_s": 0.01}


def fact(node_id: int, samples_per_second: float = 8.0, *, source: Any = "work", **changes: Any) -> NodeFacts:
    values = {"samples_per_second": samples_per_second} | {name: changes.pop(name, value) for name, value in LINK.items()}
    measures = {name: Measure(value=value, source=source, samples=9) for name, value in values.items()}
    return NodeFacts(node_id=node_id, **measures | changes)


def changed(**network: Any) -> JobSpec:
    return SPEC.model_copy(update={"network": NetworkSpec(**network)})


EAGER = changed(overlap="eager")

nodes = st.lists(
    st.builds(
        lambda speed, up, rtt: (speed, up, rtt),
        st.floats(0.05, 100), st.floats(1e4, 1e9), st.floats(0, 2),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(nodes, st.floats(0.05, 1), st.floats(1, 8), st.integers(1, 100))
@settings(max_examples=150, deadline=None)
def test_a_plan_never_orders_more_than_the_jobs_steps_and_keeps_its_bounds(found, least, most, steps):
    spec = changed(least_steps=least, most_steps=most)
    spec = spec.model_copy(update={"inner": InnerSpec(steps=steps, batch_size=8)})
    facts = [fact(node, speed, up=up, rtt_s=rtt) for node, (speed, up, rtt) in enumerate(found)]
    plan = plan_round(facts, spec, count=COUNT)
    ordered = [part.steps for part in plan.parts.values()]
    assert {*plan.parts, *plan.excluded} == set(range(len(facts))) and sum(ordered) <= len(facts) * steps
    assert all(math.ceil(least * steps) <= one <= math.floor(most * steps) for one in ordered)
    assert all(part.reasons and part.predicted for part in plan.parts.values())
    awaited = len(plan.awaited)
    assert math.ceil(len(facts) / 2) <= awaited and math.ceil(2 * awaited / 3) <= plan.quorum <= awaited
    assert plan.deadline_s is not None and 0 < plan.deadline_s <= spec.rounds.deadline_seconds
    assert plan == plan_round(facts[::-1], spec, count=COUNT)


leads = st.lists(st.builds(Ahead, seconds=st.floats(0, 500), steps=st.integers(1, 160)), min_size=12, max_size=12)


@given(nodes, leads)
@settings(max_examples=100, deadline=None)
def test_whoever_is_ahead_the_steps_stay_within_the_budget(found, ahead):
    facts = [fact(node, speed, up=up, rtt_s=rtt) for node, (speed, up, rtt) in enumerate(found)]
    plan = plan_round(facts, SPEC, count=COUNT, ahead=dict(enumerate(ahead)))
    assert sum(part.steps for part in plan.parts.values()) <= len(facts) * SPEC.inner.steps
    assert all(part.predicted and part.predicted.total_s > 0 for part in plan.parts.values())


def test_who_has_begun_ahead_has_only_the_rest_to_do():
    facts = [fact(0), fact(1), fact(2), fact(3, up=1e6, rtt_s=0.3)]
    waiting = plan_round(facts, SPEC, count=COUNT).parts
    seconds = {0: 15.0, 1: 15.0, 2: 15.0, 3: 25.0}
    begun = {node: Ahead(seconds=one, steps=40) for node, one in seconds.items()}
    ahead = plan_round(facts, SPEC, count=COUNT, ahead=begun).parts
    assert waiting[3].steps < waiting[0].steps < ahead[3].steps and sum(part.steps for part in ahead.values()) == 160
    ends = [part.predicted.total_s for part in ahead.values()]
    assert max(ends) - min(ends) < 1.5, "a step takes a second"
    assert ahead[0].predicted.compute_s == pytest.approx(ahead[0].steps - 15 - ahead[0].predicted.fetch_s)


def test_no_order_is_of_fewer_steps_than_its_node_has_done_in_advance():
    facts = [*(fact(node, down=5e5) for node in range(3)), fact(3, down=5e5, up=4e5)]
    seconds = {0: 35.0, 1: 35.0, 2: 35.0, 3: 33.0}
    plan = plan_round(facts, EAGER, count=COUNT, ahead={node: Ahead(seconds=one, steps=60) for node, one in seconds.items()})
    assert plan.parts[3].steps == 35, "done as it hears of its order, to the border of a segment; it sends for so much longer"
    assert sum(part.steps for part in plan.parts.values()) == 160


def test_a_node_that_has_stopped_for_want_of_its_base_is_no_farther_than_that():
    stopped, going = Ahead(seconds=20.0, steps=20), Ahead(seconds=20.0, steps=60)
    facts = [fact(node, down=2.5e5) for node in range(2)]
    parts = plan_round(facts, EAGER, count=COUNT, ahead={0: stopped, 1: going}).parts
    assert parts[0].predicted.compute_s == parts[0].steps - 20
    assert parts[1].steps - parts[0].steps == pytest.approx(parts[0].predicted.fetch_s, abs=1)


@pytest.mark.parametrize(("down", "kept"), [(1e6, 1), (2e5, 8), (1e5, 16)])
def test_an_upload_may_take_most_of_what_the_outer_step_leaves_free(down, kept):
    """Int4 files of 5 MB each way in a round of 40 s, 20 s up: `kept` is one value of so many."""
    plan = plan_round([fact(node, down=down, up=2.5e5) for node in range(3)], EAGER, count=COUNT)
    encoding = plan.parts[0].encoding
    assert (1 if encoding.kind == "int4" else encoding.chunk // encoding.k) == kept


paces = st.lists(
    st.builds(
        Pace, transfer_us=st.integers(0, 1000), step_us=st.integers(1, 100), least=st.integers(1, 5), most=st.integers(5, 30)
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(paces, st.integers(0, 25))
def test_no_other_division_of_the_steps_ends_sooner(found, more):
    budget = sum(pace.least for pace in found) + more
    steps = finish_together(found, budget=budget)
    assert sum(steps) == min(budget, sum(pace.most for pace in found))
    greedy = [pace.least for pace in found]
    for _ in range(sum(steps) - sum(greedy)):
        could = [place for place, pace in enumerate(found) if greedy[place] < pace.most]
        greedy[min(could, key=lambda place: (found[place].transfer_us + (greedy[place] + 1) * found[place].step_us, place))] += 1
    assert steps == greedy


def test_all_finish_together_and_the_sum_is_the_jobs():
    plan = plan_round([fact(0, 8), fact(1, 4), fact(2, 2), fact(3, 8, up=1e6, rtt_s=0.3)], SPEC, count=COUNT)
    ends = [part.predicted.total_s for part in plan.parts.values() if part.predicted]
    steps = {node: part.steps for node, part in plan.parts.items()}
    assert sum(steps.values()) == 4 * 40
    assert max(ends) - min(ends) <= 8 / 2 + 0.01  # a step of the slowest machine
    assert steps[0] > steps[1] > steps[2]


def test_bounds_hold_and_say_so():
    plan = plan_round([fact(0, 80), fact(1, 8), fact(2, 8), fact(3, 0.1)], changed(most_stale=0), count=COUNT)
    assert (plan.parts[0].steps, plan.parts[3].steps) == (126, 10) and sum(part.steps for part in plan.parts.values()) == 160
    assert codes(plan.parts[3].reasons)[0] == "steps.least" and "0.1 samples/s (work)" in plan.parts[3].reasons[0].text
    tight = plan_round([fact(0, 80), fact(1, 8), fact(2, 8)], changed(most_steps=1.5), count=COUNT)
    assert tight.parts[0].steps == 60 and codes(tight.parts[0].reasons)[0] == "steps.most"


def codes(reasons: tuple[Reason, ...]) -> list[str]:
    return [reason.code for reason in reasons]


def test_nobody_is_given_more_than_it_sold_nor_all_more_than_the_budget():
    facts = [fact(0, 80), fact(1, 8), fact(2, 8)]
    free = plan_round(facts, SPEC, count=COUNT)
    sold = plan_round(facts, SPEC, count=COUNT, limits={0: SPEC.inner.steps})
    assert free.parts[0].steps > SPEC.inner.steps == sold.parts[0].steps
    tight = plan_round(facts, SPEC, count=COUNT, budget=2 * SPEC.inner.steps)
    assert sum(part.steps for part in tight.parts.values()) == 2 * SPEC.inner.steps
    assert plan_round(facts, changed(policy="equal"), count=COUNT, limits={1: 3}).parts[1].steps == 3


def test_a_round_that_would_pass_the_jobs_deadline_gets_fewer_steps():
    spec = SPEC.model_copy(update={"rounds": RoundSpec(nodes=4, quorum=2, deadline_seconds=20)})
    plan = plan_round([fact(node) for node in range(4)], spec, count=100_000)
    assert {part.steps for part in plan.parts.values()} == {15}  # 0.8 * 20 s at a step a second, less the transfers
    assert plan.deadline_s is not None and plan.deadline_s <= 20


def test_links_get_what_they_carry_and_never_more_than_the_jobs_own():
    facts = [fact(0), fact(1, up=2e5), fact(2, up=5e4), fact(3, up=3e4)]
    kinds = {node: part.encoding for node, part in plan_round(facts, SPEC, count=COUNT).parts.items()}
    assert kinds[0] == SPEC.encoding
    assert [kinds[node].k for node in (1, 2, 3) if kinds[node].kind == "topk"] == [256, 64, 64]
    sparse = SPEC.model_copy(update={"encoding": EncodingSpec(kind="topk", k=128, error_decay=0.95)})
    found = plan_round(facts, sparse, count=COUNT).parts
    assert [found[node].encoding.k for node in range(4)] == [128, 128, 64, 64]
    assert {part.encoding.error_decay for part in found.values()} == {0.95}
    wide = plan_round(
        [fact(0), fact(1, up=5e6)], SPEC.model_copy(update={"encoding": EncodingSpec(kind="bf16")}), count=COUNT
    ).parts
    assert (wide[0].encoding.kind, wide[1].encoding.kind) == ("bf16", "int8")


def test_an_encoding_stays_while_the_link_wavers_and_goes_when_it_must():
    kind, used, history = "int4", [], None
    for up in (1.30e6, 1.15e6, 1.30e6, 0.9e6, 1.30e6, 1.7e6, 2.2e6):
        plan = plan_round([fact(0, up=up)], SPEC, count=COUNT, before={0: history} if history else None)
        history = plan.parts[0].encoding
        used.append(history.kind)
    assert used == [kind, kind, kind, "topk", "topk", "topk", kind]


def test_equal_is_equal_and_says_so():
    plan = plan_round([fact(0, 8), fact(1, 1, up=1e3)], changed(policy="equal"), count=COUNT)
    assert {(part.steps, part.encoding) for part in plan.parts.values()} == {(40, SPEC.encoding)}
    assert (plan.quorum, plan.deadline_s, codes(plan.reasons)) == (2, 86_400, ["policy.equal"])
    assert plan.parts[1].predicted is not None and plan.parts[1].predicted.total_s > 5000
    assert plain([fact(0), fact(1)], SPEC).deadline_s is None


def standing(level: Any, score: float) -> Standing:
    return Standing(level=level, score=score, reason=Reason(code=f"health.{level}", text=""))


def test_health_takes_steps_away_but_never_the_quorum():
    facts = [fact(node) for node in range(4)]
    plan = plan_round(facts, SPEC, count=COUNT, standings={0: standing("excluded", 0.1), 1: standing("low", 0.4)})
    assert plan.excluded == {0: Reason(code="health.excluded", text="")} and set(plan.parts) == {1, 2, 3}
    assert plan.parts[1].steps == 20 and plan.parts[2].steps == plan.parts[3].steps == 50
    every = {node: standing("excluded", 0.1 * node) for node in range(4)}
    kept = plan_round(facts, SPEC, count=COUNT, standings=every)
    assert set(kept.parts) == {2, 3} and {part.steps for part in kept.parts.values()} == {10}


def test_a_node_without_a_link_has_no_part():
    plan = plan_round([fact(0), fact(1, up=0.0)], SPEC, count=COUNT)
    assert set(plan.parts) == {0} and plan.excluded[1].code == "node.no_link"
    nobody = plan_round([fact(1, up=0.0)], SPEC, count=COUNT)
    assert nobody.parts == {} and set(nobody.excluded) == {1}


def test_what_a_node_must_fetch_is_time_in_which_it_does_not_compute():
    facts = [fact(node) for node in range(4)]
    plan = plan_round(facts, SPEC, count=COUNT, fetch_bytes={3: 4.0 * COUNT}, settings=Settings())
    assert plan.parts[3].steps < plan.parts[0].steps
    ends = [part.predicted.total_s for part in plan.parts.values() if part.predicted]
    assert max(ends) - min(ends) <= 1.01
    assert plan.parts[3].predicted and plan.parts[3].predicted.fetch_s == pytest.approx(4.01)


def test_values_that_nobody_measured_widen_the_margin():
    known = plan_round([fact(node) for node in range(4)], SPEC, count=COUNT)
    guessed = plan_round([fact(node, source="assumed" if node == 3 else "work") for node in range(4)], SPEC, count=COUNT)
    assert codes(guessed.parts[3].reasons)[-1] == "facts.assumed"
    assert guessed.parts[3].predicted and known.parts[3].predicted
    assert guessed.parts[3].predicted.doubt_s > 5 * known.parts[3].predicted.doubt_s


def test_who_does_not_go_with_the_others_synchronises_less_often_and_does_more_each_time():
    facts = [fact(node) for node in range(4)]
    slow = plan_round([*facts, fact(4, 1.0)], SPEC, count=COUNT)
    assert slow.awaited == {0, 1, 2, 3} and slow.quorum == 3
    part, others = slow.parts[4], slow.parts[0].predicted
    assert part.rounds == 2 and codes(part.reasons)[0] == "steps.several_rounds" and "every 2 rounds" in part.reasons[0].text
    assert part.predicted and others and others.total_s < part.predicted.total_s < 2 * others.total_s
    assert sum(one.steps for one in slow.parts.values()) == 5 * 40
    far = [plan_round([*facts, fact(4, rtt_s=rtt)], SPEC, count=COUNT).parts[4] for rtt in (0.1, 8, 18, 20, 30)]
    assert [one.rounds for one in far] == [1, 1, 2, 2, 2]
    assert far[1].steps < far[2].steps <= 40
    at_once = plan_round([*facts, fact(4, rtt_s=18)], changed(most_stale=0), count=COUNT).parts[4]
    assert at_once.rounds == 1 and at_once.steps < far[2].steps


def test_whose_work_could_never_count_has_no_part_until_its_measures_are_old():
    facts = [fact(node) for node in range(4)]
    plan = plan_round([*facts, fact(4, 0.1)], SPEC, count=COUNT)
    assert plan.excluded[4].code == "node.too_slow" and "801" in plan.excluded[4].text
    assert plan_round([*facts, fact(4, 0.1, source="assumed")], SPEC, count=COUNT).parts[4].rounds == 3
    old = dataclasses.replace(fact(4), samples_per_second=Measure(value=0.1, source="work", age_s=4000))
    assert plan_round([*facts, old], SPEC, count=COUNT).parts[4].steps == 10
    assert set(plan_round([fact(0), fact(1, 0.01)], SPEC, count=COUNT).parts) == {0, 1}  # the quorum is two


def test_a_speed_that_no_order_has_confirmed_gives_no_more_than_the_jobs_own_steps():
    facts = [*(fact(node) for node in range(3)), fact(3, 100.0, source="assumed")]
    plan = plan_round(facts, SPEC, count=COUNT)
    assert plan.parts[3].steps == 40 and plan_round([*facts[:3], fact(3, 100.0)], SPEC, count=COUNT).parts[3].steps > 80


@pytest.mark.parametrize("tried", ["work", "benchmark"])
@pytest.mark.parametrize("claim", [{"source": "benchmark"}, {"source": "work", "claimed": True}])
def test_an_untried_claim_changes_nobody_elses_encoding(tried, claim):
    others = [fact(node, source=tried, up=1e6) for node in range(4)]
    boast = dataclasses.replace(fact(9, up=1e6), samples_per_second=Measure(value=1e9, deviation=5e8, samples=1, **claim))
    before, after = (plan_round(facts, SPEC, count=COUNT).parts for facts in (others, [*others, boast]))
    assert [after[node].encoding for node in range(4)] == [before[node].encoding for node in range(4)]
    assert before[0].encoding.k != 64, "or there would be nothing sparser"


def test_several_rounds_are_not_worth_what_catching_up_takes_over_a_slow_link():
    """An outer step takes 25 s at 200 kB/s, and a part of least steps 64 s."""
    facts = [fact(node) for node in range(4)]
    spec = changed(least_steps=0.4)
    rounds = {down: plan_round([*facts, fact(4, 2.0, down=down)], spec, count=COUNT).parts.get(4) for down in (1e7, 2e5, 1e5)}
    assert [part and part.rounds for part in rounds.values()] == [2, 3, None]


@pytest.mark.parametrize(("missed", "behind", "rounds"), [(3, 100, 2), (11, 4, 2), (11, 100, 4)])
def test_who_has_missed_versions_fetches_the_steps_between_or_the_checkpoint_whichever_is_less(missed, behind, rounds):
    """Its part is 10 us of work at most: what catching up would cost more than that is not worth it (4: more than the most)."""
    slow = Pace(transfer_us=12, step_us=1, least=14, most=100, missed_us=missed, behind_us=behind)
    assert best_rounds(slow, 20, 10, most_rounds=3, discount=0.0) == rounds


def test_in_the_last_round_nobody_waits_for_who_cannot_come_with_the_others():
    facts, spec = [fact(node) for node in range(4)], SPEC
    last = spec.rounds.rounds - 1
    slow = [*facts, fact(4, 1.0)]
    assert plan_round(slow, spec, count=COUNT, number=last - 1).parts[4].rounds == 2
    plan = plan_round(slow, spec, count=COUNT, number=last)
    assert plan.excluded[4].code == "node.too_slow" and "no round follows" in plan.excluded[4].text
    assert sum(part.steps for part in plan.parts.values()) == 4 * 50 - 10, (
        "the others do what it would have done beyond its least"
    )
    assert set(plan_round(slow, changed(most_stale=0), count=COUNT, number=last).parts) == {0, 1, 2, 3, 4}


def test_a_round_of_untried_machines_ends_when_all_would_be_done_by_what_they_claim():
    """Not when the slowest has done the job's own steps: 20 s at 16 samples/s, 160 s at 2."""
    speeds = [16, 12, 12, 8, 8, 4, 4, 2]
    measures = [Measure(value=speed, deviation=speed / 2, source="benchmark", samples=1, claimed=True) for speed in speeds]
    untried = [dataclasses.replace(fact(node), samples_per_second=measure) for node, measure in enumerate(measures)]
    plan = plan_round(untried, SPEC, count=COUNT)
    ends = {node: part.predicted.total_s for node, part in plan.parts.items() if part.predicted}
    assert max(ends.values()) < 60 and max(part.steps for part in plan.parts.values()) == 40
    assert ends[7] == pytest.approx(max(ends.values()), abs=4), "a step of the slowest takes 4 s"
    boast = dataclasses.replace(measures[0], value=1e9, deviation=5e8)
    boasted = plan_round([dataclasses.replace(untried[0], samples_per_second=boast), *untried[1:]], SPEC, count=COUNT)
    assert [part.steps for part in boasted.parts.values()] == [part.steps for part in plan.parts.values()], (
        "no claim is worth more"
    )


def coming(seconds: float, doubt: float = 0.1) -> Late:
    return Late(left=Prediction(fetch_s=0.0, compute_s=seconds, upload_s=0.0, doubt_s=doubt), worth=20.0)


def test_a_round_is_as_long_as_the_late_work_that_it_waits_for_and_waits_only_where_that_pays():
    facts = [fact(node) for node in range(4)]
    alone = plan_round(facts, SPEC, count=COUNT)
    usual = alone.predicted_s
    assert usual == pytest.approx(max(part.predicted.total_s for part in alone.parts.values() if part.predicted))
    soon, later, never = (
        plan_round(facts, SPEC, count=COUNT, late={9: coming(seconds)}) for seconds in (5, usual + 3, 10 * usual)
    )
    assert soon.predicted_s == usual and later.predicted_s == pytest.approx(usual + 3)
    assert "Late work of 1 is expected until 5.0 s." in soon.reasons[0].text
    assert never.predicted_s == never.deadline_s < 1.3 * usual, "it would double the round for a tenth of its work"
    assert never.quorum <= 4
    plan = plan_round(facts, changed(policy="equal"), count=COUNT, late={9: coming(10 * usual)})
    assert plan.predicted_s == pytest.approx(10 * usual), "equal parts are waited for"
