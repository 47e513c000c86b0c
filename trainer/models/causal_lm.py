"""Any causal language model of Hugging Face transformers, by model type and config, over bytes.

From the config alone: no hub, no pretrained weights, no remote code, no named kernels.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.sample import SampleInfo
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import Section

MAX_COUNT = 256
"""Most layers, heads or experts: what transformers builds one Python object each for."""
MAX_NUMBER = 1 << 20
COUNTED = ("layer", "head", "expert")
OURS = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "use_cache", "tie_word_embeddings", "dtype"}
"""Settings that follow from byte data, or that the trainer decides."""

Scalar = int | float | bool | str | None


class Config(Section):
    model_type: str = Field(pattern=r"^[a-z0-9_-]{1,40}$", description="As in transformers: gpt2, llama, qwen3, ...")
    config: dict[str, Scalar | list[Scalar] | dict[str, Scalar]] = Field(
        default_factory=dict, max_length=64, description="Settings of that model type's config class."
    )


class CausalLM(nn.Module):
    """(batch, length) int64 bytes to (batch, length, classes) logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(input_ids=inputs, use_cache=False).logits


def build(config: Config, sample: SampleInfo) -> nn.Module:
    """Raises HyperGPUError `model.extra_missing` without the extra, `model.invalid_config` for what it does not take."""
    if find_spec("transformers") is None:
        raise HyperGPUError("model.extra_missing", "This architecture needs an extra: pip install 'hypergpu[transformers]'")
    import transformers  # noqa: PLC0415 - an optional extra
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: PLC0415

    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise invalid(f"transformers has no causal language model of type {config.model_type}.")
    check_settings(config.config, known=set(transformers.AutoConfig.for_model(config.model_type).to_dict()))
    bugs_and_refusals = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, ImportError,
                         RuntimeError, StrictDataclassError)  # fmt: skip
    try:
        settings = transformers.AutoConfig.for_model(
            config.model_type, **config.config, vocab_size=sample.classes, use_cache=False,
            pad_token_id=None, bos_token_id=None, eos_token_id=None, tie_word_embeddings=True,
        )  # fmt: skip
        settings._attn_implementation = "eager"
        model = CausalLM(transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.float32))
        assert_causal(model, sample)
    except bugs_and_refusals as error:
        raise invalid(f"transformers does not build this {config.model_type}: {error}") from error
    return model


def check_settings(settings: dict[str, Any], *, known: set[str]) -> None:
    """Known names and moderate numbers only: that keeps out `auto_map`, kernels and quantizers by name, and typing errors."""
    for name, value in settings.items():
        nested = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if name not in known or name in OURS or name.startswith("_") or any(isinstance(v, str) and "/" in v for v in nested):
            raise invalid(f"{name} cannot be set here.")
        limit = MAX_COUNT if any(part in name for part in COUNTED) else MAX_NUMBER
        if any(isinstance(number, int | float) and not abs(number) <= limit for number in nested):
            raise invalid(f"{name} is beyond the limit of {limit}.")


@torch.no_grad()
def assert_causal(model: nn.Module, sample: SampleInfo) -> None:
    """A last byte that changes earlier predictions would let the model read the answer; `bert` is such a "causal" model.
    Finds too few positions as well. Nothing to see on the meta device."""
    inputs = torch.zeros(1, *sample.shape, dtype=torch.int64)
    if next(model.parameters()).is_meta:
        return
    model.eval()
    changed = inputs.clone()
    changed[:, -1] = 1
    if not torch.allclose(model(inputs)[:, :-1], model(changed)[:, :-1], atol=1e-5):
        raise ValueError("it sees bytes before they come")
    model.train()


def invalid(reason: str) -> HyperGPUError:
    return HyperGPUError("model.invalid_config", reason)
