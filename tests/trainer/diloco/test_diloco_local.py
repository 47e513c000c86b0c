"""Local steps: the same order gives the same bits, and a node keeps what helps the next round."""

import pytest
import torch

from trainer.diloco.checkpoint import initial_checkpoint, load_checkpoint, model_params
from trainer.diloco.encoding import encode
from trainer.diloco.local import NodeState, default_device, run_local_steps
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import InnerSpec, JobSpec, ModelSpec

CPU = torch.device("cpu")


def order(spec: JobSpec, number: int = 0, seed: int = 7, shard: int = 1) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=number, node_id=shard, fence=1, deadline=2**31, base="0" * 64, shard=shard, shards=4, seed=seed, spec=spec
    )


def short(**inner: float) -> JobSpec:
    return JobSpec(inner=InnerSpec(**({"steps": 6} | inner)))


def start(spec: JobSpec, digits):
    state = NodeState(spec, digits.info, device=CPU)
    return state, load_checkpoint(initial_checkpoint(spec, digits.info), shapes=state.shapes)


def artifact(spec: JobSpec, digits, **options) -> str:
    state, base = start(spec, digits)
    result = run_local_steps(state, order(spec, **options), base, digits)
    return sha256_hex(encode(result.pseudo_gradient, spec.encoding, error=state.error)[0])


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
    before = {name: value.clone() for name, value in base.items()}
    result = run_local_steps(state, order(spec), base, digits)
    end = model_params(state.model)
    for name, value in result.pseudo_gradient.items():
        assert value.dtype == torch.float32 and value.device == CPU
        assert torch.equal(base[name], before[name]) and torch.equal(value, base[name] - end[name]) and value.abs().sum() > 0


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
    assert all(
        torch.equal(value, result.pseudo_gradient[name])
        for name, value in run_local_steps(state, order(two), base, digits).pseudo_gradient.items()
    )


def test_moments_outlive_the_round(digits):
    """The second round of a node that kept AdamW's moments differs from that of a fresh one on the same base."""
    spec = short()
    kept, base = start(spec, digits)
    run_local_steps(kept, order(spec), base, digits)
    fresh, _ = start(spec, digits)
    second = [run_local_steps(state, order(spec, 1, seed=9), base, digits).pseudo_gradient for state in (kept, fresh)]
    assert any(not torch.equal(second[0][name], second[1][name]) for name in base)


def test_a_diverging_run_stops_with_a_reason_and_the_node_recovers(digits):
    spec = short(learning_rate=1.0, clip_norm=1000, steps=30)
    state, base = start(spec, digits)
    broken = {name: value * 1e20 for name, value in base.items()}
    run_local_steps(state, order(short()), base, digits)
    assert state.optimizer.state and state.steps == 6
    with pytest.raises(HyperGPUError) as refusal:
        run_local_steps(state, order(spec), broken, digits)
    assert refusal.value.code == "training.not_finite" and "step" in refusal.value.data
    assert not state.optimizer.state and state.steps == 0
    assert run_local_steps(state, order(short()), base, digits).steps_done == 6


def test_a_base_of_another_model_is_refused(digits):
    spec = short()
    state, base = start(spec, digits)
    base.popitem()
    with pytest.raises(HyperGPUError) as refusal:
        run_local_steps(state, order(spec), base, digits)
    assert refusal.value.code == "artifact.wrong_shape"


def test_dropout_follows_the_order_and_the_random_state_of_others_is_left_alone(digits):
    spec = short()
    results = []
    for seed in (1, 2):
        state, base = start(spec, digits)
        state.model.register_forward_hook(lambda module, inputs, output: torch.dropout(output, 0.5, train=True))
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(run_local_steps(state, order(spec), base, digits).losses)
        assert torch.equal(before, torch.get_rng_state())
    assert results[0] == results[1]


def test_the_default_device_is_the_gpu_when_there_is_one():
    assert default_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
