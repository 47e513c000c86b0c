"""The benchmark of the inner loop: what it counts and when it refuses. The model is tiny here, its figures mean nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.hypergpu_bench import gpu
from scripts.hypergpu_demo.supervise import StackError
from trainer.models import build_model, mean_loss

TINY = gpu.Workload("tiny", layers=2, heads=2, width=16, sequence=32, batch=2, steps=3, pairs=2)


def test_operations_are_those_that_torch_counts():
    """torch counts attention's whole square, and its backward pass as 5 products; a causal one needs half, in 4."""
    dataset = gpu.random_text(TINY)
    model = build_model(TINY.spec().model, dataset.info, seed=0)
    inputs, targets = dataset.train.take(torch.arange(TINY.batch))
    with FlopCounterMode(display=False) as counter:
        mean_loss(model, inputs, targets).backward()
    products = sum(count for name, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(name))
    attention = 6 * TINY.layers * TINY.width * TINY.sequence
    assert products == (gpu.operations_per_token(TINY) - attention) * TINY.batch * TINY.sequence


def test_a_result_names_its_conditions_and_figures():
    measured = gpu.measure_cpu(replace(TINY, pairs=3))
    figure = measured.figures["inner_loop_vs_bare_percent_cpu"]
    assert set(measured.figures) == {"inner_loop_vs_bare_percent_cpu"} and figure.goal == 97
    assert figure.low < figure.value < figure.high and measured.seeds == [1, 2, 3]
    assert "no GPU measurement" in measured.conditions[0]
    bare, loop, whole = (row["ms a step"] for row in measured.rows)
    assert 0 < loop <= whole and bare > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_nothing_is_made_up():
    with pytest.raises(StackError, match="needs a CUDA GPU"):
        gpu.measure(quick=False)
