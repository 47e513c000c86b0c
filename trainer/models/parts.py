"""What the convolutional architectures share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

Width = Annotated[int, Field(ge=1, le=8192)]
Channels = Annotated[int, Field(ge=1, le=2048)]


def norm(channels: int) -> nn.Module:
    """GroupNorm (Wu and He 2018), never BatchNorm: running statistics are buffers that no pseudo-gradient carries, and
    averages of nodes' statistics are not the statistics of the averaged model."""
    groups = next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def conv(inside: int, outside: int, *, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False), norm(outside), nn.ReLU())


def halve() -> nn.Module:
    """2 x 2 max pool that leaves a side of one pixel as it is."""
    return nn.MaxPool2d(2, ceil_mode=True)


def halved(side: int, times: int) -> int:
    """Pixels of a side after `times` pools."""
    for _ in range(times):
        side = (side + 1) // 2
    return side
