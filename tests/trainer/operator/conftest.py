from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from fake_coordinator import NODE_ID, FakeCoordinator

from trainer.operator.config import Home
from trainer.operator.identity import address_of, load_or_create_key

torch.set_num_threads(1)


def wait_until(fact: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class AgentProcess:
    """A real agent, as the command line starts it."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.url, self.log = Home.at(home), url, home / "agent.log"
        self.address = address_of(load_or_create_key(self.home.key))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "trainer.cli", "agent", "--home", str(self.home.root), "--coordinator", self.url]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--threads", "1", "--json-logs"], stdout=log, stderr=log)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """Broker and worker, as remembered on disk."""
        return [psutil.Process(entry["pid"]) for entry in json.loads(self.home.children.read_text())]

    def worker(self) -> psutil.Process:
        return next(child for child in self.children() if "trainer.operator.worker" in child.cmdline())

    def broker(self) -> psutil.Process:
        return next(child for child in self.children() if "trainer.operator.worker" not in child.cmdline())

    def events(self, name: str) -> int:
        return len(re.findall(f'"event": "{re.escape(name)}"', self.log.read_text())) if self.log.exists() else 0

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="module")
def coordinator() -> Iterator[FakeCoordinator]:
    coordinator = FakeCoordinator()
    yield coordinator
    if coordinator.server is not None:
        coordinator.stop()


@pytest.fixture(scope="module")
def shared_agent(coordinator: FakeCoordinator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path_factory.mktemp("agent"), coordinator.url)
    coordinator.registered[agent.address] = NODE_ID
    yield agent
    if agent.is_running:
        agent.stop()


@pytest.fixture
def agent(shared_agent: AgentProcess, coordinator: FakeCoordinator) -> AgentProcess:
    """One agent for all tests of a module: starting torch takes seconds. Each test finds it running and without work."""
    if coordinator.server is None:
        coordinator.start()
    with coordinator.changed:
        for slot in coordinator.slots.values():
            slot.is_over = slot.stale = True
    if not shared_agent.is_running:
        shared_agent.start()
    return shared_agent
