"""A trace commits to every state on the way, small enough to show, exact where it can be."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.diloco import trace as trace_module
from trainer.diloco.encoding import ZERO_TRACE, decode, encode
from trainer.diloco.local import NodeState, optimizer_vectors, run_local_steps
from trainer.diloco.trace import (
    MOST_PENDING,
    Moments,
    Trace,
    borders,
    bound,
    contribute,
    fresh_moments,
    read_error,
    read_moments,
    read_movement,
    write_error,
    write_moments,
    write_movement,
)
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import moments_bytes, movement_bytes
from trainer.protocol.merkle import leaf_hash, merkle_path, path_root
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec

CPU = torch.device("cpu")
SPARSE = JobSpec(inner=InnerSpec(steps=12), encoding=EncodingSpec(kind="topk"))


def order(spec=SPARSE, *, number=0) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=number, node_id=1, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=1, shards=4,
        seed=7 + number, steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


@pytest.fixture(scope="module")
def worked(digits):
    """A node after one order of 12 steps: the node, its base, and what it contributed."""
    state = NodeState(SPARSE, digits.info, device=CPU)
    base = state.params()
    return state, base, contribute(state, order(), base, digits)


def test_a_trace_has_a_state_for_every_border(worked):
    state, _, made = worked
    assert made.trace.steps == 12 and borders(12, 5) == [0, 5, 10, 12]
    assert [read_movement(data, count=state.count)[1] for data in made.trace.movements] == [0, 5, 10, 12]
    assert [read_moments(data, count=state.count).seen for data in made.trace.moments] == [0, 5, 10, 12]


def test_it_begins_at_the_base_with_fresh_moments_and_no_error(worked):
    state, _, made = worked
    assert made.trace.movements[0] == write_movement(torch.zeros(state.count), 0)
    assert made.trace.moments[0] == fresh_moments(state.count) and made.trace.error_before == b""


def test_the_upload_is_the_encoding_of_the_committed_end_with_the_root_in_its_header(worked):
    state, _, made = worked
    update = decode(made.upload, SPARSE.encoding, count=state.count)
    assert update.trace == made.trace.root() != ZERO_TRACE
    again = encode(made.trace.end, SPARSE.encoding, trace=made.trace.root())
    assert again.data == made.upload and torch.equal(again.values, update.values)


def test_the_committed_end_is_where_the_steps_ended_but_for_its_rounding(worked):
    _, _, made = worked
    apart = (made.trace.end - made.result.pseudo_gradient).norm() / made.result.pseudo_gradient.norm()
    assert 0 < apart < 1e-4


def test_the_node_goes_on_with_the_error_it_committed_to(worked, digits):
    state, base, made = worked
    assert write_error(state.error) == made.trace.error_after != b""
    following = contribute(state, order(number=1), base, digits)
    assert following.trace.error_before == made.trace.error_after
    assert following.trace.moments[0] == made.trace.moments[-1]


def test_every_leaf_is_under_the_root_and_no_other(worked):
    trace = worked[2].trace
    leaves = trace.leaves()
    assert len(leaves) == 2 * 4 + 4  # states at four borders; both errors, the lead, the order
    for index, leaf in enumerate(leaves):
        assert path_root(leaf, merkle_path(leaves, index), index=index, count=len(leaves)) == trace.root()
    assert path_root(leaf_hash(b"x"), merkle_path(leaves, 3), index=3, count=len(leaves)) != trace.root()


def test_a_trace_changes_with_any_of_its_states(worked):
    trace = worked[2].trace
    other = dataclasses.replace(trace, moments=[*trace.moments[:1], trace.moments[2], *trace.moments[2:]])
    assert other.root() != trace.root() != dataclasses.replace(trace, error_after=b"").root()


def test_an_order_stopped_within_a_segment_ends_with_a_state_of_its_own(digits):
    state = NodeState(SPARSE, digits.info, device=CPU)
    base = state.params()
    steps = iter([False] * 7 + [True])
    made = contribute(state, order(), base, digits, should_stop=lambda: next(steps))
    assert made.trace.steps == made.result.steps_done == 7 and len(made.trace.movements) == len(borders(7, 5)) == 3


def test_nothing_done_is_nothing_to_upload(digits):
    state = NodeState(SPARSE, digits.info, device=CPU)
    made = contribute(state, order(), state.params(), digits, should_stop=lambda: True)
    assert made.upload == b"" and state.error is None


def test_the_same_work_gives_the_same_trace(worked, digits):
    state = NodeState(SPARSE, digits.info, device=CPU)
    assert contribute(state, order(), state.params(), digits).trace.root() == worked[2].trace.root()


def test_what_a_trace_keeps_of_the_optimizer_is_what_it_has(digits):
    state = NodeState(SPARSE, digits.info, device=CPU)
    made = contribute(state, order(), state.params(), digits)
    kept, held = read_moments(made.trace.moments[-1], count=state.count), optimizer_vectors(state)
    for one, other in ((kept.first, held["first"]), (kept.second, held["second"])):
        assert other.norm() > 0 and (one - other).norm() < 2**-8 * other.norm()


@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=300), steps=st.integers(0, 2**32 - 1))
def test_movements_come_back_within_a_fraction_of_their_largest(values, steps):
    movement = torch.tensor(values)
    data = write_movement(movement, steps)
    again, done = read_movement(data, count=len(values))
    assert done == steps and len(data) == movement_bytes(len(values))
    assert (again - movement).abs().max() <= movement.abs().max() / 2**14 + 2.0**-110  # smaller scales are zero


@given(values=st.lists(st.floats(2.0**-100, 1e3, width=32), min_size=1, max_size=100), seen=st.integers(0, 2**64 - 1))
def test_small_second_moments_never_become_nothing(values, seen):
    second = torch.tensor(values)
    data = write_moments(Moments(-second, second, seen))
    first, again, steps = read_moments(data, count=len(values))
    assert steps == seen and len(data) == moments_bytes(len(values))
    assert ((again - second).abs() <= second / 2**8).all() and torch.equal(first, -again)


def test_broken_states_are_refused_with_their_code(worked):
    state, _, made = worked
    movement, moments = made.trace.movements[-1], made.trace.moments[-1]
    negative = write_moments(Moments(torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 1))
    for read, data, code, count in (
        (read_movement, movement[:-1], "artifact.truncated", state.count),
        (read_movement, movement + b"\0", "artifact.too_large", state.count),
        (read_moments, moments[:-1], "artifact.truncated", state.count),
        (read_moments, negative, "artifact.malformed", 3),
        (read_error, b"\0" * 70, "artifact.malformed", 3),
    ):
        with pytest.raises(HyperGPUError) as refused:
            read(data, count=count)
        assert refused.value.code == code


def test_binding_changes_the_header_alone():
    upload = encode(torch.ones(10), EncodingSpec()).data
    changed = bound(upload, b"\7" * 32)
    assert changed[:32] == upload[:32] and changed[64:] == upload[64:] and changed[32:64] == b"\7" * 32


def test_states_that_are_written_beside_the_steps_are_those_of_the_borders(digits, tmp_path):
    """In memory and in a file, against states that the steps waited for."""
    waited: list[tuple[bytes, bytes]] = []

    def wait_for(state: NodeState, done: int) -> None:
        vectors = optimizer_vectors(state)
        moments = Moments(vectors["first"], vectors["second"], state.steps)
        waited.append((write_movement(base - state.params(), done), write_moments(moments)))

    states = [NodeState(SPARSE, digits.info, device=CPU) for _ in range(3)]
    base = states[0].params()
    run_local_steps(states[0], order(), base, digits, on_segment=wait_for)
    held, spilled = (
        contribute(state, order(), base, digits, folder=to) for state, to in ((states[1], None), (states[2], tmp_path))
    )
    for trace in (held.trace, spilled.trace):
        assert list(zip(trace.movements, trace.moments, strict=True)) == waited
    assert held.upload == spilled.upload and held.trace.leaves() == spilled.trace.leaves()
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [sum(len(part) for border in waited for part in border)]
    spilled.trace.spill.keep(tmp_path / "kept")
    assert spilled.trace.moments[-1] == waited[-1][1] and spilled.trace.movements[:1] == [waited[0][0]]
    contribute(states[2], order(number=1), base, digits, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"], "what nobody keeps makes room"


def test_what_goes_wrong_beside_the_steps_ends_the_order(digits, monkeypatch):
    def full(moments: Moments) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trace_module, "write_moments", full)
    state = NodeState(SPARSE, digits.info, device=CPU)
    with pytest.raises(OSError, match="No space left"):
        contribute(state, order(), state.params(), digits)


def test_steps_wait_for_the_oldest_where_the_writer_is_so_many_states_behind(digits):
    state, waited = NodeState(SPARSE, digits.info, device=CPU), []
    trace = Trace(state.params())
    for number in range(MOST_PENDING):
        trace.pending.append(SimpleNamespace(result=partial(waited.append, number)))
    trace.record(state, 5)
    assert waited == [0] and len(trace.pending) == MOST_PENDING
    trace.finish()
    assert waited == list(range(MOST_PENDING)) and read_movement(trace.movements[0], count=state.count)[1] == 5
