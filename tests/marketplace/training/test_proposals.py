"""Who would train a job, until when, for how much: from open bids and the job's own rounds."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from marketplace.jobs.models import Job
from marketplace.training.models import Round
from tests.marketplace.world import SMALL, TestNode, fund

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
    assert ask(job)["code"] == "request.invalid" and "parameters=N" in ask(job)["message"]
    assert ask(job, goal="fun", parameters=9)["code"] == "request.invalid"
    assert Client().get("/api/v1/jobs/999/proposals").json()["code"] == "job.unknown"
