"""The outer step is torch's SGD, encoded once for every node, as a pure function."""

import pytest
import torch

from trainer.diloco.outer import OuterState, apply_delta, outer_step
from trainer.diloco.version import model_root
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.merkle import leaf_hash, node_hash
from trainer.protocol.spec import EncodingSpec, JobSpec, OuterSpec, RoundSpec

COUNT = 5000
FULL = EncodingSpec(kind="fp32")
SPARSE = EncodingSpec(kind="topk", k=512)


def vectors(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(COUNT, generator=generator) for _ in range(count)]


def job(outer: OuterSpec, downlink: EncodingSpec = FULL) -> JobSpec:
    return JobSpec(outer=outer, downlink=downlink)


@pytest.mark.parametrize(
    ("outer", "options"),
    [
        (OuterSpec(optimizer="sgd", learning_rate=1.0), {"lr": 1.0}),
        (OuterSpec(optimizer="nesterov", learning_rate=0.7, momentum=0.9), {"lr": 0.7, "momentum": 0.9, "nesterov": True}),
        (OuterSpec(optimizer="nesterov", learning_rate=0.7, momentum=0.5), {"lr": 0.7, "momentum": 0.5, "nesterov": True}),
    ],
)
def test_it_moves_as_torch_does(outer, options):
    spec, start = job(outer), vectors(1)[0]
    state, parameter = OuterState.start(start, spec), torch.nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([parameter], **options)
    for gradient in vectors(6):
        state, _ = outer_step(state, gradient, spec, number=0)
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(state.params, parameter.data, rtol=0, atol=1e-5)


def test_with_learning_rate_one_sgd_lands_where_the_node_ended():
    start, end = vectors(2)
    spec = job(OuterSpec(optimizer="sgd", learning_rate=1.0))
    torch.testing.assert_close(outer_step(OuterState.start(start, spec), start - end, spec, number=0).state.params, end)


@pytest.mark.parametrize("downlink", [FULL, EncodingSpec(kind="int8"), EncodingSpec(kind="int4"), SPARSE], ids=lambda d: d.kind)
def test_every_node_comes_to_the_same_version_from_the_encoded_step(downlink):
    spec = job(OuterSpec(), downlink)
    state = OuterState.start(vectors(1)[0], spec)
    mine = state.params.clone()
    for number, gradient in enumerate(vectors(5)):
        state, delta = outer_step(state, gradient, spec, number=number)
        mine = apply_delta(mine, delta, spec)
        assert model_root(mine) == model_root(state.params)


def test_what_a_sparse_downlink_leaves_out_comes_later():
    spec = job(OuterSpec(optimizer="sgd", learning_rate=1.0), SPARSE.model_copy(update={"error_decay": 1.0}))
    state, gradient = OuterState.start(torch.zeros(COUNT), spec), vectors(1)[0]
    rests = []
    for number in range(30):
        state, _ = outer_step(state, gradient if number == 0 else torch.zeros(COUNT), spec, number=number)
        rests.append((state.params + gradient).norm().item())
    assert rests[0] > 0.5 * gradient.norm() and rests[-1] < 0.1 * gradient.norm()


def test_the_learning_rate_goes_down_to_its_last_fraction():
    spec = JobSpec(
        outer=OuterSpec(optimizer="sgd", learning_rate=1.0, final_fraction=0.4), downlink=FULL, rounds=RoundSpec(rounds=4)
    )
    state, gradient = OuterState.start(torch.zeros(COUNT), spec), torch.ones(COUNT)
    rates = [-outer_step(state, gradient, spec, number=number).state.params[0].item() for number in range(4)]
    assert rates == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_nothing_given_is_changed():
    spec = job(OuterSpec(), SPARSE)
    start, first, second = vectors(3)
    copies = [vector.clone() for vector in (start, first, second)]
    state, _ = outer_step(OuterState.start(start, spec), first, spec, number=0)
    momentum, error = state.momentum.clone(), state.error.clone()
    outer_step(state, second, spec, number=1)
    assert all(torch.equal(vector, copy) for vector, copy in zip((start, first, second), copies, strict=True))
    assert torch.equal(state.momentum, momentum) and torch.equal(state.error, error)


def test_sgd_keeps_no_momentum_and_a_dense_downlink_no_error():
    state = OuterState.start(vectors(1)[0], job(OuterSpec(optimizer="sgd")))
    assert state.momentum is None and state.error is None


def test_a_step_of_another_encoding_is_refused():
    spec = job(OuterSpec(), SPARSE)
    delta = outer_step(OuterState.start(vectors(1)[0], spec), vectors(1)[0], spec, number=0).delta
    with pytest.raises(HyperGPUError) as refusal:
        apply_delta(vectors(1)[0], delta, job(OuterSpec(), FULL))
    assert refusal.value.code == "artifact.wrong_encoding"


def test_a_version_is_the_merkle_root_over_pages_of_a_mebibyte():
    params = torch.arange(600_000, dtype=torch.float32)
    raw = params.numpy().tobytes()
    pages = [leaf_hash(raw[at : at + 2**20]) for at in range(0, len(raw), 2**20)]
    assert len(pages) == 3
    assert model_root(params) == node_hash(node_hash(pages[0], pages[1]), pages[2]).hex()
    params[599_999] += 1
    assert model_root(params) != node_hash(node_hash(pages[0], pages[1]), pages[2]).hex()
