"""Scores tell honest work from harm, and anyone can compute them again."""

import pytest
import torch

from trainer.diloco.flat import unflatten
from trainer.protocol.errors import HyperGPUError
from trainer.scoring.quality import STEP_SCALE, Score, passes_gate
from trainer.scoring.scores import draw_batch, each_loss, evaluate, improvement, measure


def scored(state, base, update, batch) -> Score:
    moved = base - STEP_SCALE * update
    return improvement(*(each_loss(state.model, state.shapes, params, *batch) for params in (base, moved)))


def test_the_batch_follows_from_the_seed_and_holds_no_sample_twice(digits):
    first, again, other = (draw_batch(digits.score, seed=seed, size=50) for seed in ("a", "a", "b"))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and not torch.equal(first[0], other[0])
    inputs, targets = draw_batch(digits.score, seed="a", size=10_000)
    assert len(inputs) == len(targets) == len(digits.score)
    assert sorted(targets.tolist()) == sorted(digits.score.targets.tolist())


def test_honest_work_lowers_the_held_out_loss_and_its_reverse_is_refused(digits, state, base, honest):
    batch = draw_batch(digits.score, seed="round", size=180)
    for update in honest.values():
        good, bad = scored(state, base, update, batch), scored(state, base, -10 * update, batch)
        assert good.improvement > 0.05 and good.improvement == pytest.approx(good.loss_before - good.loss_after)
        assert 0 < good.error < good.improvement / 3
        assert passes_gate(good, 0.0) and not passes_gate(bad, 0.05)


def test_the_losses_of_parts_are_those_of_the_whole(digits, state, base):
    inputs, targets = draw_batch(digits.score, seed="round", size=64)
    whole = each_loss(state.model, state.shapes, base, inputs, targets)
    parts = [each_loss(state.model, state.shapes, base, inputs[at], targets[at]) for at in (slice(20), slice(20, None))]
    assert whole == pytest.approx(torch.cat(parts)) and len(whole) == 64
    assert whole.mean().item() == pytest.approx(measure(state.model, state.shapes, base, inputs, targets).loss)


def test_an_update_to_nowhere_is_refused(digits, state, base, honest):
    with pytest.raises(HyperGPUError) as refusal:
        scored(state, base, 1e38 * honest[1], draw_batch(digits.score, seed="round", size=64))
    assert refusal.value.code == "contribution.diverges"


def test_scoring_leaves_the_model_as_it_was(digits, state, base, honest):
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.train()
    scored(state, base + 1, honest[1], draw_batch(digits.score, seed="x", size=8))
    assert state.model.training and all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_evaluation_covers_the_whole_split_whatever_the_batches(digits, state, base, monkeypatch):
    metrics = evaluate(state.model, state.shapes, base, digits.eval)
    monkeypatch.setattr("trainer.scoring.scores.BATCH", 7)
    again = evaluate(state.model, state.shapes, base, digits.eval)
    assert metrics.loss == pytest.approx(again.loss, abs=1e-6) and metrics.accuracy == again.accuracy
    inputs, targets = digits.eval.take(torch.arange(len(digits.eval)))
    logits = torch.func.functional_call(state.model, unflatten(base, state.shapes), (inputs,))
    assert metrics.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), abs=1e-6)
    assert metrics.accuracy == pytest.approx((logits.argmax(1) == targets).float().mean().item(), abs=1e-6)
