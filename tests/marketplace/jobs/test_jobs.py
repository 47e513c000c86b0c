from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.accounts.models import Account
from marketplace.artifacts import services as artifacts
from marketplace.artifacts.models import Artifact
from marketplace.common.times import iso
from marketplace.jobs import services
from marketplace.jobs.models import Job
from tests.marketplace.world import SMALL, fund, wallet
from trainer.protocol.spec import parse_spec

pytestmark = pytest.mark.django_db


def signed_in(name: str = "requester") -> Client:
    client = Client()
    account, _ = Account.objects.get_or_create(address=wallet(name).address)
    client.force_login(account, backend="django.contrib.auth.backends.ModelBackend")
    return client


def post(client: Client, **changes: object):  # type: ignore[no-untyped-def]
    body = {"name": "digits", "spec": SMALL, "max_rate": 10, "escrow": 10**6} | changes
    return client.post("/api/v1/jobs", body, content_type="application/json")


def test_a_posted_job_is_a_draft_until_its_escrow_is_final() -> None:
    answer = post(signed_in())
    assert answer.status_code == 201
    job = Job.objects.get()
    assert job.state == Job.State.DRAFT
    assert answer.json()["transaction"] == {"function": "createJob", "args": ["0x" + job.spec_hash, "1000000", "10"]}
    services.record_creation(
        chain_id=7, requester=wallet("requester").address, spec="0x" + job.spec_hash, escrow=10**6, max_rate=10
    )
    job.refresh_from_db()
    assert (job.state, job.chain_id) == (Job.State.FUNDED, 7)


def test_somebody_elses_escrow_does_not_fund_a_draft() -> None:
    post(signed_in())
    spec = "0x" + Job.objects.get().spec_hash
    services.record_creation(chain_id=7, requester=wallet("stranger").address, spec=spec, escrow=10**6, max_rate=10)
    assert Job.objects.get().state == Job.State.DRAFT


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"escrow": 1}, "job.underfunded"),
        ({"spec": {"inner": {"steps": 0}}}, "spec.invalid"),
        ({"spec": {"unknown": 1}}, "spec.invalid"),
        ({"spec": {"data": {"kind": "text", "files": {"text": "0" * 64}}}}, "spec.invalid"),
        ({"max_rate": 0}, "request.invalid"),
    ],
)
def test_a_job_that_cannot_run_is_refused(changes: dict, code: str) -> None:
    answer = post(signed_in(), **changes)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code
    assert not Job.objects.exists()


def test_a_deadline_stands_beside_the_specification_and_lies_ahead() -> None:
    finish_by = (timezone.now() + timedelta(hours=2)).isoformat()
    answer = post(signed_in(), finish_by=finish_by)
    assert answer.json()["job"]["finish_by"] == iso(datetime.fromisoformat(finish_by))
    assert answer.json()["job"]["spec_hash"] == post(signed_in()).json()["job"]["spec_hash"]
    late = post(signed_in(), finish_by="2020-01-01T00:00:00Z")
    assert (late.status_code, late.json()["code"]) == (422, "job.deadline_passed")
    assert post(signed_in(), finish_by="tomorrow").json()["code"] == "request.invalid"


def test_of_two_drafts_of_one_specification_the_newer_is_funded() -> None:
    for name in ("first", "second"):
        post(signed_in(), name=name)
    spec = "0x" + Job.objects.order_by("id")[0].spec_hash
    services.record_creation(chain_id=7, requester=wallet("requester").address, spec=spec, escrow=10**6, max_rate=10)
    assert Job.objects.get(chain_id=7).name == "second"


def test_of_two_drafts_the_one_with_this_money_is_funded() -> None:
    post(signed_in(), name="wanted", escrow=3 * 10**6)
    post(signed_in(), name="given up")
    spec = "0x" + Job.objects.order_by("id")[0].spec_hash
    services.record_creation(chain_id=7, requester=wallet("requester").address, spec=spec, escrow=3 * 10**6, max_rate=10)
    assert Job.objects.get(chain_id=7).name == "wanted"


def test_drafts_that_wait_for_their_escrow_are_a_few_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a worker build its model."""
    monkeypatch.setattr(services, "MOST_DRAFTS", 2)
    for _ in range(2):
        assert post(signed_in()).status_code == 201
    refused = post(signed_in())
    assert (refused.status_code, refused.json()["code"]) == (429, "job.too_many_drafts")
    assert post(signed_in("stranger")).status_code == 201
    Job.objects.filter(pk=Job.objects.earliest("id").pk).update(state=Job.State.FUNDED)
    assert post(signed_in()).status_code == 201
    Job.objects.update(created_at=timezone.now() - timedelta(hours=2))
    assert post(signed_in()).status_code == 201


def test_posting_needs_a_signed_in_wallet() -> None:
    answer = post(Client())
    assert (answer.status_code, answer.json()["code"]) == (403, "auth.required")


def test_only_its_requester_stops_a_job() -> None:
    job = fund()
    answer = signed_in("stranger").post(f"/api/v1/jobs/{job.pk}/stop")
    assert (answer.status_code, answer.json()["code"]) == (403, "job.not_yours")
    assert signed_in().post(f"/api/v1/jobs/{job.pk}/stop").json()["job"]["state"] == "stopped"


def test_the_check_says_what_it_would_cost() -> None:
    answer = Client().post(
        "/api/v1/jobs/check", {"name": "x", "spec": SMALL, "max_rate": 10, "escrow": 1}, content_type="application/json"
    )
    spec = parse_spec(SMALL)
    assert answer.json()["worst_case_cost"] == str(spec.units_per_round * 10 * 2 * 2)
    assert answer.json()["matching_nodes"] == 0


def test_a_data_set_is_uploaded_and_stays_private() -> None:
    answer = signed_in().post("/api/v1/datasets", b"to be or not to be", content_type="application/octet-stream")
    assert answer.status_code == 201
    sha256 = answer.json()["sha256"]
    assert Artifact.objects.get(pk=sha256).size == 18
    assert Client().get(f"/api/v1/artifacts/{sha256}").json()["code"] == "artifact.unknown"
    artifacts.publish(sha256s=[sha256])
    assert b"".join(Client().get(f"/api/v1/artifacts/{sha256}").streaming_content) == b"to be or not to be"


def test_uploading_needs_a_signed_in_wallet() -> None:
    assert Client().post("/api/v1/datasets", b"x", content_type="application/octet-stream").status_code == 403
