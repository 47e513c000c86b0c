"""Who would train a job, until when, for how much: from open bids and the job's own rounds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from marketplace.common.driving import MAX_DRIVES, STALL
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.training import engine, proposals, selectors, tasks
from marketplace.training.models import Assignment, Round
from marketplace.training.services import planning, rounds
from tests.marketplace.world import SMALL, TestNode, fund, register, wallet
from trainer.protocol.spec import parse_spec

pytestmark = pytest.mark.django_db
TARGET = {"metric": "loss", "value": 1.2}


def ask(job: Job, **query: Any) -> dict[str, Any]:
    answer = Client().get(f"/api/v1/jobs/{job.pk}/proposals", query)
    return {"status": answer.status_code, **answer.json()}


def test_open_bids_become_proposals_sorted_by_the_goal(nodes: list[TestNode]):
    job = fund(spec={**SMALL, "target": TARGET})
    answer = ask(job, goal="price", parameters=1000)
    assert answer["status"] == 200 and answer["bidders"] == len(nodes)
    best = answer["proposals"][0]
    prices = [one["price"]["expected"] for one in answer["proposals"]]
    assert prices == sorted(prices) and set(best["nodes"]) <= {node.id for node in nodes}
    assert int(best["round_price"]) == len(best["nodes"]) * 4 * 8 * 5 and best["seconds"]["high"] is None
    assert {"planner.rounds", "planner.price"} <= {reason["code"] for reason in best["reasons"]}
    assert best["changes"] == []


def test_rounds_that_were_done_bound_the_answer(nodes: list[TestNode]):
    job = fund(spec={**SMALL, "rounds": {**SMALL["rounds"], "rounds": 50}, "target": TARGET})
    for number in range(8):
        metric = {"loss": 1 + 2 * (number + 1) ** -0.7, "accuracy": 0.5}
        Round.objects.create(job=job, number=number, base="0" * 64, deadline="2030-01-01T00:00:00Z", metric=metric)
    rounds = ask(job, goal="time", parameters=1000)["proposals"][0]["rounds"]
    assert rounds["low"] <= rounds["expected"] <= rounds["high"]


def test_what_is_missing_is_asked_for(nodes: list[TestNode]):
    job = fund(spec=SMALL)
    assert ask(job)["code"] == "plan.size_unknown" and "parameters=N" in ask(job)["message"]
    assert ask(job, goal="fun", parameters=9)["code"] == "request.invalid"
    assert Client().get("/api/v1/jobs/999/proposals").json()["code"] == "job.unknown"


def plan(**asked: Any) -> dict[str, Any]:
    return dict(Client().post("/api/v1/proposals", asked, content_type="application/json").json())


def test_a_job_that_is_still_to_be_written_gets_a_specification_to_post(nodes: list[TestNode]):
    found = plan(spec=SMALL, goal="time", parameters=1000)
    assert found["bidders"] == len(nodes) and found["parameters"] == 1000
    for one in found["proposals"]:
        spec = parse_spec(one["spec"])
        assert spec.rounds.nodes == len(one["nodes"]) and bool(one["changes"]) == (spec != parse_spec(SMALL))
        assert one["in_time"] is None
    assert plan(spec={"rounds": {"nodes": 0}}, parameters=9)["code"] == "spec.invalid"
    assert plan(spec=SMALL, max_rate=1, parameters=9)["proposals"] == []


def test_one_job_is_planned_at_a_time_and_the_same_question_once(nodes: list[TestNode]):
    asked = {"spec": SMALL, "goal": "time", "parameters": 1000}
    found = plan(**asked)
    with proposals.planning:
        assert plan(**asked) == found
        for other in ({"goal": "price"}, {"max_rate": 9}, {"parameters": 9}, {"finish_by": "2100-01-01T00:00:00Z"}):
            refused = Client().post("/api/v1/proposals", asked | other, content_type="application/json")
            assert (refused.status_code, refused.json()["code"]) == (503, "plan.busy")
    assert plan(**asked | {"goal": "price"})["goal"] == "price"


def test_the_size_of_a_model_is_known_from_a_draft_that_a_worker_has_built(nodes: list[TestNode]):
    assert plan(spec=SMALL)["code"] == "plan.size_unknown"
    draft = jobs.draft_job(requester=wallet("requester").address, name="x", spec=parse_spec(SMALL), max_rate=9, escrow=10**6)
    tasks.size_job(job_id=draft.pk)
    prepared = engine.prepare(selectors.job_work(draft))
    draft.refresh_from_db()
    assert draft.upload_limit == prepared.upload_limit
    assert plan(spec=SMALL)["parameters"] == draft.parameters == ask(draft)["parameters"]


def test_a_draft_whose_worker_died_is_sized_by_another_until_they_all_do(nodes: list[TestNode]):
    draft = jobs.draft_job(requester=wallet("requester").address, name="x", spec=parse_spec(SMALL), max_rate=9, escrow=10**6)
    Job.objects.filter(pk=draft.pk).update(upload_limit=None)  # its worker died
    assert selectors.stalled_drafts() == [], "a worker has just been asked"
    for deaths in range(MAX_DRIVES):
        Job.objects.filter(pk=draft.pk).update(driven_at=timezone.now() - 2 * STALL, worker="dead", drives=deaths)
        assert selectors.stalled_drafts() == [{"job_id": draft.pk}]
    Job.objects.filter(pk=draft.pk).update(driven_at=timezone.now() - 2 * STALL, worker="dead", drives=MAX_DRIVES)
    rounds.give_up()
    draft.refresh_from_db()
    assert "could not be found out" in draft.reason and draft.state == Job.State.DRAFT
    spec = "0x" + draft.spec_hash
    jobs.record_creation(chain_id=5, requester=draft.requester, spec=spec, escrow=10**6, max_rate=9)
    draft.refresh_from_db()
    assert draft.drives == 0 and not Job.unsized().exists()


def test_a_draft_whose_model_cannot_be_built_says_so_before_it_is_funded(nodes: list[TestNode]):
    spec = parse_spec(SMALL | {"model": {"architecture": "gpt"}})
    draft = jobs.draft_job(requester=wallet("requester").address, name="x", spec=spec, max_rate=9, escrow=10**6)
    tasks.size_job(job_id=draft.pk)
    draft.refresh_from_db()
    assert "gpt reads bytes samples" in draft.reason and draft.parameters is None


def test_a_job_that_the_installation_cannot_carry_is_refused_before_and_after_it_is_funded(nodes: list[TestNode], settings):
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"max_artifact_bytes": 50_000})
    draft = jobs.draft_job(requester=wallet("requester").address, name="x", spec=parse_spec(SMALL), max_rate=9, escrow=10**6)
    tasks.size_job(job_id=draft.pk)
    draft.refresh_from_db()
    assert "HYPERGPU_MAX_ARTIFACT_BYTES raised to" in draft.reason and draft.parameters is None
    needed = int(draft.reason.rpartition(" ")[2].rstrip("."))
    Job.objects.filter(pk=draft.pk).update(state=Job.State.FUNDED)  # by a contract call of the requester's own
    tasks.start_job(job_id=draft.pk)
    draft.refresh_from_db()
    assert (draft.state, draft.reason.rpartition(" ")[2]) == (Job.State.FAILED, f"{needed}.")
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"max_artifact_bytes": needed})
    Job.objects.filter(pk=draft.pk).update(state=Job.State.DRAFT, reason="")
    tasks.size_job(job_id=draft.pk)
    draft.refresh_from_db()
    assert draft.parameters and not draft.reason


def test_a_deadline_that_nobody_meets_is_said(nodes: list[TestNode]):
    def best(hours: float) -> dict[str, Any]:
        finish_by = (timezone.now() + timedelta(hours=hours)).isoformat()
        return dict(plan(spec=SMALL, goal="price", parameters=1000, finish_by=finish_by)["proposals"][0])

    assert best(5)["in_time"] is True
    late = best(0.1 / 3600)
    assert late["in_time"] is False
    assert any(reason["code"] == "planner.deadline" and "too late" in reason["text"] for reason in late["reasons"])


def test_what_a_job_was_expected_to_come_to_is_kept_with_it(job: Job):
    rounds.open_round(job_id=job.pk)
    job.refresh_from_db()
    shown = Client().get(f"/api/v1/jobs/{job.pk}").json()["job"]["predicted"]
    assert shown == job.predicted and (shown["nodes"], shown["rounds"]) == (2, 2)
    assert int(shown["price"]) == 2 * 2 * 32 * 5 and shown["seconds"] > 0
    assert shown["low_seconds"] < shown["seconds"] < shown["high_seconds"] and shown["basis"] == "assumed"


def test_a_job_that_cannot_be_foreseen_starts_all_the_same(job: Job, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(planning, "foreseen", broken)
    assert rounds.open_round(job_id=job.pk) is not None
    job.refresh_from_db()
    assert job.predicted is None


def test_what_links_and_machines_did_not_explain_is_expected_again(job: Job):
    """Of orders in any job: the first round's nodes waited 30 s beside what was measured of them."""
    rounds.open_round(job_id=job.pk)
    asked = {"spec": SMALL, "goal": "time", "parameters": 1000}
    before = plan(**asked)
    for slot in Assignment.objects.all():
        slot.predicted = {"fetch_s": 1.0, "compute_s": 1.0, "upload_s": 1.0, "doubt_s": 0.1, "overhead_s": 0.0}
        slot.actual = {"fetch_s": 31.0, "compute_s": 1.0, "upload_s": 1.0}
        slot.reasons = []
        slot.save()
    cache.clear()
    after = plan(**asked)
    register(3).bid(rate=1)  # nobody has seen an order of it: what the others waited is expected of it
    cache.clear()
    newcomer = plan(**asked)
    assert (before["basis"], after["basis"], newcomer["basis"]) == ("assumed", "nodes", "others")
    for answer, code in ((before, "planner.assumed"), (after, "planner.nodes"), (newcomer, "planner.others")):
        assert code in [reason["code"] for reason in answer["proposals"][0]["reasons"]]
    assert after["proposals"][0]["round_seconds"]["expected"] > before["proposals"][0]["round_seconds"]["expected"] + 15
