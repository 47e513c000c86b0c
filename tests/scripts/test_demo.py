"""What the demo says when it cannot run, and how it judges what it did."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.hypergpu_demo import recipes, report, view
from scripts.hypergpu_demo.ports import HOST, claim, free_ports
from scripts.hypergpu_demo.supervise import StackError
from trainer.protocol.spec import parse_spec

ROOT = Path(__file__).parents[2]


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "scripts/demo.py", *options], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_taken_port_is_one_clear_line(tmp_path: Path):
    with socket.socket() as taken:
        port = free_ports().web
        taken.bind((HOST, port))
        taken.listen()
        with pytest.raises(StackError, match=f"Port {port} is taken"):
            claim(port)
        done = demo("--port", str(port), "--state", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Port {port} is taken by another program: choose another --port")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--job", "text"], "--job text needs a text file: name one with --data PATH.\n"),
        (["--job", "text", "--data", "/nowhere.txt"], "There is no file /nowhere.txt.\n"),
        (
            ["--network", "moon"],
            "There is no profile 'moon'. Take one of asymmetric, flaky, hostile-20, lan, mobile, neighbours, regions, wan-good, "
            "wan-hetero, or name a .json file.\n",
        ),
        (
            ["--model", "gpt"],
            "There is no recipe for --model gpt with --job digits: choose one of mlp, mlp-wide, mlp-large, cnn, resnet, vgg.\n",
        ),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: list[str], line: str):
    done = demo(*options)
    assert (done.returncode, done.stderr) == (1, line)


def setup_in_an_empty_clone(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "cut", "sha256sum", "grep", "printf", "tail", "mkdir", "find", "sort"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    environment = {"PATH": str(tools), **env}
    return subprocess.run(
        [str(tools / "bash"), "scripts/setup"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_a_missing_node_is_one_clear_line(tmp_path: Path):
    done = setup_in_an_empty_clone(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "Node 20.19 or newer, with npm, is missing: install it from https://nodejs.org or your system's packages.\n"
    )


@pytest.mark.parametrize("job", sorted(recipes.MODELS))
def test_every_recipe_is_a_valid_specification(job: str):
    files = {"text": "ab" * 32} if job == "text" else {}
    for model in recipes.MODELS[job]:
        spec = parse_spec(recipes.spec(job=job, model=model, rounds=None, operators=4, files=files))
        assert spec.model.architecture == model.split("-")[0]
        assert spec.rounds.quorum == 2


# The audit.


def contribution(node: int, **changes: Any) -> dict[str, Any]:
    return {"state": "accepted", "round": 0, "node_id": node, "units": 10, "quality": 10_000, "artifact": "ab" * 32, **changes}


def settled(node: int, **changes: Any) -> dict[str, Any]:
    return {"args": {"round": 0, "nodeId": node, "units": 10, "quality": 10_000, "artifact": bytes.fromhex("ab" * 32), **changes}}


@pytest.mark.parametrize(
    ("contributions", "logs", "problems"),
    [
        ([contribution(1), contribution(2)], [settled(1), settled(2)], []),
        ([contribution(1), contribution(2, state="rejected")], [settled(1)], []),
        ([contribution(1), contribution(2)], [settled(1)], ["accepted, not paid: round 0, node 2"]),
        ([contribution(1)], [settled(1), settled(2)], ["paid, not accepted: round 0, node 2"]),
        ([contribution(1)], [settled(1), settled(1)], ["a contribution was paid twice"]),
        (
            [contribution(1)],
            [settled(1, quality=9_999)],
            ["accepted, not paid: round 0, node 1", "paid, not accepted: round 0, node 1"],
        ),
    ],
)
def test_the_audit_finds_what_is_unpaid_overpaid_or_paid_twice(contributions: Any, logs: Any, problems: list[str]):
    for number, row in enumerate(contributions):
        row["id"] = number
    # The chain pays the attestors' median; the coordinator's own quality is no part of it.
    payments = [{"contribution_id": row["id"], "quality": row["quality"]} for row in contributions]
    assert report.unpaid({"contributions": contributions, "payments": payments}, logs) == problems


@pytest.mark.parametrize(
    ("metric", "before", "after", "reached", "expected"),
    [
        ("accuracy", 0.1, 0.97, True, True),
        ("accuracy", 0.1, 0.90, False, False),
        ("accuracy", 0.98, 0.97, True, False),
        ("loss", 5.5, 2.1, True, True),
        ("loss", 2.0, 2.1, True, False),
    ],
)
def test_a_job_counts_only_when_it_improved_past_its_target(
    metric: str, before: float, after: float, reached: bool, expected: bool
):
    job = {
        "reached_target": reached, "target": {"metric": metric}, "start_metric": {metric: before}, "metric": {metric: after},
    }  # fmt: skip
    assert report.improved(job) is expected


@pytest.mark.parametrize(("values", "p50", "p95"), [([], None, None), ([2.0], 2.0, 2.0), ([1.0, 2.0, 3.0], 2.0, 2.9)])
def test_percentiles_of_few_values(values: list[float], p50: float | None, p95: float | None):
    assert (report.percentile(values, 50), report.percentile(values, 95)) == (p50, p95)


def test_the_view_tells_each_fact_once():
    lines: list[str] = []
    shown = SimpleNamespace(told=set(), say=lines.append)
    snapshot = {"job": {"id": 1, "state": "running", "reason": None}, "rounds": [], "payments": []}
    view.View.tell(shown, snapshot)  # type: ignore[arg-type]
    view.View.tell(shown, snapshot)  # type: ignore[arg-type]
    assert lines == ["job 1 is running"]


def test_the_environment_of_the_stack_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from scripts.hypergpu_demo.ports import Ports  # noqa: PLC0415
    from scripts.hypergpu_demo.stack import Stack  # noqa: PLC0415

    monkeypatch.setenv("HYPERGPU_DATABASE_URL", "postgresql:///somebody-elses")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    stack = Stack(tmp_path, ports=Ports(8000), operators=1, say=print)
    assert "HYPERGPU_DATABASE_URL" not in stack.processes.env
    assert "DJANGO_SETTINGS_MODULE" not in stack.processes.env
    assert oct(os.stat(tmp_path / "keys.json").st_mode & 0o777) == "0o600"
    stack.lock.close()


def test_nodes_reach_each_other_on_loopback_only(tmp_path: Path):
    from scripts.hypergpu_demo.ports import Ports  # noqa: PLC0415
    from scripts.hypergpu_demo.stack import Stack  # noqa: PLC0415

    here = Stack(tmp_path / "a", ports=Ports(8000), operators=2, say=print)
    places = [here.agent(number).command[-3:] for number in (1, 2)]
    assert [place[0::2] for place in places] == [[url, url.removeprefix("http://")] for url, _, _ in places]
    assert len({url for url, _, _ in places}) == 2 and all(url.startswith("http://127.0.0.1:") for url, _, _ in places)
    elsewhere = Stack(tmp_path / "b", ports=Ports(8000), operators=1, say=print, url="https://10.0.0.1:8000")
    link = SimpleNamespace(url="http://127.0.0.1:9")
    emulated = SimpleNamespace(
        link=lambda _: link, environment=lambda _: {}, profile=SimpleNamespace(name="lan"),
        endpoint={1: None, 2: "127.0.0.1:7"}.__getitem__,
    )  # fmt: skip
    shaped = Stack(tmp_path / "c", ports=Ports(8000), operators=2, say=print, emulation=emulated)  # type: ignore[arg-type]
    assert "--public-url" not in [*elsewhere.agent(1).command, *shaped.agent(1).command]
    assert shaped.agent(2).command[-4:] == ["--public-url", "http://127.0.0.1:7", "--listen", "127.0.0.1:7"]
    for stack in (here, elsewhere, shaped):
        stack.lock.close()
