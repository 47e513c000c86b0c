"""What is no contribution is refused before any data is looked at."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.diloco.encoding import encode
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import Submission
from trainer.protocol.spec import EncodingSpec, JobSpec
from trainer.scoring.checks import check_contribution, find_copies, norm_limit, orders_apart, refuse_copy, refuse_echo

SPEC = JobSpec()
ENCODINGS = [EncodingSpec(kind=kind) for kind in ("fp32", "bf16", "int8", "int4", "topk")]


def check(update, *, spec=SPEC):
    data = encode(update, spec.encoding).data
    limit = norm_limit(spec, len(update), spec.inner.steps)
    return check_contribution(data, spec.encoding, len(update), max_norm=limit)


def refusal(update) -> HyperGPUError:
    with pytest.raises(HyperGPUError) as refused:
        check(update)
    return refused.value


def noisy(update, part: float, *, seed: int = 0):
    noise = torch.randn(update.shape, generator=torch.Generator().manual_seed(seed))
    return update + part * update.norm() / noise.norm() * noise


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.kind)
def test_honest_updates_pass_beside_each_other(honest, encoding):
    updates = {node: check(update, spec=JobSpec(encoding=encoding)).values for node, update in honest.items()}
    assert find_copies(updates, None) == {}
    assert find_copies({1: updates[1], 2: updates[2]}, updates[3]) == {}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.kind)
@pytest.mark.parametrize("changed", [lambda u: u, lambda u: noisy(u, 0.02), lambda u: 3 * u], ids=["same", "noisy", "scaled"])
def test_a_copy_is_refused_and_names_its_source(honest, encoding, changed):
    def sent(update):
        return encode(update, encoding).values

    updates = {2: sent(honest[2]), 7: sent(changed(sent(honest[2])))}
    assert find_copies(updates, None)[7].data["node"] == 2
    among = find_copies({1: sent(honest[1]), **updates}, sent(honest[3]))
    assert list(among) == [7] and among[7].code == "contribution.copy"
    assert among[7].data["node"] == 2 and among[7].data["cosine"] > 0.98


def test_the_earlier_commitment_is_the_original(honest):
    assert list(find_copies({5: honest[1], 2: honest[1], 9: honest[1]}, None)) == [2, 9]


def test_a_copy_under_noise_is_found_when_the_honest_differ(honest):
    assert find_copies({**honest, 7: noisy(honest[2], 0.15)}, None)[7].data["node"] == 2
    assert find_copies({1: honest[1], 3: honest[3], 7: noisy(honest[2], 0.15)}, honest[2])[7].data["node"] is None


def test_honest_updates_that_move_as_one_are_not_taken_for_copies(honest):
    """Small models early on: every pair has a cosine of about 0.99."""
    alike = {node: noisy(honest[1], 0.1, seed=node) for node in range(4)}
    assert find_copies(alike, noisy(honest[1], 0.2, seed=9)) == {}


def submission(node: int, units: int, encoding: EncodingSpec) -> Submission:
    return Submission(node_id=node, units=units, artifact="", data=b"", shard=0, seed=0, steps=units, encoding=encoding)


def test_two_of_like_orders_are_not_copies_because_the_others_were_ordered_something_else(honest):
    far = {node: noisy(honest[1], 0.8, seed=node) for node in range(4)}
    near = {node: noisy(honest[1], 0.1, seed=node) for node in (4, 5)}
    updates = {**far, **near}
    apart = orders_apart([submission(node, 100 if node in far else 300, SPEC.encoding) for node in updates])
    assert list(find_copies(updates, None)) == [5] and find_copies(updates, None, apart=apart) == {}
    assert find_copies({**updates, 5: updates[4]}, None, apart=apart)[5].data["node"] == 4  # the same is the same
    assert find_copies({**updates, 5: noisy(updates[0], 0.1)}, None, apart=apart)[5].data["node"] == 0  # a copy from elsewhere
    aggregate = noisy(honest[1], 0.1, seed=9)
    assert {4, 5} <= set(find_copies(updates, aggregate)) and find_copies(updates, aggregate, apart=apart) == {}


def test_orders_are_apart_by_their_samples_and_their_encoding():
    dense, sparse = EncodingSpec(kind="int4"), EncodingSpec(kind="topk")
    apart = orders_apart([submission(1, 100, dense), submission(2, 250, dense), submission(3, 100, sparse)])
    assert apart[1] == {1: 1.0, 2: 2.5, 3: float("inf")} and apart[2][1] == 2.5 and apart[3][1] == float("inf")


def test_noise_that_is_committed_first_does_not_frame_the_honest(honest):
    alike = {node: noisy(honest[1], 0.1, seed=node) for node in range(2, 8)}
    framed = {node: noisy(honest[1], 100, seed=20 + node) for node in range(2)}
    assert find_copies({**framed, **alike}, noisy(honest[1], 0.2, seed=9)) == {}


def test_copies_do_not_shield_each_other(honest):
    others = {node: noisy(honest[1], 1.0, seed=node) for node in range(6)}  # cosines of about 0.5
    copies = {6: noisy(others[2], 0.2, seed=30), 7: noisy(others[2], 0.2, seed=31)}
    assert {node: error.data["node"] for node, error in find_copies({**others, **copies}, None).items()} == {6: 2, 7: 2}


def test_the_last_aggregate_sent_again_is_refused(honest):
    refused = find_copies({2: honest[2], 1: honest[1]}, honest[1])
    assert list(refused) == [1] and refused[1].data["node"] is None and "previous aggregate" in refused[1].message


def test_the_part_of_the_last_aggregate_that_fits_a_sparse_file_is_refused(honest):
    aggregate = (honest[1] + honest[2] + honest[3]) / 3
    sparse = encode(aggregate, EncodingSpec(kind="topk", k=16)).values
    assert 0 < sparse.count_nonzero() < len(sparse) / 10
    assert list(find_copies({1: honest[1], 9: sparse}, aggregate)) == [9]


def test_one_huge_value_hides_no_copy(honest):
    """An accomplice cannot push the others below the grid of the exact products."""
    huge = honest[3].clone()
    huge[0] = 1e30
    assert list(find_copies({3: huge, 1: honest[1], 2: honest[1]}, None)) == [2]


@given(order=st.permutations(range(200)))
def test_who_is_refused_does_not_depend_on_the_order_of_summation(honest, order):
    """The same products whatever the order of the values, so whatever the machine's vector width."""
    part = {node: update[:200] for node, update in honest.items()} | {7: noisy(honest[2], 0.05)[:200]}
    shuffled = {node: update[list(order)] for node, update in part.items()}
    known, again = find_copies(part, None), find_copies(shuffled, None)
    assert {node: error.data for node, error in known.items()} == {node: error.data for node, error in again.items()}


