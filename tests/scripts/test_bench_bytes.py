"""The bench `bytes`: what counts as reached, and data parallel on the very samples that DiLoCo's nodes take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.hypergpu_bench import bytes as bench_bytes
from scripts.hypergpu_bench.bytes import AUDITS, DDP, RING, Point, Run, bytes_to, final, gaps, joined_batches, ratios
from scripts.hypergpu_bench.tasks import NODES, TASKS, Task, data_file
from scripts.hypergpu_demo.supervise import StackError
from trainer.data import shard_batches
from trainer.diloco.round import bench
from trainer.protocol.limits import evidence_bytes
from trainer.protocol.orders import order_seed
from trainer.protocol.wire import encoded_bytes

SMALL = Task(
    files={},
    spec={
        "data": {"kind": "digits"}, "model": {"architecture": "mlp", "config": {"hidden": [16]}},
        "inner": {"steps": 5, "batch_size": 4}, "rounds": {"rounds": 2, "nodes": NODES, "quorum": NODES},
    },
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setitem(TASKS, "text", SMALL)
    return SMALL


def test_a_target_is_reached_at_the_first_point_at_or_below_it():
    curve = [Point(1, 10, 3.0), Point(2, 20, 2.0), Point(3, 30, 2.5), Point(4, 40, 1.0)]
    assert [bytes_to(curve, target) for target in (3.5, 2.0, 1.5, 0.5)] == [10, 20, 40, None]


def test_the_best_learning_rate_of_data_parallel_counts_and_seeds_that_do_not_reach_the_target_do_not():
    curves = {
        Run("text", DDP, 1, 0.1): [Point(1, 1000, 2.0), Point(2, 2000, 1.5)],
        Run("text", DDP, 1, 0.2): [Point(1, 1000, 3.0), Point(2, 2000, 1.0)],
        Run("text", DDP, 2, 0.1): [Point(1, 1000, 3.0), Point(2, 2000, 2.0)],
        Run("text", "ours", 1): [Point(1, 1, 3.0), Point(2, 2, 2.0)],
        Run("text", "ours", 2): [Point(1, 1, 3.0), Point(2, 2, 2.5)],
    }
    assert ratios(curves, "text", "ours", (1, 2), 2.0) == [1000 / 2]
    assert final(curves, "text", DDP, 1) == 1.0
    assert gaps(curves, "text", "ours", (1, 2), beside=DDP) == [100.0, 25.0]


def test_audits_are_counted_by_what_chance_asks_until_the_target(small: Task):
    way, count = bench_bytes.OURS, bench(small.job()).size
    curves = {
        Run("text", DDP, 1, 0.1): [Point(10, 10**9, 2.0)],
        Run("text", way, 1): [Point(5, 1_000, 3.0), Point(10, 2_000, 2.0)],
        Run("text", DDP, 2, 0.1): [Point(10, 10**9, 2.5)],
        Run("text", way, 2): [Point(5, 1_000, 2.0)],
    }
    of_two_rounds = 2 * AUDITS.newcomer_rate * AUDITS.segments * evidence_bytes(count, error=True)
    assert bench_bytes.audited_ratios(curves, "text", way, (1, 2), 2.0) == [pytest.approx(1e9 / (2_000 + of_two_rounds))]


def test_data_parallel_takes_the_samples_of_all_nodes(small: Task):
    job = small.job(seed=3)
    dataset = bench(job).dataset
    joined = list(joined_batches(job.spec, dataset))
    assert len(joined) == 10 and {len(targets) for _, targets in joined} == {4 * NODES}
    for number in range(2):
        seed = order_seed(job.spec, number, 7)
        last = shard_batches(dataset.train, shard=7, shards=NODES, seed=seed, steps=5, batch_size=4)
        for (inputs, targets), (own_inputs, own_targets) in zip(joined[5 * number : 5 * number + 5], last, strict=True):
            assert torch.equal(inputs[-4:], own_inputs) and torch.equal(targets[-4:], own_targets)


def test_a_run_counts_the_files_that_the_round_engine_made(small: Task):
    spec = small.job(**bench_bytes.WAYS[bench_bytes.OURS]).spec
    count = bench(small.job()).size
    curve = Run("text", bench_bytes.OURS, 1).curve()
    a_round = encoded_bytes(count, spec.encoding) + encoded_bytes(count, spec.downlink)
    assert [(point.steps, point.bytes) for point in curve] == [(5, a_round), (10, 2 * a_round)]
    [point] = Run("text", DDP, 1, 1e-3).curve()
    assert (point.steps, point.bytes) == (10, 10 * 2 * RING * 4 * count)


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HYPERGPU_BENCH_DATA", str(tmp_path))
    with pytest.raises(StackError, match="HYPERGPU_BENCH_DATA"):
        data_file("tinyshakespeare.txt")
