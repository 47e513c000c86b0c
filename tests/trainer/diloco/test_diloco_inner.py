"""Optimizers, schedules and the ways to compute one gradient."""

import math

import pytest
import torch
from torch import nn

from trainer.data import Dataset, SampleInfo
from trainer.data.splits import text_dataset
from trainer.diloco.inner import blocks, hidden_matrices, inner_optimizers, learning_rate
from trainer.diloco.local import NodeState, gradient, local_step, optimizer_vectors, restore
from trainer.models import build_model
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import DataSpec, InnerSpec, JobSpec, ModelSpec, RoundSpec

CPU = torch.device("cpu")
IMAGE = SampleInfo("image", (1, 8, 8), 10)
TINY = {"layers": 2, "heads": 2, "width": 16}


@pytest.fixture(scope="module")
def text() -> Dataset:
    return text_dataset(b"To be, or not to be, that is the question: " * 200, sequence_length=16)


def gpt(**inner: object) -> JobSpec:
    data = DataSpec(kind="text", files={"text": "0" * 64}, sequence_length=16)
    return JobSpec(model=ModelSpec(architecture="gpt", config=TINY), data=data, inner=InnerSpec(**({"batch_size": 12} | inner)))


def node(text: Dataset, **inner: object) -> NodeState:
    return NodeState(gpt(**inner), text.info, device=CPU)


def gradient_of(state: NodeState, text: Dataset) -> tuple[torch.Tensor, float]:
    """Flat gradient of a batch of 12, and its loss."""
    inputs, targets = text.train.take(torch.arange(12))
    loss = gradient(state, inputs, targets, state.spec.inner)
    return torch.cat([p.grad.flatten() for p in state.model.parameters()]), loss.item()


def order(number: int = 0, *, steps: int = 10, **inner: object) -> WorkOrder:
    spec = JobSpec(inner=InnerSpec(**({"warmup_steps": 0, "learning_rate": 1.0} | inner)), rounds=RoundSpec(rounds=10))
    return WorkOrder(
        job_id=1, round=number, node_id=0, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=0, shards=1, seed=0,
        steps=steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


def rate(number: int, step: int, seen: int = 1000, **options: object) -> float:
    return learning_rate(order(number, **options), step, seen=seen)


@pytest.mark.parametrize("micro_batch", [1, 4, 6])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro_batch, text):
    whole, loss = gradient_of(node(text), text)
    parts, same = gradient_of(node(text, micro_batch=micro_batch), text)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)
    assert same == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_that_are_computed_again_change_no_gradient(precision, text):
    kept, again = node(text, precision=precision), node(text, precision=precision, activation_checkpointing=True)
    passes = [0, 0]
    for index, state in enumerate((kept, again)):

        def count(*_: object, index: int = index) -> None:
            passes[index] += 1

        state.model.layers[0].attention_in.register_forward_hook(count)
    assert torch.equal(gradient_of(kept, text)[0], gradient_of(again, text)[0])
    assert passes == [1, 2]


def test_bf16_is_for_activations_and_parameters_and_moments_stay_fp32(text):
    state, seen = node(text, precision="bf16"), []
    state.model.layers[0].attention_in.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    rough, _ = gradient_of(state, text)
    exact, _ = gradient_of(node(text), text)
    assert seen == [torch.bfloat16] and rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02
    local_step(state, *text.train.take(torch.arange(12)), state.spec.inner, rate=1e-3)
    held = [value for o in state.optimizers for values in o.state.values() for value in values.values()]
    assert {value.dtype for value in [*held, *state.model.parameters()]} == {torch.float32}


def test_a_gradient_is_clipped_and_its_norm_told_as_it_was(text):
    """By momentum-free SGD in AdamW's place, the step's length shows the clipped norm."""
    state = node(text, clip_norm=0.01)
    state.optimizers = [torch.optim.SGD(state.model.parameters())]
    before = state.params()
    _, norm = local_step(state, *text.train.take(torch.arange(12)), state.spec.inner, rate=1.0).tolist()
    assert norm == pytest.approx(gradient_of(node(text), text)[0].norm().item(), rel=1e-4) and norm > 0.01
    assert (state.params() - before).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_moments_go_into_flat_vectors_and_back(optimizer, text):
    def step(state: NodeState, first: int) -> float:
        return local_step(state, *text.train.take(torch.arange(first, first + 12)), state.spec.inner, rate=1e-3)[0].item()

    kept, other = node(text, optimizer=optimizer), node(text, optimizer=optimizer)
    assert not any(vector.any() for vector in optimizer_vectors(kept).values())
    restore(other, kept.params(), optimizer_vectors(kept), 0)
    assert step(kept, 0) == step(other, 0) and torch.equal(kept.params(), other.params())  # zeros are a fresh optimizer
    step(kept, 12)
    vectors = optimizer_vectors(kept)
    assert [vectors[kind].shape for kind in ("first", "second")] == [(kept.count,)] * 2
    restore(other, kept.params(), vectors, kept.steps)
    assert [step(kept, 24), step(kept, 36)] == [step(other, 24), step(other, 36)] and kept.steps == other.steps == 4
    assert torch.equal(kept.params(), other.params())
    assert all(torch.equal(value, optimizer_vectors(other)[kind]) for kind, value in optimizer_vectors(kept).items())