def test_nothing_to_compare_with_refuses_nobody(honest):
    assert find_copies({}, honest[1]) == {} and find_copies({1: honest[1]}, None) == {}
    refuse_copy({}, (), {})
    refuse_echo(1, {})


def test_beside_one_other_alone_nobody_stands_out_as_an_echo():
    """Error feedback sends in this round what the aggregate had in the last."""
    refuse_echo(5, {5: 0.967, 6: 0.737})
    refuse_echo(5, {5: 0.967, 6: 0.737, 7: 0.960})
    with pytest.raises(HyperGPUError, match="copy of the previous aggregate"):
        refuse_echo(5, {5: 0.967, 6: 0.72, 7: 0.70})
    with pytest.raises(HyperGPUError, match="copy of the previous aggregate"):
        refuse_echo(5, {5: 0.9996, 6: 0.9})


def test_a_zero_update_is_refused(honest):
    assert refusal(torch.zeros_like(honest[1])).code == "contribution.empty"


def test_an_absurd_norm_is_refused(honest):
    assert refusal(100 * honest[1]).code == "contribution.norm_too_large"


def test_fewer_steps_may_move_less_and_error_feedback_more():
    assert norm_limit(SPEC, 1000, 10) == pytest.approx(norm_limit(SPEC, 1000, 40) / 4)
    sparse = JobSpec(encoding=EncodingSpec(kind="topk"))
    assert norm_limit(sparse, 1000, 40) > norm_limit(sparse, 1000, 10) > 9 * norm_limit(SPEC, 1000, 40)


def test_a_broken_file_is_refused_by_its_own_code(honest):
    with pytest.raises(HyperGPUError) as refused:
        check_contribution(b"nothing", SPEC.encoding, len(honest[1]), max_norm=1.0)
    assert refused.value.code == "artifact.truncated"
