"""Fully connected layers over the flattened image."""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field
from torch import nn

from trainer.data.sample import SampleInfo
from trainer.models.parts import Width
from trainer.protocol.spec import Section


class Config(Section):
    hidden: tuple[Width, ...] = Field(default=(64,), max_length=16, description="Width of each hidden layer.")


def build(config: Config, sample: SampleInfo) -> nn.Module:
    widths = (math.prod(sample.shape), *config.hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], sample.classes))
