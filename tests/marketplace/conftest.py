from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from django.conf import settings


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    """No test sees the blobs of another."""
    yield
    shutil.rmtree(settings.HYPERGPU.state_dir / "artifacts", ignore_errors=True)
