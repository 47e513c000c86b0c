"""Slow work is waited for, lost work is driven again, and what kills its workers is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
from django.utils import timezone

from marketplace.common import driving
from marketplace.common.driving import MAX_DRIVES, STALL, claim, under_way
from marketplace.common.models import Driven
from marketplace.config.celery import app
from marketplace.events import sweeping
from marketplace.jobs.models import Job
from marketplace.settlement import tasks as settlement
from marketplace.training import engine, selectors, tasks
from marketplace.training.models import Checkpoint, Contribution, Round
from marketplace.training.services import rounds, verdicts
from tests.marketplace.training.work import contribute
from tests.marketplace.world import TestNode
from tests.support.anvil import wait_until
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec

pytestmark = pytest.mark.django_db
LONG_AGO = 2 * STALL


def grow_old(*models: type[Driven]) -> None:
    for model in models:
        model._default_manager.update(driven_at=timezone.now() - LONG_AGO)


@pytest.fixture
def aggregating(open_round: Round) -> Round:
    Round.objects.update(state=Round.State.AGGREGATING, driven_at=timezone.now())
    return open_round


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Begin work as a worker that dies at it: it neither ends nor shows life."""
    monkeypatch.setattr(driving, "show_life", lambda mine, over: None)
    begun: list[Any] = []

    def begin(rows: Any, pk: int) -> Any:
        begun.append(under_way(rows, pk))
        return begun[-1].__enter__()

    yield begin
    for one in begun:
        one.__exit__(None, None, None)


@pytest.mark.django_db(transaction=True)
def test_work_that_takes_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "BEAT", 0.01)
    job = Job.objects.create(requester="", spec=JobSpec().model_dump(mode="json"), escrow=1, max_rate=1, state=Job.State.STOPPED)
    aggregating = Round.objects.create(job=job, number=0, state=Round.State.AGGREGATING, deadline=timezone.now())
    with under_way(Round.objects.all(), aggregating.pk):
        for _ in range(MAX_DRIVES + 1):
            grow_old(Round)
            wait_until(lambda: not driving.lost(Round.objects.all()).exists(), what="a sign of life")
            assert selectors.stalled_rounds() == []
            tasks.tick()
    aggregating.refresh_from_db()
    assert (aggregating.state, aggregating.drives, aggregating.worker) == (Round.State.AGGREGATING, 1, "")


def test_what_waits_in_a_queue_is_asked_for_again_and_never_given_up(open_round: Round, nodes: list[TestNode]) -> None:
    contribute(nodes[0])
    for _ in range(4 * MAX_DRIVES):
        grow_old(Contribution)
        tasks.tick()
        assert len(list(selectors.stalled_contributions())) == 1
        assert selectors.stalled_contributions() == [], "it was asked for just now"
    waiting = Contribution.objects.get()
    assert (waiting.state, waiting.drives) == (Contribution.State.RECEIVED, 0)
    tasks.check_contribution(waiting.pk)
    assert Contribution.objects.get().state == Contribution.State.CHECKED


def test_asking_again_does_not_make_the_queue_longer_and_longer(
    open_round: Round, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    contribute(nodes[0])
    grow_old(Contribution)
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.check_contribution, "apply_async", lambda **options: sent.append(options))
    sweeping.redrive_stalled()
    assert sent == [{"kwargs": {"contribution_id": Contribution.objects.get().pk}, "expires": STALL.total_seconds()}]


def test_what_its_worker_died_of_is_driven_by_the_next_until_it_has_killed_too_many(
    open_round: Round, nodes: list[TestNode], dying: Callable[..., Any]
) -> None:
    contribute(nodes[0])
    pk = Contribution.objects.get().pk
    for death in range(MAX_DRIVES):
        assert dying(Contribution.objects.all(), pk) is not None, f"attempt {death}"
        tasks.tick()
        assert Contribution.objects.get().state == Contribution.State.RECEIVED, "the worker may still be at it"
        grow_old(Contribution)
        assert selectors.stalled_contributions() == ([{"contribution_id": pk}] if death + 1 < MAX_DRIVES else [])
    tasks.tick()
    given_up = Contribution.objects.get()
    assert (given_up.state, given_up.code) == (Contribution.State.REJECTED, "contribution.unreadable")


def test_a_worker_does_not_take_what_another_is_at(aggregating: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "close_round", lambda *_, **__: pytest.fail("computed twice"))
    with under_way(Round.objects.all(), aggregating.pk) as mine:
        assert mine == aggregating
        tasks.aggregate_round(aggregating.pk)
    aggregating.refresh_from_db()
    assert (aggregating.worker, aggregating.drives) == ("", 1)


