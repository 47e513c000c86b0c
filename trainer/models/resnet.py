"""CIFAR-style residual network (He et al. 2015, section 4.2), with GroupNorm: see `parts.norm` for why not BatchNorm."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from trainer.data.sample import SampleInfo
from trainer.models.parts import Channels, conv, norm
from trainer.protocol.spec import Section


class Config(Section):
    blocks: int = Field(default=1, ge=1, le=32, description="Residual blocks in each of the three stages: depth 6n + 2.")
    width: Channels = Field(default=16, le=512, description="Channels of the first stage; doubled in the second and third.")


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        self.first = conv(inside, outside, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outside, outside, 3, padding=1, bias=False), norm(outside))
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return (self.shortcut(images) + self.second(self.first(images))).relu()


class ResNet(nn.Module):
    def __init__(self, config: Config, sample: SampleInfo) -> None:
        super().__init__()
        self.stem = conv(sample.shape[0], config.width)
        blocks, inside = [], config.width
        for stage in range(3):
            outside = config.width << stage
            for block in range(config.blocks):
                blocks.append(Block(inside, outside, stride=2 if stage and not block else 1))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, sample.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def build(config: Config, sample: SampleInfo) -> nn.Module:
    return ResNet(config, sample)
