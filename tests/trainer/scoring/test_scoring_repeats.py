"""Work of earlier rounds, and what is made of it, is not taken for this round's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.protocol.rounds import Submission
from trainer.protocol.spec import EncodingSpec
from trainer.scoring.repeats import PLACES, Work, beyond, drawn_places, find_nothing_new, find_repeats

SIZE = 4000


def vector(*seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(hash(seed)))


def mixed(*parts: tuple[float, torch.Tensor]) -> torch.Tensor:
    return sum(share * one for share, one in parts)


COMMON = {number: vector(number) for number in range(4)}
"""What all honest work of a round has in common; something of it is that of the rounds before."""
PAST = mixed((1, COMMON[0]), (0.1, vector(9)))
"""The last aggregate."""


def honest(node: int, number: int = 1, *, seed: int = 0) -> torch.Tensor:
    return mixed((0.8, COMMON[number]), (0.7, COMMON[0]), (0.7, vector(node, number, seed)))


def work(node: int, values: torch.Tensor, number: int = 1, *, units: int = 100) -> Work:
    asked = Submission(node_id=node, units=units, artifact="", data=b"", shard=0, seed=0, steps=1, encoding=EncodingSpec())
    return Work(asked, number, values)


ROUND = [work(node, honest(node)) for node in range(6)]
BEFORE = [work(node, honest(node, 0), 0) for node in range(6)]


def test_honest_work_is_no_repeat_and_has_something_new():
    assert find_repeats(ROUND, BEFORE) == {} and find_nothing_new(ROUND, PAST) == {}
    assert find_repeats([], []) == find_repeats(ROUND, []) == find_nothing_new([], PAST) == find_nothing_new(ROUND, None) == {}


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_what_another_has_handed_in_is_found_and_named(noise):
    sent = mixed((3.0, BEFORE[2].values), (3.0 * noise, vector(50)))
    found = find_repeats([*ROUND, work(7, sent)], BEFORE)
    assert list(found) == [7] and found[7].code == "contribution.copy"
    assert found[7].data["node"] == 2 and "node 2 handed in for round 0" in found[7].message


def test_a_nodes_own_earlier_work_is_found_if_it_is_the_same():
    again = [*ROUND[1:], work(0, BEFORE[0].values)]
    assert list(find_repeats(again, BEFORE)) == [0]
    near = [*ROUND[1:], work(0, mixed((1, BEFORE[0].values), (0.1, vector(50))))]  # it has the same samples again
    assert find_repeats(near, BEFORE) == {}


def test_late_work_is_judged_beside_the_round_in_which_it_was_trained():
    """It is as near to that round's as they are to each other, and much nearer than those of the round that is open."""
    alike = [work(node, mixed((1, COMMON[0]), (0.1, vector(node))), 0) for node in range(6)]
    late = work(7, mixed((1, COMMON[0]), (0.1, vector(7))), 0)
    assert find_repeats([*ROUND, late], alike) == {}
    on_time = work(7, late.values)
    assert list(find_repeats([*ROUND, on_time], alike)) == [7]
    copied = work(7, mixed((1, alike[3].values), (0.01, vector(60))), 0)
    assert find_repeats([*ROUND, copied], alike)[7].data["node"] == 3


def test_without_others_of_like_orders_only_the_same_is_a_repeat():
    near = work(7, mixed((1, BEFORE[2].values), (0.1, vector(50))), units=500)
    assert find_repeats([*ROUND, near], BEFORE) == {}
    assert list(find_repeats([*ROUND, work(7, BEFORE[2].values, units=500)], BEFORE)) == [7]


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_noise_over_the_last_aggregate_has_nothing_new(strength):
    cheats = [work(node, mixed((1, PAST), (strength, vector(node)))) for node in (7, 8)]
    found = find_nothing_new([*ROUND, *cheats], PAST)
    assert list(found) == [7, 8] and {error.code for error in found.values()} == {"contribution.nothing_new"}
    assert abs(found[7].data["cosine"]) < 0.1 < found[7].data["usual"]


def test_earlier_work_of_others_has_nothing_new_however_old():
    found = find_nothing_new([*ROUND, work(7, honest(3, 0))], PAST)
    assert list(found) == [7]


def test_nobody_is_judged_by_other_orders_by_too_few_or_where_all_go_their_own_way():
    few = [work(7, mixed((1, PAST), (1, vector(7)))), *(work(node, honest(node)) for node in range(2))]
    assert find_nothing_new(few, PAST) == {}
    assert find_nothing_new([*ROUND, work(7, few[0].values, units=300)], PAST) == {}
    apart = [work(node, mixed((1, PAST), (1, vector(node, 77)))) for node in range(6)]
    assert find_nothing_new([*apart, few[0]], PAST) == {}


def test_what_is_left_beyond_a_vector_is_the_partial_correlation():
    found = beyond([one.values for one in ROUND[:2]], PAST)[0][1]
    past = PAST.double() / PAST.double().norm()
    left = [one.values.double() - (one.values.double() @ past) * past for one in ROUND[:2]]
    assert found == pytest.approx(float(torch.cosine_similarity(*left, dim=0)), abs=1e-3)
    assert beyond([PAST, 2 * PAST], PAST) == [[0, 0], [0, 0]]


@given(order=st.permutations(range(200)))
def test_verdicts_do_not_depend_on_the_order_of_summation(order):
    def seen(at) -> tuple:
        new = [work(one.node_id, one.values[at]) for one in ROUND]
        old = [work(one.node_id, one.values[at], 0) for one in BEFORE]
        return beyond([one.values for one in new], PAST[at]), find_repeats(new, old).keys()

    assert seen(slice(0, 200)) == seen(list(order))


def test_of_a_large_model_some_places_are_looked_at_that_the_seed_draws():
    assert drawn_places(PLACES, "a") == slice(None)
    drawn = drawn_places(10 * PLACES, "a")
    assert len(drawn) == PLACES and int(drawn.min()) >= 0 and int(drawn.max()) < 10 * PLACES
    assert torch.equal(drawn, drawn_places(10 * PLACES, "a")) and not torch.equal(drawn, drawn_places(10 * PLACES, "b"))
