"""Who passes the gate, and what an accepted contribution is worth."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.protocol.spec import EncodingSpec
from trainer.scoring.agreement import SAME
from trainer.scoring.quality import SLACK, Score, carried, expectations, falls_short, in_doubt, passes_gate, qualities

improvements = st.dictionaries(st.integers(1, 2**32 - 1), st.floats(-10, 10), min_size=1, max_size=20)


def score(before: float, after: float) -> Score:
    return Score(before, after, before - after)


@pytest.mark.parametrize(
    ("before", "after", "tolerance", "passes"),
    [
        (2.0, 1.5, 0.0, True),
        (2.0, 2.0 + SLACK, 0.0, True),
        (2.0, 2.01 + SLACK, 0.0, False),
        (2.0, 2.09 + SLACK, 0.05, True),
        (2.0, 2.11 + SLACK, 0.05, False),
        (0.08, 0.08 + 0.042, 0.01, True),
        (2.0, float("inf"), 1.0, False),
        (2.0, float("nan"), 1.0, False),
    ],
)
def test_the_gate_refuses_what_raises_the_loss_beyond_tolerance_and_slack(before, after, tolerance, passes):
    assert passes_gate(score(before, after), tolerance) is passes


def test_a_contribution_earns_half_for_work_and_the_rest_for_its_share_of_the_median():
    assert qualities({1: 0.10, 2: 0.10, 3: 0.04, 4: 0.0, 5: -0.3, 6: 0.2, 7: 0.1}, {}) == {
        1: 10_000, 2: 10_000, 3: 7_500, 4: 5_000, 5: 5_000, 6: 10_000, 7: 10_000,
    }  # fmt: skip


def test_without_a_positive_median_nobody_is_told_apart_from_noise():
    assert qualities({1: -0.1, 2: -0.01, 3: 0.2}, {}) == dict.fromkeys((1, 2, 3), 10_000)
    assert qualities({1: 0.0}, {}) == {1: 10_000} and qualities({}, {}) == {}


@given(scores=improvements)
def test_every_quality_lies_between_half_and_whole_and_better_work_never_earns_less(scores):
    points = qualities(scores, {})
    assert points.keys() == scores.keys()
    assert all(5_000 <= value <= 10_000 and type(value) is int for value in points.values())
    ranked = sorted(scores, key=lambda node: scores[node])
    assert [points[node] for node in ranked] == sorted(points.values())


@given(scores=improvements, others=st.randoms())
def test_the_order_of_the_nodes_does_not_matter(scores, others):
    items = list(scores.items())
    others.shuffle(items)
    assert qualities(dict(items), {}) == qualities(scores, {})


def test_quality_needs_no_torch():
    """Verifiers and web processes recompute pay without it."""
    code = "import sys, trainer.scoring.quality; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def found(*improvements: float, error: float = 0.01) -> dict[int, Score]:
    return {node: Score(2.0, 2.0 - improvement, improvement, error) for node, improvement in enumerate(improvements)}


def test_who_improves_far_less_than_the_round_falls_short():
    assert falls_short(found(0.20, 0.22, 0.18, 0.0, -0.1), {}) == {3: 0.18, 4: 0.18}
    assert falls_short(found(0.20, 0.22, 0.18, 0.06, 0.1), {}) == {}


def test_near_convergence_nobody_falls_short():
    assert falls_short(found(0.01, 0.02, -0.01, 0.015, -0.02), {}) == {}
    assert falls_short(found(-0.2, -0.3, -0.1, -0.5, 0.1, error=0.0), {}) == {}


def test_of_two_none_is_judged_by_the_other():
    assert falls_short(found(0.2, -0.2), {}) == {}


def test_less_is_expected_of_who_was_ordered_less_and_more_of_nobody():
    expected = expectations({0: 100, 1: 100, 2: 25, 3: 400, 4: 0})
    assert expected == {0: 1.0, 1: 1.0, 2: 0.0625, 3: 1.0, 4: 0.0}
    scores = {0: 0.2, 1: 0.2, 2: 0.011, 3: 0.3}
    assert qualities(scores, {})[2] < 7_000 and qualities(scores, expected) == dict.fromkeys(scores, 10_000)
    half = expectations({0: 100, 1: 100, 2: 50, 3: 100})
    few = found(0.2, 0.2, 0.02, 0.3, error=0.001)
    assert falls_short(few, {}) == {2: 0.2} and falls_short(few, half) == {}
    assert falls_short(found(0.2, 0.2, 0.005, 0.3, error=0.001), half) == {2: 0.05}


def test_of_whom_next_to_nothing_is_expected_nothing_is_held_against():
    scores = found(0.2, 0.2, -0.01, 0.3, error=0.001)
    assert falls_short(scores, expectations({0: 100, 1: 100, 2: 25, 3: 400})) == {}
    assert not in_doubt(scores, expectations({0: 100, 1: 100, 2: 25, 3: 400}), 0.01)


def test_what_an_encoding_carries_at_once():
    assert carried(EncodingSpec(kind="int4")) == 1.0
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).square().sort(descending=True).values
    for k in (64, 512):
        part = float(values[: round(k / 4096 * 100_000)].sum() / values.sum())
        assert carried(EncodingSpec(kind="topk", k=k)) == pytest.approx(part, rel=0.02)


@given(scores=st.dictionaries(st.integers(1, 20), st.tuples(st.floats(-1, 1), st.floats(0, 0.5)), min_size=1, max_size=9))
def test_who_falls_short_was_in_doubt(scores):
    scored = {node: Score(2.0, 2.0 - gain, gain, error) for node, (gain, error) in scores.items()}
    assert in_doubt(scored, {}, 0.01) or not falls_short(scored, {})


def test_only_what_surely_improves_by_the_share_is_beyond_doubt():
    assert not in_doubt({node: Score(2.0, 1.9, 0.1, 0.02) for node in (1, 2, 3)}, {}, 0.01)
    assert in_doubt({1: Score(2.0, 1.9, 0.1, 0.02), 2: Score(2.0, 1.9, 0.1, 0.02), 3: Score(2.0, 1.9, 0.1, 0.03)}, {}, 0.01)
    # Of two none is judged by the other, but each by the gate: 0.07 nats may be lost here.
    assert not in_doubt({1: Score(2.0, 2.0, 0.0, 0.02), 2: Score(2.0, 1.9, 0.1, 0.05)}, {}, 0.01)
    assert in_doubt({1: Score(2.0, 2.0, 0.0, 0.03), 2: Score(2.0, 1.9, 0.1, 0.05)}, {}, 0.01)
    assert in_doubt({1: Score(2.0, 2.2, -0.2, 0.001)}, {}, 0.01)


near = st.floats(-SAME, SAME)


@given(
    scores=st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(0, 0.02), near, near, near), min_size=1, max_size=6),
    parts=st.lists(st.floats(0.1, 1.0), min_size=6, max_size=6), loss=st.floats(0.1, 5.0),
)  # fmt: skip
def test_what_is_in_doubt_on_one_machine_is_nearly_so_on_another(scores, parts, loss):
    expected = dict(enumerate(parts))
    one = {node: Score(loss, loss - gain, gain, error) for node, (gain, error, *_) in enumerate(scores)}
    other = {
        node: Score(loss + before, loss - gain, gain + more, max(0.0, error + wider))
        for node, (gain, error, before, more, wider) in enumerate(scores)
    }
    assert not in_doubt(one, expected, 0.01) or in_doubt(other, expected, 0.01, rounding=SAME)


def test_a_median_about_nothing_is_in_doubt_for_all_or_for_none():
    one = dict.fromkeys(range(3), Score(1.0, 1.0, SAME / 2, 0.01))
    other = dict.fromkeys(range(3), Score(1.0, 1.0, -SAME / 2, 0.01))
    assert in_doubt(one, {}, 0.01) and in_doubt(other, {}, 0.01, rounding=SAME) and not in_doubt(other, {}, 0.01)
