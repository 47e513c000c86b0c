"""How a worker gets from one version of a model to the next, and back after a crash."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from lineage import Step, lineage

from trainer.data import load_dataset
from trainer.models import build_model, parameter_shapes
from trainer.operator.config import Home
from trainer.operator.replica import MissingError, OuterStep, Replica
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import parse_spec

SPEC = parse_spec({"downlink": {"kind": "topk", "chunk": 256, "k": 8}})
INFO = load_dataset(SPEC.data, files={}).info
SHAPES = parameter_shapes(build_model(SPEC.model, INFO, seed=SPEC.seed))


class World:
    """What a coordinator has to give, and an agent that fetches it; `said` is why a way led elsewhere."""

    def __init__(self, home: Home) -> None:
        self.home, self.blobs, self.fetched, self.said = home, {}, [], []
        self.steps = lineage(SPEC, self.put, length=4)

    def put(self, data: bytes) -> str:
        self.blobs[sha256_hex(data)] = data
        return sha256_hex(data)

    def missed(self, first: int, last: int) -> list[OuterStep]:
        """The outer steps to versions `first` to `last`, as a coordinator names them."""
        return [OuterStep(step.version.parent, step.version.delta) for step in self.steps[first : last + 1]]

    def follow(self, replica: Replica, step: Step, number: int, steps: Sequence[OuterStep] = ()) -> None:
        """As the agent does: give the order, fetch what is missing, give it again."""
        order = WorkOrder(
            job_id=1, round=number, node_id=7, fence=1, deadline=2_000_000_000, shard=0, shards=1, seed=0, steps=1,
            encoding=SPEC.encoding, spec=SPEC, **vars(step.version),
        )  # fmt: skip
        while True:
            try:
                params = replica.reach(order, SHAPES, INFO, say=lambda error: self.said.append(error.code), steps=steps)
            except MissingError as missing:
                for what, sha256 in missing.artifacts.items():
                    assert what not in self.fetched, "once is enough"
                    self.fetched.append(what)
                    (self.home.cache / sha256).write_bytes(self.blobs[sha256])
                continue
            assert torch.equal(params, step.params)
            assert replica.version == step.version.base
            return


@pytest.fixture
def world(tmp_path) -> World:
    return World(Home.at(tmp_path))


@pytest.fixture
def replica(world) -> Replica:
    return Replica(world.home, 1)


def test_given_the_first_round_then_the_model_is_made_from_the_seed_and_nothing_is_fetched(world, replica):
    world.follow(replica, world.steps[0], 0)
    assert world.fetched == []


def test_given_the_version_before_then_the_outer_step_alone_is_fetched(world, replica):
    world.follow(replica, world.steps[0], 0)
    world.follow(replica, world.steps[1], 1)
    assert world.fetched == ["outer step"]


def test_given_the_same_version_again_then_nothing_is_fetched(world, replica):
    world.follow(replica, world.steps[0], 0)
    world.follow(replica, world.steps[0], 1)
    assert world.fetched == []


def test_given_a_worker_that_joins_in_the_middle_then_the_checkpoint_alone_is_fetched(world, replica):
    world.follow(replica, world.steps[2], 2)
    assert world.fetched == ["checkpoint"]


def test_given_a_worker_that_comes_back_two_versions_later_then_it_starts_from_the_checkpoint(world, replica):
    world.follow(replica, world.steps[0], 0)
    world.follow(replica, world.steps[2], 2)
    world.fetched.clear()
    world.follow(replica, world.steps[3], 3)
    assert world.fetched == ["outer step"]


def test_given_a_worker_that_has_missed_versions_then_it_takes_the_outer_steps_one_after_the_other(world, replica):
    """All are fetched at once, and one that the round before has left here is not fetched again."""
    world.follow(replica, world.steps[0], 0)
    world.follow(replica, world.steps[3], 3, world.missed(1, 3))
    assert world.fetched == ["outer step 1 of 3", "outer step 2 of 3", "outer step 3 of 3"]
    assert world.said == []
    again = Replica(world.home, 2)
    world.fetched.clear()
    world.follow(again, world.steps[0], 0)
    (world.home.cache / world.steps[2].version.delta).unlink()
    world.follow(again, world.steps[3], 3, world.missed(1, 3))
    assert world.fetched == ["outer step"]


def test_given_steps_from_versions_that_are_not_here_then_those_from_the_newest_that_is_are_taken(world, replica):
    world.follow(replica, world.steps[1], 1, world.missed(1, 1))
    world.fetched.clear()
    world.follow(replica, world.steps[3], 3, world.missed(1, 3))
    assert world.fetched == ["outer step 1 of 2", "outer step 2 of 2"], "who holds a newer one than the coordinator believed"
    other = Replica(world.home, 2)
    world.fetched.clear()
    world.follow(other, world.steps[3], 3, world.missed(2, 3))
    assert world.fetched == ["checkpoint"]


def test_given_a_chain_of_steps_that_leads_elsewhere_then_the_checkpoint_is_taken(world, replica):
    world.follow(replica, world.steps[0], 0)
    world.follow(replica, world.steps[3], 3, [world.missed(1, 1)[0], world.missed(3, 3)[0]])
    assert world.fetched == ["outer step 1 of 2", "outer step 2 of 2", "checkpoint"]
    assert world.said == ["version.mismatch"]


def test_given_a_new_process_then_it_goes_on_from_the_copy_on_disk_and_older_ones_are_gone(world, replica):
    for number in range(2):
        world.follow(replica, world.steps[number], number)
        replica.keep()
    assert [path.name for path in world.home.versions.iterdir()] == [f"1-{world.steps[1].version.base}"]
    world.fetched.clear()

    again = Replica(world.home, 1)
    world.follow(again, world.steps[1], 1)
    assert world.fetched == []
    world.follow(again, world.steps[2], 2)
    assert world.fetched == ["outer step"]


def test_given_a_process_killed_before_its_copy_was_written_then_the_step_is_taken_again_from_the_cache(world, replica):
    world.follow(replica, world.steps[0], 0)
    replica.keep()
    world.follow(replica, world.steps[1], 1)
    world.fetched.clear()

    world.follow(Replica(world.home, 1), world.steps[1], 1)
    assert world.fetched == []


def test_given_an_outer_step_that_leads_elsewhere_then_that_is_said_and_the_checkpoint_taken(world, replica):
    world.follow(replica, world.steps[0], 0)
    world.blobs[world.steps[1].version.delta] = world.blobs[world.steps[2].version.delta]
    world.follow(replica, world.steps[1], 1)
    assert world.fetched == ["outer step", "checkpoint"]
    assert world.said == ["version.mismatch"]


def test_given_an_outer_step_that_is_none_then_that_is_said_and_the_checkpoint_taken(world, replica):
    world.follow(replica, world.steps[0], 0)
    world.blobs[world.steps[1].version.delta] = b"rotten"
    world.follow(replica, world.steps[1], 1)
    assert world.fetched == ["outer step", "checkpoint"]


def test_given_a_copy_on_disk_that_rotted_then_the_checkpoint_is_taken(world, replica):
    world.follow(replica, world.steps[0], 0)
    replica.keep()
    path = world.home.versions / f"1-{world.steps[0].version.base}"
    path.write_bytes(b"\0" * path.stat().st_size)

    world.follow(Replica(world.home, 1), world.steps[1], 1)
    assert world.fetched == ["outer step", "checkpoint"]
    assert world.said == ["version.mismatch"]
    assert not path.exists()


def test_given_a_checkpoint_of_another_version_then_it_is_refused_and_removed(world, replica):
    checkpoint = world.steps[2].version.checkpoint
    world.blobs[checkpoint] = world.blobs[world.steps[1].version.checkpoint]
    with pytest.raises(HyperGPUError, match=r"version\.mismatch"):
        world.follow(replica, world.steps[2], 2)
    assert not (world.home.cache / checkpoint).exists()
    assert replica.version is None
