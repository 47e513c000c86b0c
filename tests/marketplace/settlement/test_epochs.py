"""The next set of attestors begins when it is due, whoever sees to it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.settlement import tasks
from marketplace.settlement.models import AttestorSet
from marketplace.settlement.selectors import current_set, due_epochs
from marketplace.settlement.services import epochs
from tests.marketplace.world import begin_epoch

pytestmark = pytest.mark.django_db


def test_the_newest_set_is_the_current_one_and_an_epoch_is_recorded_once(epoch: AttestorSet) -> None:
    assert current_set() == epoch
    later = begin_epoch(2)
    begin_epoch(2, ("attestor 1",))
    assert current_set() == later
    assert len(current_set().members) == 3


def test_an_epoch_that_is_over_is_followed_by_the_next(epoch: AttestorSet) -> None:
    assert due_epochs() == []
    AttestorSet.objects.update(over_at=timezone.now() - timedelta(seconds=1))
    assert due_epochs() == [{"epoch": 1}]
    for _ in range(2):
        tasks.begin_epoch(**due_epochs()[0])
    assert Intent.objects.filter(kind="beginEpoch").count() in (1, 2), "once a minute, and a minute may pass here"
    begin_epoch(2)
    assert due_epochs() == []


def test_an_attestor_that_leaves_makes_a_new_set_due_at_once(epoch: AttestorSet) -> None:
    log = LogEntry(name="registry.AttestorLeaving", args={}, block=1, block_hash="", tx_hash="", log_index=0, timestamp=0)
    epochs.record_attestor_gone(log)
    assert due_epochs() == [{"epoch": 1}]
