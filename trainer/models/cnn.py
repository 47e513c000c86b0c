"""A few convolutions, each followed by a pool, and one hidden layer."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field
from torch import nn

from trainer.data.sample import SampleInfo
from trainer.models.parts import Channels, Width, conv, halve, halved
from trainer.protocol.spec import Section


class Config(Section):
    channels: tuple[Channels, ...] = Field(default=(16, 32), min_length=1, max_length=8, description="Of each convolution.")
    hidden: Width = Field(default=64, description="Width of the hidden layer.")


def build(config: Config, sample: SampleInfo) -> nn.Module:
    channels, height, width = sample.shape
    layers = [layer for pair in pairwise((channels, *config.channels)) for layer in (conv(*pair), halve())]
    stages = len(config.channels)
    flat = config.channels[-1] * halved(height, stages) * halved(width, stages)
    head = [nn.Flatten(), nn.Linear(flat, config.hidden), nn.ReLU(), nn.Linear(config.hidden, sample.classes)]
    return nn.Sequential(*layers, *head)
