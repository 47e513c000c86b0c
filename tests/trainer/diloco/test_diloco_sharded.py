"""One operator with several devices: here two processes on the CPU, with gloo between them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trainer.data import load_dataset
from trainer.diloco.local import LocalResult, NodeState, optimizer_vectors, run_local_steps
from trainer.diloco.sharded import ShardedNode
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import AuditSpec, DataSpec, InnerSpec, JobSpec, ModelSpec

CPU = torch.device("cpu")
TEXT = b"To be, or not to be, that is the question: " * 200
TOLERANCE = 1e-5
"""Relative L2. Measured: up to 3e-7 in three rounds, as sums over the batch are added in another order."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("data") / "text"
    path.write_bytes(TEXT)
    return {"text": path}


def job(**inner: object) -> JobSpec:
    """A vocabulary of 256 over 2 ranks, and 17 positions: shards of unequal size."""
    return JobSpec(
        model=ModelSpec(architecture="gpt", config={"layers": 2, "heads": 2, "width": 16}),
        data=DataSpec(kind="text", files={"text": sha256_hex(TEXT)}, sequence_length=17),
        inner=InnerSpec(**({"steps": 5, "batch_size": 8, "micro_batch": 2} | inner)), audit=AuditSpec(stride=3),
    )  # fmt: skip


def order(spec: JobSpec, number: int) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=number, node_id=0, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=0, shards=2,
        seed=number, steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


@pytest.fixture(scope="module")
def processes(files) -> Iterator[ShardedNode]:
    node = ShardedNode(job(), files, ranks=2, device=CPU)
    yield node
    node.close()


@pytest.fixture
def pair(processes) -> ShardedNode:
    processes.forget()
    return processes


def single(files) -> tuple[NodeState, torch.Tensor, object]:
    dataset = load_dataset(job().data, files=files)
    state = NodeState(job(), dataset.info, device=CPU)
    return state, state.params(), dataset


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return ((first - second).norm() / second.norm()).item()


def test_two_ranks_do_what_one_process_does_round_after_round(pair, files):
    """Same losses, pseudo-gradients and moments, whole vectors; moments stay with the ranks between rounds."""
    state, base, dataset = single(files)
    snapshots: dict[int, tuple[torch.Tensor, dict[str, torch.Tensor], int]] = {}
    losses: list[float] = []
    starts = max(pair.starts, 1)

    def snapshot(state: NodeState, done: int) -> None:
        snapshots[done] = (state.params(), optimizer_vectors(state), state.steps)

    for number in range(2):
        losses.clear()
        mine = run_local_steps(state, order(job(), number), base, dataset)
        theirs = pair.run(
            order(job(), number),
            base,
            on_step=lambda step, loss: losses.append(loss),
            on_segment=snapshot,
            should_stop=lambda: False,
        )
        assert apart(theirs.pseudo_gradient, mine.pseudo_gradient) < TOLERANCE
        assert theirs.losses == losses == pytest.approx(mine.losses, rel=1e-5)
        assert (theirs.steps_done, theirs.units) == (5, 40) and list(snapshots) == [0, 3, 5]
        params, moments, steps = snapshots[5]
        assert torch.equal(base - params, theirs.pseudo_gradient) and steps == state.steps
        assert all(apart(moments[kind], vector) < TOLERANCE for kind, vector in optimizer_vectors(state).items())
    assert pair.starts == starts and state.steps == 10


def test_all_ranks_stop_at_the_same_step(pair, files):
    _, base, _ = single(files)
    seen: list[int] = []
    result = pair.run(order(job(), 2), base, on_step=lambda step, loss: seen.append(step), should_stop=lambda: len(seen) == 2)
    assert (result.steps_done, result.units, seen) == (2, 16, [0, 1])


def test_a_killed_rank_is_a_clear_error_and_the_next_order_starts_new_ones(pair, files):
    state, base, dataset = single(files)
    starts = max(pair.starts, 1)

    def kill(step: int, loss: float) -> None:
        os.kill(pair.processes[1].pid, signal.SIGKILL)

    with pytest.raises(HyperGPUError) as refusal:
        pair.run(order(job(), 3), base, on_step=kill)
    assert refusal.value.code == "training.rank_lost" and refusal.value.data == {"rank": 1} and not pair.processes
    fresh: LocalResult = run_local_steps(state, order(job(), 3), base, dataset)
    again = pair.run(order(job(), 3), base)
    assert pair.starts == starts + 1 and apart(again.pseudo_gradient, fresh.pseudo_gradient) < TOLERANCE


def test_what_cannot_be_split_or_is_of_another_model_is_refused_before_any_process_starts(files):
    with pytest.raises(HyperGPUError) as refusal:
        ShardedNode(job(batch_size=9, micro_batch=None), files, ranks=2)
    assert refusal.value.code == "training.batch_not_divisible"
    node = ShardedNode(job(), files, ranks=2, device=CPU)
    with pytest.raises(HyperGPUError) as refusal:
        node.run(order(job(), 0), torch.zeros(3))
    assert refusal.value.code == "artifact.wrong_shape" and node.starts == 0
