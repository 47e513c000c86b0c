"""Shards are disjoint and fixed; batches follow the seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import Split, shard_batches, shard_indices
from trainer.data.permutation import permutation
from trainer.protocol.errors import HyperGPUError


def numbered(size: int) -> Split:
    return Split("image", torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1), torch.arange(size))


@given(size=st.integers(1, 300), shards=st.integers(1, 20))
def test_shards_are_disjoint_even_and_together_everything(size, shards):
    if shards > size:
        return
    parts = [shard_indices(numbered(size), shard=shard, shards=shards).tolist() for shard in range(shards)]
    assert sorted(index for part in parts for index in part) == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_comes_round_after_each_sample_was_used_once_and_in_a_new_order():
    own = set(shard_indices(numbered(40), shard=1, shards=4).tolist())
    seen = torch.cat([targets for _, targets in shard_batches(numbered(40), shard=1, shards=4, seed=7, steps=8, batch_size=5)])
    laps = [lap.tolist() for lap in seen.split(10)]
    assert all(set(lap) == own for lap in laps) and laps[0] != laps[1]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 25])
def test_batches_are_always_full_and_the_seed_decides_them(batch_size):
    def batches(seed):
        return [t.tolist() for _, t in shard_batches(numbered(40), shard=0, shards=4, seed=seed, steps=6, batch_size=batch_size)]

    assert [len(batch) for batch in batches(1)] == [batch_size] * 6
    assert batches(1) == batches(1) != batches(2)


def test_inputs_and_targets_stay_together():
    for inputs, targets in shard_batches(numbered(50), shard=2, shards=5, seed=0, steps=5, batch_size=4):
        assert torch.equal(inputs.flatten().long(), targets)


@pytest.mark.parametrize(("shard", "shards"), [(4, 4), (-1, 4), (0, 41)])
def test_a_shard_that_does_not_exist_is_refused(shard, shards):
    with pytest.raises(HyperGPUError) as refusal:
        shard_indices(numbered(40), shard=shard, shards=shards)
    assert refusal.value.code == "data.no_such_shard"


def test_permutations_are_the_same_on_every_machine():
    """Fixed numbers: a change here moves every job's splits and shards."""
    assert permutation(10, "splits").tolist() == [7, 8, 2, 4, 5, 3, 6, 1, 0, 9]
