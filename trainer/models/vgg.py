"""VGG (Simonyan and Zisserman 2014): stages of 3 x 3 convolutions, each stage closed by a pool."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from trainer.data.sample import SampleInfo
from trainer.models.parts import Channels, Width, conv, halve, halved
from trainer.protocol.spec import Section


class Config(Section):
    widths: tuple[Channels, ...] = Field(default=(32, 64, 128), min_length=1, max_length=6, description="Channels of each stage.")
    convolutions: int = Field(default=2, ge=1, le=8, description="In each stage.")
    hidden: Width = Field(default=128, description="Width of the hidden layer.")


def build(config: Config, sample: SampleInfo) -> nn.Module:
    inside, height, width = sample.shape
    layers: list[nn.Module] = []
    for outside in config.widths:
        for _ in range(config.convolutions):
            layers.append(conv(inside, outside))
            inside = outside
        layers.append(halve())
    stages = len(config.widths)
    flat = inside * halved(height, stages) * halved(width, stages)
    head = [nn.Flatten(), nn.Linear(flat, config.hidden), nn.ReLU(), nn.Linear(config.hidden, sample.classes)]
    return nn.Sequential(*layers, *head)
