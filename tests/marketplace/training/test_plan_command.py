"""`hypergpu plan`, against the coordinator."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
from django.test import Client
from typer.testing import CliRunner, Result

from tests.marketplace.world import SMALL, fund, register
from trainer import requester
from trainer.cli import app
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec
from trainer.requester import moment, with_target

pytestmark = pytest.mark.django_db
Plan = Callable[..., Result]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(SMALL))
    return path


@pytest.fixture
def hypergpu(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The command, whose requests go straight to the coordinator's own application."""

    def answer(request: httpx.Request) -> httpx.Response:
        said = Client().generic(
            request.method, request.url.raw_path.decode(), request.content, content_type="application/json", HTTP_HOST="localhost"
        )
        return httpx.Response(said.status_code, content=said.content)

    monkeypatch.setattr(requester.httpx, "Client", partial(httpx.Client, transport=httpx.MockTransport(answer)))
    return lambda *arguments: CliRunner().invoke(app, ["plan", *map(str, arguments), "--coordinator", "http://localhost"])


def test_a_specification_becomes_a_plan_for_people_and_for_programs(hypergpu: Plan, spec: Path) -> None:
    for node_id in (1, 2):
        register(node_id).bid(rate=5)
    shown = hypergpu(spec)  # the model is built here: the coordinator does not know it
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.stdout.split())
    assert "2 nodes with a fitting bid" in text and "tUSD" in text and "base units a round" in text
    assert "a round: nobody has measured these nodes yet." in text
    answer = json.loads(hypergpu(spec, "--json", "--goal", "time", "--target", "accuracy=0.8").stdout)
    best = answer["proposals"][0]
    assert answer["goal"] == "time" and answer["token"]["symbol"] == "tUSD"
    assert best["spec"]["target"] == {"metric": "accuracy", "value": 0.8}
    assert best["seconds"]["expected"] <= 1.05 * min(one["seconds"]["expected"] for one in answer["proposals"])


def test_what_cannot_be_done_ends_with_1(hypergpu: Plan, spec: Path) -> None:
    assert "fewer than the job's quorum" in hypergpu(spec).stdout
    register(1).bid(rate=5)
    late = hypergpu(spec, "--deadline", "0.01s")
    assert late.exit_code == 1 and "Nothing that could be chosen meets the deadline" in late.stdout
    assert hypergpu(spec, "--deadline", "5h").exit_code == 0
    assert hypergpu(spec, "--max-rate", 4).exit_code == 1


def test_a_job_that_is_here_is_named_by_its_number(hypergpu: Plan) -> None:
    register(1).bid(rate=5)
    job = fund()
    assert hypergpu(job.pk, "--parameters", 1000).exit_code == 0
    refused = hypergpu(job.pk, "--deadline", "5h")
    assert refused.exit_code == 2 and "has its own deadline" in refused.stderr


def test_what_is_wrong_is_said(hypergpu: Plan, spec: Path, tmp_path: Path) -> None:
    spec.write_text('{"rounds": {"nodes": 0}}')
    wrong = hypergpu(spec)
    assert wrong.exit_code == 2 and "rounds.nodes" in wrong.stderr and "Traceback" not in wrong.output
    assert "specification in JSON" in hypergpu(tmp_path / "none.json").stderr
    assert "There is no job 1" in hypergpu(1).stderr
    job = fund()
    assert "one of time, price" in hypergpu(job.pk, "--goal", "fun", "--parameters", 9).stderr
    assert "Say whom to ask" in CliRunner().invoke(app, ["plan", str(spec)], env={"HYPERGPU_COORDINATOR": ""}).stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("6h", 21_600), ("1.5d", 129_600), ("2026-11-21T13:00:05+01:00", 5)]
)
def test_a_deadline_is_a_time_or_so_long_from_now(text: str, seconds: int) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert (datetime.fromisoformat(moment(text, now=now)) - now).total_seconds() == seconds


@pytest.mark.parametrize("text", ["tomorrow", "6", "2026-11-21T13:00:00", "h"])
def test_a_deadline_in_no_zone_or_unit_is_refused(text: str) -> None:
    with pytest.raises(HyperGPUError, match="neither a time with its offset"):
        moment(text)


def test_a_target_is_a_value_of_the_jobs_metric_or_names_another() -> None:
    assert with_target(JobSpec(), "0.5").target.model_dump() == {"metric": "accuracy", "value": 0.5}
    assert with_target(JobSpec(), "loss=2.1").target.model_dump() == {"metric": "loss", "value": 2.1}
    for wrong in ("low", "speed=3", "loss=-1"):
        with pytest.raises(HyperGPUError):
            with_target(JobSpec(), wrong)
