import pytest
import torch

from trainer.data.sample import SampleInfo

torch.set_num_threads(1)


@pytest.fixture
def image() -> SampleInfo:
    return SampleInfo("image", (1, 8, 8), 10)


@pytest.fixture
def text() -> SampleInfo:
    return SampleInfo("bytes", (16,), 256)
