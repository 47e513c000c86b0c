"""What the worker does with an order, in this process."""

from __future__ import annotations

import pytest
from lineage import lineage

from trainer.operator import tasks
from trainer.operator.benchmark import device_facts
from trainer.operator.config import Home
from trainer.operator.emulation import VARIABLE
from trainer.operator.replica import MissingError
from trainer.operator.results import find_result, mark_handed_in
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import parse_spec

SPEC = parse_spec({"inner": {"steps": 12, "batch_size": 8}, "encoding": {"kind": "topk", "chunk": 64, "k": 4}})
FIRST = lineage(SPEC, sha256_hex, length=1)[0].version


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


def order(*, round: int = 0, fence: int = 1) -> WorkOrder:
    """Every round starts from the first version."""
    return WorkOrder(
        job_id=1, round=round, node_id=7, fence=fence, deadline=2_000_000_000, base=FIRST.base, checkpoint=FIRST.checkpoint,
        shard=0, shards=2, seed=round, steps=SPEC.inner.steps, encoding=SPEC.encoding, spec=SPEC,
    )  # fmt: skip


def test_given_an_order_when_a_fresh_worker_runs_it_again_then_the_artifact_is_the_same(home):
    first = tasks.train(order(), home, Listener())
    tasks.RESIDENTS.clear()
    second = tasks.train(order(fence=2), home, Listener())

    assert (first.sha256, first.units) == (second.sha256, 12 * 8)
    assert find_result(home, order(fence=3)) == second
    mark_handed_in(home, order(), second)
    assert find_result(home, order(fence=4)) is None


def test_given_a_stop_in_the_middle_then_nothing_is_stored_and_a_later_run_is_as_if_it_never_began(home, monkeypatch):
    monkeypatch.setattr(tasks, "REPORT_SECONDS", 0)
    assert tasks.train(order(), home, Listener(stop_at=5)) is None
    assert find_result(home, order()) is None
    resumed = tasks.train(order(), home, Listener())
    tasks.RESIDENTS.clear()

    assert resumed.sha256 == tasks.train(order(), home, Listener()).sha256


def test_given_error_feedback_then_it_counts_only_when_its_artifact_was_handed_in(home):
    result = tasks.train(order(round=0), home, Listener())
    tasks.train(order(round=1), home, Listener())
    assert tasks.RESIDENTS[1].state.error is None, "round 0 was never handed in"

    result = tasks.train(order(round=2), home, Listener())
    mark_handed_in(home, order(round=2), result)
    tasks.train(order(round=3), home, Listener())
    assert tasks.RESIDENTS[1].state.error is not None


def test_given_progress_then_every_loss_point_is_reported_once_and_the_last_step_always(home):
    listener = Listener()
    result = tasks.train(order(), home, listener)

    assert listener.posted[0]["step"] == 1
    assert listener.posted[-1]["step"] == 12
    assert [point for update in listener.posted for point in update["losses"]] == result.losses


def test_given_data_that_is_missing_or_rotted_then_it_is_asked_for_before_anything_else(home):
    text = bytes(range(32, 127)) * 300
    sha256 = sha256_hex(text)
    spec = parse_spec({"data": {"kind": "text", "files": {"text": sha256}}})
    for content in (None, b"rotten"):
        if content is not None:
            (home.cache / sha256).write_bytes(content)
        with pytest.raises(MissingError) as caught:
            tasks.data_files(spec, home)
        assert caught.value.artifacts == {"text": sha256}
        assert not (home.cache / sha256).exists()
    (home.cache / sha256).write_bytes(text)
    assert tasks.data_files(spec, home) == {"text": home.cache / sha256}


def test_given_an_artifact_that_rotted_then_its_result_is_not_used(home):
    result = tasks.train(order(), home, Listener())
    (home.artifacts / result.sha256).write_bytes(b"rotten")
    assert find_result(home, order()) is None


def test_given_many_jobs_then_the_one_used_longest_ago_leaves_the_device(home):
    for job in (1, 2, 1, 3):
        tasks.train(order().model_copy(update={"job_id": job}), home, Listener())
    assert list(tasks.RESIDENTS) == [1, 3]


def test_an_emulated_machine_is_as_slow_as_it_says_and_called_emulated(home, monkeypatch):
    """12 steps of 8 samples at 400 samples/s: 0.24 s."""
    monkeypatch.setenv(VARIABLE, "400")
    facts = device_facts(home)
    assert (facts["device"], facts["samples_per_second"]) == ("emulated machine, 400 samples/s", 400)
    slow = tasks.train(order(), home, Listener())
    monkeypatch.delenv(VARIABLE)
    tasks.RESIDENTS.clear()
    fast = tasks.train(order(fence=2), home, Listener())
    assert slow.seconds > 0.23
    assert (slow.sha256, slow.losses) == (fast.sha256, fast.losses)
