"""Children end with their agent, by whichever way works on the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from trainer.operator.processes import kill_child, kill_remembered, remember_children, start_child

SLEEP = ["sleep", "60"]
PARENT = """
import subprocess, sys
child = [sys.executable, "-c", "import os, sys; from trainer.operator.processes import end_with_parent;"
         "end_with_parent(int(sys.argv[1]), int(sys.argv[2]))", str(__import__("os").getpid()), sys.argv[1]]
print(subprocess.Popen(child).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sleeper(tmp_path):
    child = start_child(SLEEP, log=tmp_path / "log")
    yield child
    kill_child(child)


def test_given_a_killed_agent_then_the_watching_child_ends_itself_and_its_sibling(sleeper):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(sleeper.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    watcher = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()

    assert sleeper.wait(60) == -9
    psutil.wait_procs([watcher], timeout=60)
    assert not watcher.is_running() or watcher.status() == psutil.STATUS_ZOMBIE


def test_given_children_of_a_killed_agent_then_the_next_start_ends_them(sleeper, tmp_path):
    remember_children(tmp_path / "children.json", [sleeper])

    assert kill_remembered(tmp_path / "children.json") == [sleeper.pid]
    assert not psutil.pid_exists(sleeper.pid)
    assert kill_remembered(tmp_path / "children.json") == []


def test_given_a_pid_that_now_belongs_to_another_process_then_it_is_left_alone(sleeper, tmp_path):
    path = tmp_path / "children.json"
    remember_children(path, [sleeper])
    (entry,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, "created": entry["created"] - 10}]))

    assert kill_remembered(path) == []
    assert sleeper.poll() is None


def test_given_no_setpriv_then_children_start_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.operator.processes.shutil.which", lambda name: None)
    child = start_child(["sleep", "0"], log=tmp_path / "log")
    assert child.wait(60) == 0