def test_muon_takes_hidden_matrices_and_adamw_the_rest(text):
    model = node(text).model
    matrices = {id(p) for p in hidden_matrices(model)}
    assert {name for name, p in model.named_parameters() if id(p) in matrices} == {
        f"layers.{layer}.{part}.weight" for layer in (0, 1) for part in ("attention_in", "attention_out", "feed_in", "feed_out")
    }
    muon, adamw = inner_optimizers(model, InnerSpec(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    taken = [p for o in (muon, adamw) for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, taken)) == sorted(map(id, model.parameters()))
    assert all(group["weight_decay"] == 0 for group in adamw.param_groups for p in group["params"] if p.dim() == 1)
    mlp = build_model(ModelSpec(architecture="mlp", config={"hidden": [12, 14]}), IMAGE, seed=0)
    assert [tuple(p.shape) for p in hidden_matrices(mlp)] == [(12, 64), (14, 12)]  # the head is AdamW's
    resnet = build_model(ModelSpec(architecture="resnet"), IMAGE, seed=0)
    assert [type(o) for o in inner_optimizers(resnet, InnerSpec(optimizer="muon"))] == [torch.optim.AdamW]


def test_muon_moves_a_matrix_in_all_its_directions_alike(text):
    """The step of a hidden matrix is its momentum made orthogonal, as far as five steps of Newton-Schulz take it."""
    state = node(text, optimizer="muon", weight_decay=0)
    weight = state.model.layers[0].attention_in.weight
    before = weight.detach().clone()
    local_step(state, *text.train.take(torch.arange(12)), state.spec.inner, rate=1e-2)
    values = torch.linalg.svdvals((weight.detach() - before) / (1e-2 * 0.2 * math.sqrt(max(weight.shape))))
    skewed = torch.linalg.svdvals(weight.grad)
    assert values.median() > 0.5 and values.max() < 1.3 and skewed.median() < 0.2 * skewed.max()


def test_blocks_are_the_repeated_parts_of_a_model(text):
    kinds = {
        architecture: [type(block).__name__ for block in blocks(build_model(ModelSpec(architecture=architecture), IMAGE, seed=0))]
        for architecture in ("mlp", "resnet", "vgg")
    }
    assert kinds == {"mlp": [], "resnet": ["Block"] * 3, "vgg": ["Sequential"] * 6}
    assert [type(block).__name__ for block in blocks(node(text).model)] == ["Layer", "Layer"]
    assert list(blocks(nn.ModuleList([nn.ModuleList([nn.Sequential(nn.ReLU())])])))  # outermost, whatever is inside


def test_schedules_follow_the_job_and_not_the_node():
    assert [rate(number, 3, seen=seen) for number, seen in ((0, 0), (4, 0), (9, 500))] == [1.0, 1.0, 1.0]
    cosine = [rate(number, 0, schedule="cosine", final_fraction=0.2) for number in range(10)]
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.6) and sorted(cosine, reverse=True) == cosine
    assert rate(9, 10, schedule="cosine", final_fraction=0.2) == pytest.approx(0.2)
    wsd = [rate(number, 0, schedule="wsd", final_fraction=0.0) for number in range(10)]
    assert wsd[:9] == pytest.approx([1.0] * 9) and wsd[9] == pytest.approx(0.5)
    assert rate(9, 10, schedule="wsd", final_fraction=0.0) == pytest.approx(0.0)


def test_a_node_with_fewer_steps_goes_through_the_same_part_of_the_schedule():
    cosine = {"schedule": "cosine"}
    assert rate(3, 5, steps=10, **cosine) == rate(3, 2, steps=4, **cosine) == pytest.approx(rate(3, 20, steps=40, **cosine))


def test_a_fresh_optimizer_warms_up_wherever_the_job_is():
    assert [rate(7, 0, seen=seen, warmup_steps=4) for seen in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    late = rate(7, 0, schedule="cosine")
    assert rate(7, 0, seen=1, schedule="cosine", warmup_steps=4) == pytest.approx(late / 2)
