"""Peers on the same task: the task is the product's own, results and interface counters are read as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from scripts.hypergpu_bench.peers import bench, runs, task, task_file
from scripts.hypergpu_bench.peers.namespaces import Counters, parse_counters
from scripts.hypergpu_demo.supervise import StackError
from trainer.data import load_dataset
from trainer.diloco.checkpoint import initial_params
from trainer.diloco.local import NodeState, run_local_steps
from trainer.protocol.orders import WorkOrder, order_seed
from trainer.scoring.scores import evaluate

TABLE = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1234      10    0    0    0     0          0         0     1234      10    0    0    0     0       0          0
  eth0:98765      20    0    0    0     0          0         0      321       7    0    0    0     0       0          0
"""


def test_interface_counters_are_read_from_the_kernels_table():
    assert parse_counters(TABLE, "lo") == Counters(received=1234, sent=1234, packets=20)
    assert parse_counters(TABLE, "eth0") == Counters(received=98765, sent=321, packets=27)
    with pytest.raises(ValueError, match="wlan0"):
        parse_counters(TABLE, "wlan0")


def test_peers_train_what_the_products_node_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = tmp_path / "text"
    text.write_bytes(b"What light through yonder window breaks? " * 300)
    monkeypatch.setattr(task_file, "TEXT", text)
    inner = {"steps": 3, "batch_size": 2, "learning_rate": 2e-3}
    spec = task_file.job_spec(rounds=2, seed=3, inner=inner)
    parameters = task_file.write_task(tmp_path / "task.npz", spec)

    dataset = load_dataset(spec.data, files={"text": text})
    base = initial_params(spec, dataset.info)
    assert parameters == base.numel()
    state = NodeState(spec, dataset.info)
    order = WorkOrder(
        job_id=1, round=0, node_id=1, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=1, shards=2,
        seed=order_seed(spec, 0, 1), steps=3, encoding=spec.encoding, spec=spec,
    )  # fmt: skip
    expected = run_local_steps(state, order, base, dataset)

    threads = torch.get_num_threads()
    peer = task.Task(tmp_path / "task.npz", worker=1)
    torch.set_num_threads(threads)
    optimizer = peer.optimizer()
    assert peer.steps == 6
    assert peer.held_out_loss() == pytest.approx(evaluate(state.model, state.shapes, base, dataset.eval).loss, rel=1e-5)
    for step in range(3):
        loss = peer.backward(peer.model, optimizer, step)
        optimizer.step()
        assert loss == pytest.approx(expected.losses[step], rel=1e-4)
    moved = torch.cat([value.detach().flatten() for _, value in sorted(peer.model.named_parameters())])
    assert torch.allclose(base - moved, expected.pseudo_gradient, atol=1e-5)


def test_a_peers_outcome_is_its_servers_or_its_workers_mean():
    workers = {
        f"worker-{number}": {
            "began": 10.0 + number,
            "ended": 30.0 + number,
            "steps": 160,
            "inner_seconds": 8.0,
            "loss": 2.0 + number,
        }
        for number in range(2)
    }
    outcome = runs.outcome_of("ddp", workers, bytes_=5)
    assert (outcome.loss, outcome.seconds, outcome.inner_rate) == (2.5, 21.0, 20.0)
    assert outcome.steps_per_second == pytest.approx(160 / 21)
    served = runs.outcome_of("flower", workers | {"server": {"began": None, "ended": 40.0, "steps": 0, "loss": 1.5}}, bytes_=5)
    assert (served.loss, served.seconds) == (1.5, 30.0)
    with pytest.raises(StackError, match="left no result"):
        runs.outcome_of("ddp", {}, bytes_=5)


def test_goals_are_torchfts_means_and_a_fortieth_of_its_bytes():
    def one(name: str, bytes_: int, loss: float) -> runs.Outcome:
        return runs.Outcome(name=name, bytes=bytes_, loss=loss, steps=160, seconds=10.0, inner_rate=20.0)

    found = bench.figures({"hypergpu": [one("hypergpu", 500, 2.5)], "torchft": [one("torchft", 24_000, 2.6)]})
    assert found["bytes_hypergpu"].goal == 600
    assert (found["loss_hypergpu"].goal, found["steps_per_second_hypergpu"].goal) == (2.6, 16.0)
    assert found["bytes_torchft"].goal is None
    assert bench.figures({"hypergpu": [one("hypergpu", 500, 2.5)]}, after="_50_rounds")["loss_hypergpu_50_rounds"].goal is None
    assert set(found) == {f"{what}_{name}" for what in ("bytes", "loss", "steps_per_second") for name in ("hypergpu", "torchft")}


def test_what_does_not_run_is_named_and_the_others_go_on_and_are_kept_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench, "OUTCOMES", tmp_path / "outcomes.jsonl")

    def broken(seed: int) -> runs.Outcome:
        raise StackError("many lines\nflower could not be installed: no network")

    def mistaken(seed: int) -> runs.Outcome:
        raise KeyError("began")

    def works(seed: int) -> runs.Outcome:
        return runs.Outcome(name="ddp", bytes=1, loss=1.0, steps=2, seconds=1.0, inner_rate=2.0)

    problems: list[str] = []
    planned = [("flower", broken, 0), ("hivemind", mistaken, 0), ("ddp", works, 0), ("flower", broken, 1)]
    found = bench.collect(problems, "plain", planned)
    assert list(found) == ["ddp"]
    assert problems == [
        "flower (plain, seed 0) did not get through: flower could not be installed: no network",
        "hivemind (plain, seed 0) did not get through: KeyError('began')",
    ]
    assert "no network" in capsys.readouterr().err
    kept = [json.loads(line) for line in bench.OUTCOMES.read_text().splitlines()]
    assert [(row["system"], row.get("bytes"), row.get("problem")) for row in kept] == [
        ("flower", None, problems[0]), ("hivemind", None, problems[1]), ("ddp", 1, None)
    ]  # fmt: skip


def test_a_process_that_fails_leaves_its_last_words():
    with pytest.raises(StackError, match=r"exit code 3.*why it ended"):
        runs.finish("peer", [sys.executable, "-c", "import sys; print('why it ended'); sys.exit(3)"])
    runs.finish("peer", [sys.executable, "-c", "pass"])


def test_a_process_that_hangs_is_ended_and_shows_a_sign_of_life_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(runs, "PROGRESS_SECONDS", 0.2)
    hangs = "import time; print('7 rounds trained', flush=True); time.sleep(60)"
    with pytest.raises(StackError, match="did not end within 1 s"):
        runs.finish("hypergpu", [sys.executable, "-c", hangs], patience=1.0)
    assert "7 rounds trained" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("2026-11-21 16:00:00", 1795276800.0), ("2026-11-21T16:00:00.5Z", 1795276800.5)])
def test_moments_without_a_zone_are_utc(text: str, seconds: float):
    assert runs.moment(text) == seconds


def test_nodes_wait_from_the_last_receipt_to_the_next_rounds_leases():
    assert runs.pause([(0.0, 10.0), (10.5, 20.0), (21.5, 30.0), (30.25, 40.0)]) == 0.5
    assert runs.pause([(0.0, 10.0)]) is None
