from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.cache import cache

from marketplace.settlement import attesting


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    """No test sees the blobs of another, what its attestors have signed and found, or what it has cached."""
    yield
    for folder in ("artifacts", "attestors"):
        shutil.rmtree(settings.HYPERGPU.state_dir / folder, ignore_errors=True)
    attesting.judged.cache_clear()
    cache.clear()
