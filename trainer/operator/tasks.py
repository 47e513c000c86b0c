"""What the GPU worker does: one work order to one encoded pseudo-gradient."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from celery import Task, shared_task
from torch import Tensor

from trainer.data import load_dataset
from trainer.diloco.fragments import Own
from trainer.diloco.local import LocalResult, NodeState, run_local_steps
from trainer.diloco.sharded import ShardedNode
from trainer.diloco.trace import Contributed, Lead, Trace, trace_run
from trainer.operator.broker import GO_AHEAD, RUN_WORK_ORDER, SHOW_EVIDENCE, Updates, connect
from trainer.operator.config import Home, sha256_of
from trainer.operator.emulation import paced
from trainer.operator.replica import MissingError, OuterStep, Replica
from trainer.operator.results import (
    WorkResult,
    is_point,
    loss_points,
    order_key,
    point,
    save_artifact,
    save_result,
    was_handed_in,
)
from trainer.operator.traces import gather, save_trace
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder, foreseen
from trainer.protocol.spec import JobSpec

REPORT_SECONDS = 0.2
RESIDENT_JOBS = 2
"""Jobs whose model and optimizer stay on the device; the one used longest ago makes room."""


class Made(NamedTuple):
    """What the last order left: its key and artifact, the trace that audits may ask for, and where the parameters are."""

    key: str
    artifact: str
    trace: Trace
    own: Own | None


class Resident:
    """What stays between the rounds of one job: data, the version of the model to start from, the model in training, its
    optimizer's moments and the error feedback.

    What a round leaves counts from when that round's artifact was handed in, which is `before` then: work that nobody received
    must not change what is sent next, and an audit asks for what each order goes on from.
    """

    def __init__(self, spec: JobSpec, files: dict[str, Path], replica: Replica, *, gpus: int) -> None:
        self.spec, self.replica = spec, replica
        self.dataset = load_dataset(spec.data, files=files)
        self.state: NodeState | ShardedNode = (
            ShardedNode(spec, files, ranks=gpus, threads=max(1, torch.get_num_threads() // gpus), folder=replica.home.run)
            if gpus > 1
            else NodeState(spec, self.dataset.info)
        )
        self.before: str | None = None
        self.made: Made | None = None
        self.lead: Lead | None = None

    def run(self, order: WorkOrder, base: Tensor, **hooks: Any) -> LocalResult:
        hooks |= {"on_step": paced(hooks.get("on_step"), samples=order.spec.inner.batch_size)}
        if isinstance(self.state, ShardedNode):
            return self.state.run(order, base, **hooks)
        return run_local_steps(self.state, order, base, self.dataset, **hooks)

    def settle(self, home: Home) -> None:
        if self.made is None:
            return
        if was_handed_in(home, self.made.key):
            self.state.error, self.state.own = self.made.trace.left, self.made.own
            self.before = self.made.artifact
        else:
            self.state.forget()
            self.lead = None
        self.made = None

    def go_ahead(self, order: WorkOrder, home: Home, *, should_stop: Callable[[int], bool]) -> None:
        """Begin the order after `order`, which this resident has just done, or go on with that, until `should_stop(steps)` that
        the next segment would lead to. It is only known to be worth anything when `order` was handed in and the next one is as
        foreseen: `settle` and `take_lead` see to it."""
        following = foreseen(order)
        if following is None:
            return
        if self.lead is None and self.made is not None and self.made.key == order_key(order):
            upload = (home.artifacts / self.made.artifact).read_bytes()
            self.lead = Lead.behind(
                order, following, base=self.made.trace.base, upload=upload, shapes=self.state.shapes, own=self.made.own,
                folder=home.traces,
            )  # fmt: skip
        lead, stride = self.lead, order.spec.audit.stride
        if lead is not None and lead.order == following:
            lead.go_on(self.run, should_stop=lambda: should_stop(lead.trace.steps + stride))

    def take_lead(self, order: WorkOrder) -> Lead | None:
        """What was done of `order` already; an optimizer that went on with something else starts afresh."""
        lead, self.lead = self.lead, None
        if lead is None or not lead.mark.steps:
            return None
        if lead.serves(order):
            return lead
        self.state.forget()
        return None

    def write_down(self, home: Home, order: WorkOrder) -> None:
        """What a later process goes on from, and what audits may ask for."""
        self.replica.keep()
        if self.made is not None:
            save_trace(home, self.made.artifact, self.made.trace, job_id=order.job_id, round=order.round, before=self.before)

    def close(self) -> None:
        if isinstance(self.state, ShardedNode):
            self.state.close()


RESIDENTS: dict[int, Resident] = {}
"""By job id, oldest use first. One task runs at a time (solo pool), so nothing else touches it."""


def drop(job_id: int) -> None:
    if (resident := RESIDENTS.pop(job_id, None)) is not None:
        resident.close()


class ReportedTask(Task):
    """A task whose failure, of whatever kind, reaches the agent and leaves no half-trained state."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        if "order" in kwargs:
            drop(kwargs["order"]["job_id"])
        error = exc if isinstance(exc, HyperGPUError) else HyperGPUError("worker.failed", f"{type(exc).__name__}: {exc}")
        updates_of(self).post({"failed": error.as_json()})


@shared_task(bind=True, base=ReportedTask, name=RUN_WORK_ORDER)
def run_work_order(self: Task, *, order: dict[str, Any], home: str, gpus: int = 1, steps: Sequence[Sequence[str]] = ()) -> None:
    """Posts {"done": WorkResult}, {"stopped"} or {"missing": {what: SHA-256}}. Files are looked for in the agent's cache.
    `steps`: the outer steps that the node has missed, as (version before, SHA-256), oldest first."""
    updates, work = updates_of(self), WorkOrder.model_validate(order)
    try:
        result = train(work, Home(Path(home)), updates, gpus=gpus, steps=[OuterStep(*step) for step in steps])
    except MissingError as error:
        updates.post({"missing": error.artifacts})
        return
    updates.post({"stopped": True} if result is None else {"done": asdict(result)})
    RESIDENTS[work.job_id].write_down(Home(Path(home)), work)  # while the agent hands in


