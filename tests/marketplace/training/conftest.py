from __future__ import annotations

import pytest

from marketplace.jobs.models import Job
from marketplace.training import engine, selectors
from marketplace.training.models import Round
from marketplace.training.services import rounds, verdicts
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
    job = fund()
    verdicts.record_start(job_id=job.pk, prepared=engine.prepare(selectors.job_work(job)))
    job.refresh_from_db()
    return job


@pytest.fixture
def open_round(job: Job) -> Round:
    """The first round, unless the job's start has opened it already."""
    rounds.open_round(job_id=job.pk)
    return Round.objects.get(job=job, number=0)
