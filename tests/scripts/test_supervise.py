"""The supervisor of the demo, with processes that do nothing but live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from scripts.hypergpu_demo import supervise
from scripts.hypergpu_demo.supervise import Program, StackError, Supervisor

ROOT = Path(__file__).parents[2]
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(100)"]
ORPHANS = [
    sys.executable,
    "-c",
    "import subprocess, time; subprocess.Popen(['sleep', '99'], start_new_session=True); time.sleep(100)",
]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    marker = ("HYPERGPU_TEST_MARKER", uuid4().hex)
    with Supervisor(cwd=tmp_path, env=dict(os.environ), marker=marker, logs=tmp_path / "logs", say=said.append) as supervisor:
        yield supervisor


def eventually(fact: Callable[[], object], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)


def test_a_killed_program_is_started_again_and_the_user_is_told(supervisor: Supervisor, said: list[str]):
    supervisor.start(Program(name="worker", command=SLEEP))
    first = supervisor.pid("worker")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: supervisor.pid("worker") != first and psutil.pid_exists(supervisor.pid("worker")))
    assert said == ["worker was killed by SIGKILL; starting it again."]
    assert supervisor.restarts == {"worker": 1}


def test_a_program_that_keeps_dying_is_started_less_and_less_often(supervisor: Supervisor, said: list[str]):
    supervisor.start(Program(name="broken", command=[sys.executable, "-c", "raise SystemExit(3)"]))
    eventually(lambda: len(said) == 3)
    assert set(said) == {"broken ended with exit code 3; starting it again."}
    assert supervisor.running["broken"].deaths == 3


def test_the_death_of_a_vital_program_is_one_clear_line(supervisor: Supervisor):
    supervisor.start(
        Program(name="chain", command=[sys.executable, "-c", "print('address in use'); raise SystemExit(1)"], vital=True)
    )
    eventually(lambda: supervisor.failure)
    with pytest.raises(
        StackError, match=r"chain ended with exit code 1, and nothing works without it\. Its last line: address in use"
    ):
        supervisor.check()
    assert supervisor.restarts == {}


def test_waiting_ends_with_the_last_words_of_who_stays_away(supervisor: Supervisor):
    supervisor.start(Program(name="late", command=SLEEP, ready=lambda: False))
    eventually(lambda: supervisor.said("late", "up"))
    with pytest.raises(StackError, match=r"late was not ready within 0 s\. Its last line: up"):
        supervisor.wait("late", seconds=0.2)


def test_a_nice_program_is_nice_where_sessions_are_weighed_too(supervisor: Supervisor):
    supervisor.start(Program(name="patient", command=SLEEP, nice=7))
    pid = supervisor.pid("patient")
    assert psutil.Process(pid).nice() == 7
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        assert group.read_text().split()[-2:] == ["nice", "7"]


def test_stopping_ends_orphans_too(supervisor: Supervisor):
    supervisor.start(Program(name="parent", command=ORPHANS))
    eventually(lambda: children_of(supervisor.pid("parent")))
    orphan = children_of(supervisor.pid("parent"))[0]
    supervisor.stop()
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE


def children_of(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.skipif(supervise.LIBC is None, reason="only Linux tells children of their parent's death")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path):
    program = f"""
import time
from pathlib import Path
from scripts.hypergpu_demo.supervise import Program, Supervisor
with Supervisor(cwd=Path("."), env={{}}, marker=("M", "{uuid4().hex}"), logs=Path({str(tmp_path)!r}), say=print) as s:
    s.start(Program(name="child", command={SLEEP!r}))
    print(s.pid("child"), flush=True)
    time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
