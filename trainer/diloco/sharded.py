"""One operator, several GPUs: the inner loop with parameters, gradients and moments spread over them.

PyTorch's fully sharded data parallelism (`fully_shard`, FSDP2; Zhao et al. 2023, arXiv:2304.11277), block by block, one
process a device; each takes its part of every batch. What comes out is the same kind of `LocalResult`: vectors over the
whole model, so that a file does not depend on the number of GPUs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.data import Dataset, SampleInfo, load_dataset
from trainer.diloco.flat import count_of
from trainer.diloco.fragments import Own
from trainer.diloco.inner import blocks
from trainer.diloco.local import LocalResult, NodeState, default_device, optimizer_vectors, restore, train
from trainer.models import model_shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import JobSpec

MEETING_SECONDS = 300
"""What the processes get to find one another: each loads torch and the data first."""
VECTORS = ("params", "first", "second")


class ShardedState(NodeState):
    """One rank's part of a node's state. What concerns the whole model, all ranks must ask together."""

    def __init__(self, spec: JobSpec, sample: SampleInfo, mesh: DeviceMesh) -> None:
        self.mesh, self.rank, self.ranks = mesh, mesh.get_rank(), mesh.size()
        device = torch.device("cuda", self.rank) if mesh.device_type == "cuda" else torch.device("cpu")
        super().__init__(spec, sample, device=device)

    def place(self, model: nn.Module) -> nn.Module:
        model = super().place(model)
        for block in blocks(model):
            fully_shard(block, mesh=self.mesh)
        fully_shard(model, mesh=self.mesh)
        return model

    def compile(self, model: nn.Module) -> None:
        """Block by block: between two of them parameters are gathered."""
        for block in blocks(model):
            block.compile()

    def batch(self, samples: Tensor) -> Tensor:
        return super().batch(samples[self.rank :: self.ranks])

    def placed(self, value: Tensor, parameter: Tensor) -> Tensor:
        """This rank's part; each has the whole, so nothing is sent."""
        assert isinstance(parameter, DTensor)
        return distribute_tensor(value.to(self.device), self.mesh, parameter.placements, src_data_rank=None)

    def whole(self, value: Tensor) -> Tensor:
        return value.full_tensor() if isinstance(value, DTensor) else value

    def reading(self, loss: Tensor, norm: Tensor) -> Tensor:
        dist.all_reduce(loss)
        return super().reading(loss / self.ranks, self.whole(norm))


