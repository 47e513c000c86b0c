from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.cache import cache

from marketplace.common import tasks
from marketplace.settlement import attesting


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    """No test sees the blobs of another, what its attestors have signed and found, or what it has cached."""
    yield
    for folder in ("artifacts", "attestors"):
        shutil.rmtree(settings.HYPERGPU.state_dir / folder, ignore_errors=True)
    attesting.judged.cache_clear()
    cache.clear()


@pytest.fixture(autouse=True)
def nothing_passed_over() -> Iterator[None]:
    """What `each` passes over is logged and never raised: a test must not take it for done."""
    seen: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: seen.append(handler.format(record))  # type: ignore[method-assign]
    tasks.log.addHandler(handler)
    yield
    tasks.log.removeHandler(handler)
    assert seen == []
