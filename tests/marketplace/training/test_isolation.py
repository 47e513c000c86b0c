"""What only time brings about is brought about for each row, whatever happens to the one before."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.common.tasks import each
from marketplace.events import sweeping
from marketplace.events import tasks as events
from marketplace.jobs.models import Job
from marketplace.training import tasks
from marketplace.training.models import Audit, Round
from marketplace.training.services import audits, leases, rounds
from tests.marketplace.training.work import overdue, started
from tests.marketplace.world import TestNode, fund

pytestmark = pytest.mark.django_db


@pytest.fixture
def nothing_passed_over() -> None:
    """Here rows fail on purpose."""


def failing_at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, *, key: str, value: int) -> None:
    """`place.name` fails for one row, and does what it did for the others."""
    original = getattr(place, name)

    def act(**given: Any) -> Any:
        if given[key] == value:
            raise RuntimeError("this row is broken")
        return original(**given)

    monkeypatch.setattr(place, name, act)


@pytest.fixture
def two_jobs(nodes: list[TestNode]) -> list[Job]:
    return [started(fund(chain_id=1)), started(fund(chain_id=2, spec={"seed": 7}))]


def test_each_goes_on_after_a_failure_and_says_for_which_row(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    assert each([4, 0, 2, 1], lambda row: seen.append(row) or 4 // row > 1) == 2
    assert seen == [4, 0, 2, 1]
    assert "passed over 0" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_job_whose_round_cannot_open_stops_no_other(two_jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    broken, healthy = two_jobs
    Round.objects.all().delete()
    failing_at(monkeypatch, rounds, "open_round", key="job_id", value=broken.pk)
    tasks.tick()
    assert list(Round.objects.values_list("job", flat=True)) == [healthy.pk]


def test_a_round_that_cannot_close_stops_no_other(two_jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    for job in two_jobs:
        rounds.open_round(job_id=job.pk)
    overdue()
    broken, healthy = Round.objects.order_by("pk")
    failing_at(monkeypatch, rounds, "close_round_if_complete", key="round_id", value=broken.pk)
    rounds.close_complete_rounds()
    broken.refresh_from_db()
    healthy.refresh_from_db()
    assert (broken.extensions, healthy.extensions) == (0, 1)


def test_a_step_of_the_clock_that_fails_stops_none_after_it(two_jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    Round.objects.all().delete()
    for place, name in ((leases, "expire_leases"), (audits, "expire"), (rounds, "give_up")):
        monkeypatch.setattr(place, name, broken)
    tasks.tick()
    assert Round.objects.exists()


def test_a_row_whose_silence_cannot_be_recorded_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def act(audit: Audit) -> bool:
        seen.append(audit.pk)
        raise RuntimeError("broken")

    monkeypatch.setattr(Audit.objects, "filter", lambda **_: Rows())
    monkeypatch.setattr(audits, "record_silence", act)
    assert audits.expire() == 0
    assert seen == [1, 2]


class Rows:
    def select_related(self, *_: str) -> list[Audit]:
        return [Audit(pk=1), Audit(pk=2)]


def test_a_kind_of_row_that_cannot_be_looked_for_stops_no_other(two_jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[int] = []

        def delay(self, row: int) -> None:
            self.calls.append(row)
            if row == 1:
                raise RuntimeError("its attestors cannot be asked")

    def broken() -> list[dict[str, Any]]:
        raise RuntimeError("broken")

    unheard, heard = Recorder(), Recorder()
    kinds = [(broken, unheard), (lambda: [{"row": 1}, {"row": 2}], heard)]
    monkeypatch.setattr(sweeping, "STALLED", kinds)
    events.sweep()
    assert (unheard.calls, heard.calls) == ([], [1, 2])
