"""Several measurements at once: the same results, and nothing of one in another."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call

from trainer.scoring import cores
from trainer.scoring.cores import on_cores, twin

INPUTS = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()


def scaled(lent: nn.Module, factor: float) -> torch.Tensor:
    with torch.inference_mode():
        return functional_call(lent, {name: factor * value for name, value in lent.named_parameters()}, (INPUTS,))


def test_results_are_those_of_one_after_the_other_in_order(monkeypatch: pytest.MonkeyPatch):
    lent, factors = model(), [0.5 + 0.1 * place for place in range(20)]
    expected = [scaled(lent, factor) for factor in factors]
    monkeypatch.setattr(cores, "cores", lambda: 4)
    found = on_cores(lent, [lambda mine, factor=factor: scaled(mine, factor) for factor in factors])  # type: ignore[misc]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_they_run_at_once_and_no_two_have_the_same_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "cores", lambda: 3)
    together = threading.Barrier(3)

    def task(mine: nn.Module) -> int:
        together.wait(timeout=10)
        return id(mine)

    assert len(set(on_cores(model(), [task] * 3))) == 3


def test_an_error_of_one_is_the_callers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "cores", lambda: 2)

    def fail(mine: nn.Module) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        on_cores(model(), [lambda mine: None, fail])


def test_a_twin_has_modules_of_its_own_around_the_same_numbers():
    lent = model()
    other = twin(lent)
    pairs = zip([*lent.parameters(), *lent.buffers()], [*other.parameters(), *other.buffers()], strict=True)
    assert all(one is another for one, another in pairs)
    assert not set(map(id, lent.modules())) & set(map(id, other.modules()))


def test_cores_that_torch_uses_itself_are_not_counted_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert cores.cores() == 2
