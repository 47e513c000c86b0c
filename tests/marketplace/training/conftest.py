from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import override_settings

from marketplace.jobs.models import Job
from marketplace.training.models import Round
from marketplace.training.services import rounds
from tests.marketplace.training.work import started
from tests.marketplace.world import TestNode, fund, register


@pytest.fixture
def nodes(db: None) -> list[TestNode]:
    """Two nodes that are online with a standing bid."""
    found = [register(1), register(2)]
    for node in found:
        node.bid()
    return found


@pytest.fixture
def job(nodes: list[TestNode]) -> Job:
    """A funded job with its first checkpoint: running."""
    return started(fund())


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    """Nobody falls silent because the machine that tests is busy."""
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update={"lease_seconds": 600, "offline_seconds": 600})):
        yield


@pytest.fixture
def open_round(job: Job) -> Round:
    """The first round, unless the job's start has opened it already."""
    rounds.open_round(job_id=job.pk)
    return Round.objects.get(job=job, number=0)
