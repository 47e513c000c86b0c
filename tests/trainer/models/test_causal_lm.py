"""Hugging Face architectures by config: built offline, from settings the config class knows, over bytes."""

import importlib.util

import pytest
import torch

from trainer.models import build_model, causal_lm, loss_and_correct, model_shapes, parameter_shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import ModelSpec

needs_extra = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs hypergpu[transformers]")
SMALL = {
    "gpt2": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64},
    "llama": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
    },
    "qwen2": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
    },
}


def spec(model_type: str, **config: object) -> ModelSpec:
    return ModelSpec(architecture="transformers", config={"model_type": model_type, "config": config})


def test_without_the_extra_the_refusal_says_what_to_install(monkeypatch, text):
    monkeypatch.setattr(causal_lm, "find_spec", lambda name: None)
    with pytest.raises(HyperGPUError, match=r"pip install 'hypergpu\[transformers\]'") as refusal:
        build_model(spec("gpt2"), text, seed=0)
    assert refusal.value.code == "model.extra_missing"


@needs_extra
@pytest.mark.parametrize("model_type", sorted(SMALL))
def test_a_model_type_trains_on_bytes_from_its_config_alone(model_type, text):
    chosen = spec(model_type, **SMALL[model_type])
    model = build_model(chosen, text, seed=3)
    stream = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))
    loss, _ = loss_and_correct(model, stream[:, :-1], stream[:, 1:])
    loss.backward()
    assert model(stream[:, :-1]).shape == (2, 16, 256)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    again = build_model(chosen, text, seed=3).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert model_shapes(chosen, text) == parameter_shapes(model)


@needs_extra
@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": "x"},
        {"_name_or_path": "someone/model"},
        {"attn_implementation": "someone/kernel"},
        {"quantization_config": "gptq"},
        {"vocab_size": 50_000},
        {"no_such_setting": 1},
        {"n_layer": 10_000},
        {"n_embd": 33, "n_head": 2},
        {"activation_function": "someone/activation"},
        {"n_embd": 1 << 40},
        {"n_embd": "wide"},
        {"n_embd": -4},
        {"n_positions": 4, "n_layer": 1},
        {"dtype": "float16"},
    ],
)
def test_settings_that_reach_beyond_the_config_are_refused(config, text):
    with pytest.raises(HyperGPUError) as refusal:
        build_model(spec("gpt2", **config), text, seed=0)
    assert refusal.value.code == "model.invalid_config"


@needs_extra
@pytest.mark.parametrize("model_type", ["no_such_model", "vit", "bert"])
def test_only_causal_language_models_are_taken(model_type, text):
    """bert is on transformers' list, but sees the bytes it is to predict."""
    with pytest.raises(HyperGPUError) as refusal:
        build_model(spec(model_type, **{"num_hidden_layers": 1} if model_type == "bert" else {}), text, seed=0)
    assert refusal.value.code == "model.invalid_config"


@needs_extra
def test_a_hugging_face_model_beyond_the_limit_is_refused(text):
    with pytest.raises(HyperGPUError) as refusal:
        build_model(spec("gpt2", n_layer=200, n_embd=8192, n_head=64), text, seed=0)
    assert refusal.value.code == "model.too_large"
