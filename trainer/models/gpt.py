"""Decoder-only transformer over bytes (Radford et al. 2019): causal, pre-norm, input and output embedding tied."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from trainer.data.sample import SampleInfo
from trainer.protocol.spec import Section


class Config(Section):
    layers: int = Field(default=3, ge=1, le=96)
    heads: int = Field(default=4, ge=1, le=128)
    width: int = Field(default=96, ge=8, le=8192, description="Of the residual stream; a multiple of `heads`.")

    @model_validator(mode="after")
    def heads_share_the_width(self) -> Config:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class Layer(nn.Module):
    """Attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width, bias=False)
        self.feed_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        batch, length, width = stream.shape
        mixed = self.attention_in(self.attention_norm(stream)).view(batch, length, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        stream = stream + self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        return stream + self.feed_out(F.gelu(self.feed_in(self.feed_norm(stream))))


class GPT(nn.Module):
    """(batch, length) int64 bytes to (batch, length, classes) logits; `length` up to the sequence length of the data."""

    def __init__(self, config: Config, sample: SampleInfo) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sample.classes, config.width)
        self.position = nn.Embedding(sample.shape[0], config.width)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)
        self.start(config)

    def start(self, config: Config) -> None:
        """Weights from N(0, 0.02); what is added to the residual stream is scaled down with depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                depth = math.sqrt(2 * config.layers) if name.endswith("_out.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 / depth)

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.embedding(inputs) + self.position(torch.arange(inputs.shape[1], device=inputs.device))
        for layer in self.layers:
            stream = layer(stream)
        return F.linear(self.norm(stream), self.embedding.weight)


def build(config: Config, sample: SampleInfo) -> nn.Module:
    return GPT(config, sample)
