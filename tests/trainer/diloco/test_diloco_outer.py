"""The outer step is torch's SGD, as a pure function."""

import pytest
import torch

from trainer.diloco.outer import OuterState, outer_step
from trainer.protocol.spec import OuterSpec


def gradients(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"a": torch.randn(7, 5, generator=generator), "b": torch.randn(5, generator=generator)} for _ in range(count)]


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (OuterSpec(optimizer="sgd", learning_rate=1.0), {"lr": 1.0}),
        (OuterSpec(optimizer="nesterov", learning_rate=0.7, momentum=0.9), {"lr": 0.7, "momentum": 0.9, "nesterov": True}),
        (OuterSpec(optimizer="nesterov", learning_rate=0.7, momentum=0.5), {"lr": 0.7, "momentum": 0.5, "nesterov": True}),
    ],
)
def test_it_moves_as_torch_does(spec, options):
    state = OuterState(gradients(1)[0])
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in state.params.items()}
    optimizer = torch.optim.SGD(parameters.values(), **options)
    for gradient in gradients(6):
        state = outer_step(state, gradient, spec)
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].clone()
        optimizer.step()
        for name, parameter in parameters.items():
            torch.testing.assert_close(state.params[name], parameter.data, rtol=0, atol=1e-6)


def test_with_learning_rate_one_sgd_lands_where_the_node_ended():
    start, end = gradients(2)
    moved = {name: start[name] - end[name] for name in start}
    after = outer_step(OuterState(start), moved, OuterSpec(optimizer="sgd", learning_rate=1.0)).params
    for name in start:
        torch.testing.assert_close(after[name], end[name])


def test_nothing_given_is_changed():
    start, first, second = gradients(3)
    copies = [{name: value.clone() for name, value in tensors.items()} for tensors in (start, first, second)]
    state = outer_step(OuterState(start), first, OuterSpec())
    momentum = {name: value.clone() for name, value in state.momentum.items()}
    state.params["a"].add_(1)
    outer_step(state, second, OuterSpec())
    assert all(
        torch.equal(tensors[n], copy[n]) for tensors, copy in zip((start, first, second), copies, strict=True) for n in copy
    )
    assert all(torch.equal(state.momentum[name], value) for name, value in momentum.items())


def test_sgd_keeps_no_momentum():
    assert outer_step(OuterState(gradients(1)[0]), gradients(1)[0], OuterSpec(optimizer="sgd")).momentum == {}
