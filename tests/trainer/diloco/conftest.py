import pytest
import torch
from hypothesis import settings

from trainer.data import Dataset, load_dataset
from trainer.protocol.spec import DataSpec

torch.set_num_threads(1)
settings.register_profile("unhurried", deadline=None)  # the machine is shared
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataSpec(), files={})
