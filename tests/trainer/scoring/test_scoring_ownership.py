"""Work on the assigned data is told from copies and from work on other data."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import shard_batches, shard_indices
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import Standing, Submission
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec
from trainer.scoring.ownership import (
    FADING,
    LEAST_OWNED,
    Gains,
    assigned_samples,
    outside,
    ownership,
    refuse_other_data,
    renewed,
    typical,
)

SPEC = JobSpec(inner=InnerSpec(steps=5, batch_size=32))


def submission(node: int, *, shard: int = 0) -> Submission:
    return Submission(
        node_id=node, units=160, artifact="0" * 64, data=b"", shard=shard, seed=node, steps=5, encoding=EncodingSpec()
    )


@pytest.fixture(scope="module")
def assigned(digits, honest):
    """The samples behind the updates of `honest`: shards 1 to 3 of 4, seen whole."""
    return {node: shard_indices(digits.train, shard=node, shards=4).sort().values for node in honest}


def test_the_assigned_samples_are_exactly_those_of_the_order(digits):
    found = assigned_samples(digits.train, SPEC, submission(3, shard=2))
    batches = shard_batches(digits.train, shard=2, shards=4, seed=3, steps=5, batch_size=32)
    wanted = sorted({tuple(row.flatten().tolist()) for inputs, _ in batches for row in inputs})
    assert sorted({tuple(row.flatten().tolist()) for row in digits.train.take(found)[0]}) == wanted
    assert (found.diff() > 0).all()


def test_honest_work_gains_more_on_its_own_data(digits, state, base, honest, assigned):
    gains = ownership(state.model, state.shapes, base, honest, train=digits.train, assigned=assigned, seed="a")
    assert all(gain.owned for gain in gains.values())


def test_nobody_spoils_what_gains_are_counted_against(base, honest):
    plain, spoiled = typical(list(honest.values()), base), typical([*honest.values(), 1e6 * honest[1]], base)
    assert spoiled.norm() < 1.5 * plain.norm()
    assert torch.equal(typical([honest[1]], base), torch.zeros_like(base)) and not typical([], base).any()


def test_a_copy_gains_most_on_the_data_of_its_source(digits, state, base, honest, assigned):
    """Against the samples of node 1 alone, node 2's update is as strange to node 3's data as to any."""
    pairs = {1: assigned[1], 2: assigned[3]}
    gains = ownership(state.model, state.shapes, base, {1: honest[1], 2: honest[2]}, train=digits.train, assigned=pairs, seed="a")
    own = ownership(state.model, state.shapes, base, {2: honest[2]}, train=digits.train, assigned={2: assigned[2]}, seed="a")
    assert gains[2].own - gains[2].other < own[2].own - own[2].other


def test_other_samples_are_nobodys_while_enough_are_left(digits, assigned):
    left = outside(digits.train, *assigned.values())
    assert torch.equal(left, shard_indices(digits.train, shard=0, shards=4).sort().values)


def test_whom_all_samples_were_assigned_is_left_out(digits, state, base, honest):
    everything = {1: torch.arange(len(digits.train)), 2: torch.arange(10)}
    gains = ownership(
        state.model, state.shapes, base, {1: honest[1], 2: honest[2]}, train=digits.train, assigned=everything, seed="a"
    )
    assert list(gains) == [2]


def test_the_seed_decides_and_an_update_to_nowhere_owns_nothing(digits, state, base, honest, assigned):
    def measured(seed, update):
        return ownership(state.model, state.shapes, base, {1: update}, train=digits.train, assigned=assigned, seed=seed)[1]

    assert measured("a", honest[1]) == measured("a", honest[1]) != measured("b", honest[1])
    assert not measured("a", 1e38 * honest[1]).owned


def test_a_standing_fades_and_nothing_measured_changes_nothing():
    better, worse = Gains(0.2, 0.1), Gains(0.1, 0.2)
    assert renewed(Standing(), worse) == Standing(rounds=1, owned=1 - FADING)
    assert renewed(Standing(rounds=3, owned=0.5), better) == Standing(rounds=4, owned=pytest.approx(0.5 + 0.5 * FADING))
    assert renewed(Standing(rounds=3, owned=0.5), None) == Standing(rounds=3, owned=0.5)


def test_nobody_is_refused_before_the_sixth_round_and_honest_rounds_lift_a_standing_again():
    standing = Standing()
    for _ in range(5):
        standing = renewed(standing, Gains(0.0, 1.0))
        refuse_other_data(standing)
    standing = renewed(standing, Gains(0.0, 1.0))
    with pytest.raises(HyperGPUError) as refused:
        refuse_other_data(standing)
    assert refused.value.code == "contribution.not_assigned_data"
    refuse_other_data(renewed(renewed(standing, Gains(1.0, 0.0)), Gains(1.0, 0.0)))


@given(st.lists(st.booleans(), max_size=50))
def test_a_standing_is_a_share(rounds):
    standing = Standing()
    for owned in rounds:
        standing = renewed(standing, Gains(float(owned), 0.5))
    assert standing.rounds == len(rounds) and 0 <= standing.owned <= 1
    assert all(rounds) <= (standing.owned == pytest.approx(1.0)) and LEAST_OWNED < 1
