"""What the worker does with an order, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.data import load_dataset
from trainer.diloco.checkpoint import initial_checkpoint
from trainer.operator import tasks
from trainer.operator.config import Home
from trainer.operator.results import find_result, mark_handed_in, save_artifact
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import parse_spec

SPEC = parse_spec({"inner": {"steps": 12, "batch_size": 8}, "encoding": {"kind": "topk", "chunk": 64, "k": 4}})


class Listener:
    """Stands in for the broker: keeps updates, and asks to stop once `stop_at` steps are reported."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.posted: list[dict] = []
        self.stop_at = stop_at

    def post(self, update: dict) -> None:
        self.posted.append(update)

    def is_asked_to_stop(self) -> bool:
        return self.stop_at is not None and bool(self.posted) and self.posted[-1]["step"] >= self.stop_at


@pytest.fixture
def home(tmp_path) -> Home:
    tasks.RESIDENTS.clear()
    return Home.at(tmp_path)


@pytest.fixture
def paths(home) -> dict:
    base = initial_checkpoint(SPEC, load_dataset(SPEC.data, files={}).info)
    return {"base": str(home.artifacts / save_artifact(home, base)), "data": {}}


def order(paths: dict, *, round: int = 0, fence: int = 1) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=round, node_id=7, fence=fence, deadline=2_000_000_000, base=Path(paths["base"]).name,
        shard=0, shards=2, seed=round, spec=SPEC,
    )  # fmt: skip


def test_given_an_order_when_a_fresh_worker_runs_it_again_then_the_artifact_is_the_same(home, paths):
    first = tasks.train(order(paths), home, paths, Listener())
    tasks.RESIDENTS.clear()
    second = tasks.train(order(paths, fence=2), home, paths, Listener())

    assert (first.sha256, first.units) == (second.sha256, 12 * 8)
    assert find_result(home, order(paths, fence=3)) == second
    mark_handed_in(home, order(paths), second)
    assert find_result(home, order(paths, fence=4)) is None


def test_given_a_stop_in_the_middle_then_nothing_is_stored_and_a_later_run_is_as_if_it_never_began(home, paths, monkeypatch):
    monkeypatch.setattr(tasks, "REPORT_SECONDS", 0)
    assert tasks.train(order(paths), home, paths, Listener(stop_at=5)) is None
    assert find_result(home, order(paths)) is None
    resumed = tasks.train(order(paths), home, paths, Listener())
    tasks.RESIDENTS.clear()

    assert resumed.sha256 == tasks.train(order(paths), home, paths, Listener()).sha256


def test_given_error_feedback_then_it_counts_only_when_its_artifact_was_handed_in(home, paths):
    result = tasks.train(order(paths, round=0), home, paths, Listener())
    tasks.train(order(paths, round=1), home, paths, Listener())
    assert tasks.RESIDENTS[1].state.error is None, "round 0 was never handed in"

    result = tasks.train(order(paths, round=2), home, paths, Listener())
    mark_handed_in(home, order(paths, round=2), result)
    tasks.train(order(paths, round=3), home, paths, Listener())
    assert tasks.RESIDENTS[1].state.error is not None


def test_given_progress_then_every_loss_point_is_reported_once_and_the_last_step_always(home, paths):
    listener = Listener()
    result = tasks.train(order(paths), home, paths, listener)

    assert listener.posted[0]["step"] == 1
    assert listener.posted[-1]["step"] == 12
    assert [point for update in listener.posted for point in update["losses"]] == result.losses


def test_given_a_cached_base_that_rotted_then_it_is_refused_and_removed(home, paths):
    Path(paths["base"]).write_bytes(b"rotten")
    with pytest.raises(HyperGPUError, match=r"artifact\.hash_mismatch"):
        tasks.train(order_with_base := order(paths), home, paths, Listener())
    assert not (home.artifacts / order_with_base.base).exists()


def test_given_an_artifact_that_rotted_then_its_result_is_not_used(home, paths):
    result = tasks.train(order(paths), home, paths, Listener())
    (home.artifacts / result.sha256).write_bytes(b"rotten")
    assert find_result(home, order(paths)) is None


def test_given_many_jobs_then_the_one_used_longest_ago_leaves_the_device(home, paths):
    for job in (1, 2, 1, 3):
        tasks.train(order(paths).model_copy(update={"job_id": job}), home, paths, Listener())
    assert list(tasks.RESIDENTS) == [1, 3]
