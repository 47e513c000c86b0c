"""Local steps: the same order gives the same bits, and a node keeps what helps the next round."""

import pytest
import torch

from trainer.diloco.local import NodeState, default_device, optimizer_vectors, restore, run_local_steps, train
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import AuditSpec, InnerSpec, JobSpec, ModelSpec

CPU = torch.device("cpu")


def order(spec: JobSpec, number: int = 0, seed: int = 7, shard: int = 1) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=number, node_id=shard, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=shard, shards=4,
        seed=seed, steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


def short(**inner: float) -> JobSpec:
    return JobSpec(inner=InnerSpec(**({"steps": 6} | inner)))


def start(spec: JobSpec, digits):
    state = NodeState(spec, digits.info, device=CPU)
    return state, state.params()


def artifact(spec: JobSpec, digits, **options) -> str:
    state, base = start(spec, digits)
    result = run_local_steps(state, order(spec, **options), base, digits)
    return sha256_hex(result.pseudo_gradient.numpy().tobytes())


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_the_same_order_gives_the_same_bytes_twice(architecture, digits):
    spec = short().model_copy(update={"model": ModelSpec(architecture=architecture)})
    torch.manual_seed(1)
    first = artifact(spec, digits)
    torch.manual_seed(2)
    assert first == artifact(spec, digits)
    assert len({first, artifact(spec, digits, seed=8), artifact(spec, digits, shard=2)}) == 3


def test_the_pseudo_gradient_is_start_minus_end_and_the_base_stays(digits):
    spec = short()
    state, base = start(spec, digits)
    before = base.clone()
    result = run_local_steps(state, order(spec), base, digits)
    moved = result.pseudo_gradient
    assert (moved.dtype, moved.device, moved.shape) == (torch.float32, CPU, (state.count,)) and moved.abs().sum() > 0
    assert torch.equal(base, before) and torch.equal(moved, base - state.params())


def test_progress_is_reported_after_each_step(digits):
    spec, seen = short(), []
    state, base = start(spec, digits)
    result = run_local_steps(state, order(spec), base, digits, on_step=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(result.losses)) and len(seen) == 6
    assert (result.steps_done, result.units) == (6, 6 * 32) and result.seconds > 0
    assert result.units == order(spec).units


def test_an_early_stop_keeps_what_was_done(digits):
    spec, seen = short(), []
    state, base = start(spec, digits)
    result = run_local_steps(
        state, order(spec), base, digits, on_step=lambda step, loss: seen.append(step), should_stop=lambda: len(seen) == 2
    )
    assert (result.steps_done, result.units, len(result.losses)) == (2, 64, 2)
    two = short(steps=2)
    state, base = start(two, digits)
    assert torch.equal(run_local_steps(state, order(two), base, digits).pseudo_gradient, result.pseudo_gradient)


def test_moments_outlive_the_round(digits):
    """The second round of a node that kept AdamW's moments differs from that of a fresh one on the same base."""
    spec = short()
    kept, base = start(spec, digits)
    run_local_steps(kept, order(spec), base, digits)
    fresh, _ = start(spec, digits)
    second = [run_local_steps(state, order(spec, 1, seed=9), base, digits).pseudo_gradient for state in (kept, fresh)]
    assert not torch.equal(*second)


def test_a_segment_is_computed_again_from_its_snapshot(digits):
    """Restored into another node's state, the rest of the order ends with the same bits, dropout and all."""
    spec = short(steps=7).model_copy(update={"audit": AuditSpec(stride=3)})
    snapshots, seen = {}, []

    def snapshot(state: NodeState, done: int) -> None:
        seen.append(done)
        snapshots[done] = (state.params(), optimizer_vectors(state), state.steps)

    state, base = start(spec, digits)
    drop(state)
    run_local_steps(state, order(spec), base, digits, on_segment=snapshot)
    assert seen == [0, 3, 6, 7]
    other, _ = start(spec, digits)
    drop(other)
    restore(other, *snapshots[3])
    train(other, order(spec), digits, range(3, 7))
    assert torch.equal(other.params(), snapshots[7][0]) and other.steps == 7
    assert all(torch.equal(value, snapshots[7][1][kind]) for kind, value in optimizer_vectors(other).items())


def test_a_stop_within_a_segment_is_a_border_too(digits):
    spec = short().model_copy(update={"audit": AuditSpec(stride=3)})
    state, base = start(spec, digits)
    steps, borders = [], []
    run_local_steps(
        state, order(spec), base, digits, on_step=lambda step, loss: steps.append(step), should_stop=lambda: len(steps) == 4,
        on_segment=lambda state, done: borders.append(done),
    )  # fmt: skip
    assert borders == [0, 3, 4]


def drop(state: NodeState) -> None:
    state.model.register_forward_hook(lambda module, inputs, output: torch.dropout(output, 0.5, train=True))


def test_a_diverging_run_stops_with_a_reason_and_the_node_recovers(digits):
    spec = short(learning_rate=1.0, clip_norm=1000, steps=30)
    state, base = start(spec, digits)
    broken = base * 1e20
    run_local_steps(state, order(short()), base, digits)
    assert optimizer_vectors(state)["second"].any() and state.steps == 6
    with pytest.raises(HyperGPUError) as refusal:
        run_local_steps(state, order(spec), broken, digits)
    assert refusal.value.code == "training.not_finite" and "step" in refusal.value.data
    assert not optimizer_vectors(state)["second"].any() and state.steps == 0
    assert run_local_steps(state, order(short()), base, digits).steps_done == 6


def test_a_base_of_another_model_is_refused(digits):
    spec = short()
    state, base = start(spec, digits)
    with pytest.raises(HyperGPUError) as refusal:
        run_local_steps(state, order(spec), base[1:], digits)
    assert refusal.value.code == "artifact.wrong_shape"


def test_dropout_follows_the_order_and_the_random_state_of_others_is_left_alone(digits):
    spec = short()
    results = []
    for seed in (1, 2):
        state, base = start(spec, digits)
        drop(state)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(run_local_steps(state, order(spec), base, digits).losses)
        assert torch.equal(before, torch.get_rng_state())
    assert results[0] == results[1]


def test_the_default_device_is_the_gpu_when_there_is_one():
    assert default_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