def test_work_that_fails_is_free_for_the_next_attempt(aggregating: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(engine, "close_round", broken)
    for _ in range(MAX_DRIVES):
        grow_old(Round)
        assert selectors.stalled_rounds() == [{"round_id": aggregating.pk}]
        with pytest.raises(MemoryError):
            tasks.aggregate_round(aggregating.pk)
    grow_old(Round)
    assert selectors.stalled_rounds() == []
    rounds.give_up()
    assert "could not be aggregated" in Job.objects.get().reason


def test_a_worker_that_only_seemed_dead_does_not_free_what_another_has_taken(aggregating: Round) -> None:
    rows = Round.objects.all()
    with under_way(rows, aggregating.pk):
        grow_old(Round)
        assert claim(rows) == [aggregating.pk]
        second = under_way(rows, aggregating.pk)
        assert second.__enter__() is not None
    aggregating.refresh_from_db()
    assert aggregating.worker and aggregating.drives == 2
    second.__exit__(None, None, None)


def test_work_that_hangs_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []

    def kill(pid: int, signal: int) -> None:
        killed.append((pid, signal))
        raise SystemExit

    monkeypatch.setattr(driving.os, "kill", kill)
    monkeypatch.setattr(driving, "LONGEST", -1.0)
    monkeypatch.setattr(driving, "BEAT", 0.0)
    with pytest.raises(SystemExit):
        driving.show_life(Round.objects.all(), Event())
    assert killed == [(driving.os.getpid(), driving.signal.SIGKILL)]


def test_only_what_is_short_has_a_time_limit() -> None:
    slow = {task.name for task in app.tasks.values() if task.name.startswith("marketplace") and not task.time_limit}
    expected = {tasks.start_job, tasks.size_job, tasks.check_contribution, tasks.aggregate_round, tasks.evaluate_round}
    expected |= {tasks.replay_audit, settlement.attest, settlement.serve}
    assert slow == {task.name for task in expected}
    assert not app.conf.task_time_limit and not app.conf.task_soft_time_limit


@pytest.fixture
def done(open_round: Round, nodes: list[TestNode]) -> Round:
    """A round that is aggregated and not measured yet."""
    for node in nodes:
        contribute(node)
    for contribution in Contribution.objects.all():
        tasks.check_contribution(contribution.pk)
    rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    open_round.refresh_from_db()
    return open_round


def test_an_evaluation_that_was_lost_is_asked_for_again_once(done: Round) -> None:
    assert list(selectors.unmeasured_rounds()) == [], "it was asked for just now"
    grow_old(Checkpoint)
    assert list(selectors.unmeasured_rounds()) == [{"round_id": done.pk}]
    assert list(selectors.unmeasured_rounds()) == []
    grow_old(Checkpoint)
    tasks.evaluate_round(done.pk)
    assert list(selectors.unmeasured_rounds()) == []


def test_a_checkpoint_that_cannot_be_measured_is_given_up_with_a_reason(
    done: Round, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise HyperGPUError("data.unreadable", "The evaluation split is gone.")

    monkeypatch.setattr(engine, "metric", broken)
    for _ in range(MAX_DRIVES):
        grow_old(Checkpoint)
        assert list(selectors.unmeasured_rounds()) == [{"round_id": done.pk}]
        with pytest.raises(HyperGPUError):
            tasks.evaluate_round(done.pk)
    tasks.tick()
    assert Round.objects.get(pk=done.pk).metric is None, "the last one may still be at it"
    grow_old(Checkpoint)
    tasks.tick()
    done.refresh_from_db()
    job.refresh_from_db()
    assert done.metric == selectors.checkpoint_after(done.pk).metric == {}
    assert "could not be measured" in job.reason
    assert job.metric == job.start_metric, "what is not known is not the job's"
    grow_old(Checkpoint)
    assert list(selectors.unmeasured_rounds()) == []


def test_an_earlier_rounds_metric_counts_where_the_newest_has_none(open_round: Round, job: Job) -> None:
    Round.objects.create(job=job, number=open_round.number + 1, base="", deadline=open_round.deadline, metric={})
    verdicts.record_metric(round_id=open_round.pk, metric={"loss": 1.0, "accuracy": 0.5})
    job.refresh_from_db()
    assert job.metric == {"loss": 1.0, "accuracy": 0.5}