class ShardedNode:
    """`ranks` processes that train as one node and keep parameters and moments between its orders, as a `NodeState` does.

    `files` are the job's data by role, `threads` what each process may use. Processes start with the first order; whatever
    fails ends them all, and the next order starts new ones with a fresh optimizer. Vectors pass through memory-mapped files
    in `folder` (3 x 4 bytes a parameter), messages through pipes.
    """

    def __init__(
        self,
        spec: JobSpec,
        files: dict[str, Path],
        *,
        ranks: int,
        device: torch.device | None = None,
        threads: int = 1,
        folder: Path | None = None,
    ) -> None:
        """Raises HyperGPUError `training.batch_not_divisible`, `data.*` or `model.*`."""
        if spec.inner.batch_size % ranks:
            message = (
                f"A batch of {spec.inner.batch_size} samples cannot be split evenly over {ranks} GPUs: choose another number."
            )
            raise HyperGPUError("training.batch_not_divisible", message)
        self.spec, self.files, self.ranks, self.threads = spec, files, ranks, threads
        self.kind = (device or default_device()).type
        self.sample = load_dataset(spec.data, files=files).info
        self.shapes = model_shapes(spec.model, self.sample)
        self.error: Tensor | None = None
        self.own: Own | None = None
        self.folder = TemporaryDirectory(prefix="ranks-", dir=folder)
        self.vectors = shared_vectors(Path(self.folder.name), count_of(self.shapes))
        self.mirror: NodeState | None = None
        self.starts = 0
        self.is_fresh = True
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    def forget(self) -> None:
        """The next order starts with a fresh optimizer."""
        self.is_fresh = True

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []

    def run(
        self,
        order: WorkOrder,
        base: Tensor,
        *,
        first: int = 0,
        on_step: Callable[[int, float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_segment: Callable[[NodeState, int], None] | None = None,
    ) -> LocalResult:
        """As `run_local_steps`; `on_segment` gets a copy of the state, whole and on the CPU.

        Raises besides `training.out_of_memory` and, when a process ended otherwise, `training.rank_lost`.
        """
        started = time.monotonic()
        if base.shape != self.vectors["params"].shape:
            raise HyperGPUError("artifact.wrong_shape", "The base does not hold this model's parameters.")
        self.vectors["params"].copy_(base)
        try:
            if not self.processes:
                self.start()
            for pipe in self.pipes:
                hooks = (should_stop is not None, on_segment is not None)
                pipe.send((order.model_dump(mode="json"), first, self.is_fresh, *hooks))
            self.is_fresh = False
            while True:
                kind, *values = self.next_message()
                if kind == "step" and on_step is not None:
                    on_step(*values)
                elif kind == "stop?" and should_stop is not None:
                    self.pipes[0].send(should_stop())
                elif kind == "segment" and on_segment is not None:
                    on_segment(self.copy_of_state(*values), values[0])
                    self.pipes[0].send(None)
                elif kind == "done":
                    losses, done = values[0], len(values[0])
                    moved = base - self.vectors["params"]
                    return LocalResult(moved, losses, done, done * order.spec.inner.batch_size, time.monotonic() - started)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self.starts += 1
        meeting = Path(self.folder.name) / f"meeting-{self.starts}"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "torch._dynamo"])  # loaded once for all ranks
        for rank in range(self.ranks):
            here, there = context.Pipe()
            job = (self.spec.model_dump(mode="json"), self.files, self.threads)
            place = (self.kind, rank, self.ranks, meeting)
            process = context.Process(target=serve, args=(there, place, job), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.pipes.append(here)
        self.is_fresh = True

    def next_message(self) -> tuple[Any, ...]:
        """From any rank: only the first one speaks of the work, all of them of failures."""
        while True:
            wait([*self.pipes, *(process.sentinel for process in self.processes)])
            for rank, pipe in enumerate(self.pipes):
                try:
                    if not pipe.poll():
                        continue
                    kind, *values = pipe.recv()
                except EOFError:
                    raise self.lost(rank, "it ended by itself") from None
                if kind == "failed":
                    raise HyperGPUError(values[0]["code"], values[0]["message"], **values[0]["data"])
                if kind == "broke":
                    raise self.lost(rank, values[0])
                return kind, *values

    def lost(self, rank: int, reason: str) -> HyperGPUError:
        """A process that was killed breaks the others, which may be heard first: that one is named."""
        wait([process.sentinel for process in self.processes], timeout=1)
        killed = [(other, -process.exitcode) for other, process in enumerate(self.processes) if (process.exitcode or 0) < 0]
        if killed and rank not in dict(killed):
            rank, signal = killed[0]
            reason = f"signal {signal}"
        message = f"The process of GPU {rank} is gone, and this round's work with it ({reason}). The next order starts new ones."
        return HyperGPUError("training.rank_lost", message, rank=rank)

    def copy_of_state(self, done: int, steps: int) -> NodeState:
        if self.mirror is None:
            self.mirror = NodeState(self.spec, self.sample, device=torch.device("cpu"))
        restore(self.mirror, self.vectors["params"], self.vectors, steps)
        return self.mirror


def shared_vectors(folder: Path, count: int) -> dict[str, Tensor]:
    """(count,) fp32 each, memory that every process which calls this shares."""
    return {name: torch.from_file(str(folder / name), shared=True, size=count) for name in VECTORS}


Place = tuple[str, int, int, Path]
"""Kind of device, rank, ranks, and the file by which they find one another."""


def serve(pipe: Connection, place: Place, job: tuple[dict[str, Any], dict[str, Path], int]) -> None:
    """A rank's process: orders from the pipe, one after the other, until the parent is gone."""
    Thread(target=end_with_parent, daemon=True).start()
    try:
        spec, files, threads = JobSpec.model_validate(job[0]), *job[1:]
        torch.set_num_threads(threads)
        dataset = load_dataset(spec.data, files=files)
        state = ShardedState(spec, dataset.info, meet(*place))
        vectors = shared_vectors(place[-1].parent, state.count)
        while True:
            order, first, fresh, stoppable, segments = pipe.recv()
            if fresh:
                state.forget()
            losses = work(state, WorkOrder.model_validate(order), first, dataset, vectors, pipe, stoppable, segments)
            if state.rank == 0:
                pipe.send(("done", losses))
    except (EOFError, BrokenPipeError):
        return
    except HyperGPUError as error:
        pipe.send(("failed", error.as_json()))
    except torch.OutOfMemoryError:
        full = HyperGPUError("training.out_of_memory", "The model and batch do not fit these GPUs' memory.")
        pipe.send(("failed", full.as_json()))
    except Exception as error:  # noqa: BLE001 - another rank's death comes as whatever the backend raises
        pipe.send(("broke", f"{type(error).__name__}: {error}"))


def end_with_parent() -> None:
    """Without it a rank would wait in NCCL for one that is gone."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def meet(kind: str, rank: int, ranks: int, meeting: Path) -> DeviceMesh:
    """All ranks of this machine as one process group; messages between CPUs go through gloo in either case."""
    if kind == "cuda":
        torch.cuda.set_device(rank)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks,
        timeout=timedelta(seconds=MEETING_SECONDS),
    )  # fmt: skip
    return init_device_mesh(kind, (ranks,))


def work(
    state: ShardedState,
    order: WorkOrder,
    first: int,
    dataset: Dataset,
    vectors: dict[str, Tensor],
    pipe: Connection,
    stoppable: bool,
    segments: bool,
) -> list[float]:
    """The rank's part of `order` from step `first` on: `train`, with what the first rank says and asks passed on. The
    parameters end in `vectors`."""
    speaks = state.rank == 0

    def on_step(step: int, loss: float) -> None:
        pipe.send(("step", step, loss))

    def should_stop() -> bool:
        answer = torch.zeros(1, dtype=torch.uint8)
        if speaks:
            pipe.send(("stop?",))
            answer.fill_(pipe.recv())
        dist.broadcast(answer, 0)
        return bool(answer)

    def on_segment(state: NodeState, done: int) -> None:
        publish({"params": state.params(), **optimizer_vectors(state)})
        if speaks:
            pipe.send(("segment", done, state.steps))
            pipe.recv()

    def publish(gathered: dict[str, Tensor]) -> None:
        if speaks:
            for name, vector in gathered.items():
                vectors[name].copy_(vector)

    state.load(vectors["params"])
    losses = train(
        state, order, dataset, range(first, order.steps), on_step=on_step if speaks else None,
        should_stop=should_stop if stoppable else None, on_segment=on_segment if segments else None,
    )  # fmt: skip
    publish({"params": state.params()})
    return losses