@shared_task(bind=True, base=ReportedTask, name=GO_AHEAD)
def go_ahead(self: Task, *, order: dict[str, Any], home: str) -> None:
    """Begins the order after `order`, until it is asked to stop or there is no more to do. Posts {"stopped"}."""
    updates, work = updates_of(self), WorkOrder.model_validate(order)
    if (resident := RESIDENTS.get(work.job_id)) is not None:
        resident.go_ahead(work, Home(Path(home)), should_stop=lambda steps: updates.is_asked_to_stop(before=steps))
    updates.post({"stopped": True})


@shared_task(bind=True, base=ReportedTask, name=SHOW_EVIDENCE)
def show_evidence(self: Task, *, artifact: str, segment: int, home: str) -> None:
    """Posts {"done": Evidence} of an artifact's trace, or fails with `audit.gone`."""
    updates_of(self).post({"done": asdict(gather(Home(Path(home)), artifact, segment))})


def updates_of(task: Task) -> Updates:
    socket = Path(task.app.conf.broker_url.removeprefix("redis+socket://"))
    return Updates(connect(socket), task.request.id)


def train(
    order: WorkOrder, home: Home, updates: Updates, *, gpus: int = 1, steps: Sequence[OuterStep] = ()
) -> WorkResult | None:  # fmt: skip
    """Run the whole order and store its artifact and result; None when asked to stop before the end.

    Raises MissingError for files that the agent has to fetch first, HyperGPUError `training.*`, `artifact.*`, `data.*`,
    `model.*` or `version.mismatch`.
    """
    resident = resident_for(order, home, gpus=gpus)
    resident.settle(home)
    base = resident.replica.reach(
        order, resident.state.shapes, resident.dataset.info, say=lambda error: updates.post({"note": error.as_json()}),
        steps=steps,
    )  # fmt: skip
    report, lead = Report(updates, order.steps), resident.take_lead(order)
    for step, loss in enumerate(lead.losses if lead else []):
        report.step(step, loss)
    run = partial(resident.run, on_step=report.step, should_stop=report.should_stop)
    try:
        state = resident.state
        made = trace_run(
            run, order, base, shapes=state.shapes, error=state.error, own=state.own, lead=lead, folder=home.traces
        )  # fmt: skip
    except torch.OutOfMemoryError as error:
        for job_id in list(RESIDENTS):  # the other job may be what fills the memory
            drop(job_id)
        raise HyperGPUError("training.out_of_memory", "The model and batch do not fit this GPU's memory.") from error
    if made.result.steps_done < order.steps:
        resident.state.forget()  # without its moments the order, run again, gives the same as after a crash
        return None
    result = store(order, home, resident.replica, made, ahead=lead.mark.steps if lead else 0)
    resident.made = Made(order_key(order), result.sha256, made.trace, made.trace.reached(order))
    return result


def store(order: WorkOrder, home: Home, replica: Replica, made: Contributed, *, ahead: int) -> WorkResult:
    assert replica.version is not None
    result = WorkResult(
        base=replica.version, sha256=save_artifact(home, made.upload), size=len(made.upload), units=made.result.units,
        steps_done=made.result.steps_done, losses=loss_points(made.result.losses, steps=order.steps), seconds=made.result.seconds,
        ahead=ahead,
    )  # fmt: skip
    save_result(home, order, result)
    return result


def resident_for(order: WorkOrder, home: Home, *, gpus: int) -> Resident:
    """Raises MissingError and HyperGPUError `data.*`, `model.*`, `training.batch_not_divisible`."""
    resident = RESIDENTS.pop(order.job_id, None)
    if resident is not None and resident.spec != order.spec:
        resident.close()
        resident = None
    if resident is None:
        while len(RESIDENTS) >= RESIDENT_JOBS:
            drop(next(iter(RESIDENTS)))
        resident = Resident(order.spec, data_files(order.spec, home), Replica(home, order.job_id), gpus=gpus)
    RESIDENTS[order.job_id] = resident
    return resident


def data_files(spec: JobSpec, home: Home) -> dict[str, Path]:
    """The job's data by role. Raises MissingError, also for a file that rotted: it is then removed."""
    missing = {}
    for role, sha256 in spec.data.files.items():
        path = home.cache / sha256
        if path.exists() and sha256_of(path) != sha256:
            path.unlink()
        if not path.exists():
            missing[role] = sha256
    if missing:
        raise MissingError(missing)
    return {role: home.cache / sha256 for role, sha256 in spec.data.files.items()}


class Report:
    """Progress to the agent at most five times a second, the first step at once."""

    def __init__(self, updates: Updates, steps: int) -> None:
        self.updates, self.steps = updates, steps
        self.points: list[list[float]] = []
        self.reported_at = self.asked_at = float("-inf")

    def step(self, index: int, loss: float) -> None:
        """`index` counts from 0 (see run_local_steps), reports count steps done."""
        done, now = index + 1, time.monotonic()
        if is_point(done, steps=self.steps):
            self.points.append(point(done, loss))
        if now - self.reported_at >= REPORT_SECONDS or done == self.steps:
            self.updates.post({"step": done, "losses": self.points})
            self.points, self.reported_at = [], now

    def should_stop(self) -> bool:
        now = time.monotonic()
        if now - self.asked_at < REPORT_SECONDS:
            return False
        self.asked_at = now
        return self.updates.is_asked_to_stop()
