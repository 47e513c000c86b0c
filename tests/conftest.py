"""What holds for all tests."""

from collections.abc import Iterator

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several cores may share the tests (`-n`); those that start the product's processes all run on one."""
    for item in items:
        if item.get_closest_marker("processes"):
            item.add_marker(pytest.mark.xdist_group("processes"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models on several threads wait for each other."""
    import torch  # noqa: PLC0415  (most tests need none)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
