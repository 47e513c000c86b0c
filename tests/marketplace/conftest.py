from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from django.conf import settings

from marketplace.settlement import attesting


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    """No test sees the blobs of another, or what its attestors have signed and found."""
    yield
    for folder in ("artifacts", "attestors"):
        shutil.rmtree(settings.HYPERGPU.state_dir / folder, ignore_errors=True)
    attesting.judged.cache_clear()
