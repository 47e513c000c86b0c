"""What an audit asks for comes in pieces where it is large, in the time that takes, and only where it would be taken."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.artifacts.models import Artifact
from marketplace.jobs.models import Job
from marketplace.operators.models import Node
from marketplace.training import tasks
from marketplace.training.models import Audit
from marketplace.training.services import audits
from tests.marketplace.training.work import AUDITED, HASH, lease, paid
from tests.marketplace.world import TestNode, fund, register
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.draws import DELAY
from trainer.protocol.limits import evidence_limit, upload_limit

pytestmark = pytest.mark.django_db


@pytest.fixture
def nodes(db: None) -> list[TestNode]:
    return [register(1), register(2)]


@pytest.fixture
def job(nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch) -> Job:
    """All of its contributions are audited, by a block that is final; replays are handed to a worker that never answers."""
    job = fund(spec=AUDITED)
    Job.objects.filter(pk=job.pk).update(upload_limit=1_000)
    monkeypatch.setattr(audits, "final_block_hash", {100 + DELAY: HASH}.get)
    monkeypatch.setattr(tasks.replay_audit, "delay", lambda **refs: None)
    job.refresh_from_db()
    return job


@pytest.fixture
def audited(job: Job) -> Audit:
    """An open audit of node 1."""
    audits.draw_audits(round_id=paid(job, 0, (1,)).pk)
    return Audit.objects.get()


def test_large_evidence_comes_in_pieces_that_are_kept(audited: Audit, nodes: list[TestNode]) -> None:
    data = bytes(range(200))
    path, query = f"/agent/v1/audits/{audited.pk}/pieces/4", f"?sha256={sha256_hex(data)}&size={len(data)}"
    for index in (2, 0, 3):
        sent = nodes[0].call("PUT", f"{path}/{index}{query}", raw=data[50 * index : 50 * index + 50])
        assert (sent.status_code, sent.json()) == (200, {"whole": False})
    assert nodes[0].call("GET", path + query).json() == {"held": [0, 2, 3], "whole": False}
    for _ in range(2):
        assert nodes[0].call("PUT", f"{path}/1{query}", raw=data[50:100]).json() == {"whole": True}
    assert nodes[0].call("GET", path + query).json() == {"held": [], "whole": True}
    audited.refresh_from_db()
    assert (audited.state, audited.evidence, audited.evidence_size) == ("answered", sha256_hex(data), len(data))
    assert Artifact.objects.get(pk=audited.evidence).kind == Artifact.Kind.AUDIT


def test_pieces_are_refused_as_the_whole_would_be(audited: Audit, nodes: list[TestNode]) -> None:
    path, named = f"/agent/v1/audits/{audited.pk}/pieces/4/0", f"sha256={'ab' * 32}"
    too_large = audits.most_evidence(audited.contribution.round) + 1
    for node, query, code in (
        (nodes[0], f"{named}&size={too_large}", "artifact.too_large"), (nodes[1], f"{named}&size=8", "audit.not_yours"),
        (nodes[0], f"{named}&size=", "request.invalid"), (nodes[0], "sha256=..&size=8", "request.invalid"),
        (nodes[0], f"{named}&size={'9' * 99}", "request.invalid"), (nodes[0], f"{named}&size=3", "upload.no_such_piece"),
    ):  # fmt: skip
        assert node.call("PUT", f"{path}?{query}", raw=b"ab").json()["code"] == code
    Audit.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    assert nodes[0].call("PUT", f"{path}?{named}&size=8", raw=b"ab").json()["code"] == "audit.expired"


def test_the_time_to_answer_is_what_the_evidence_takes_by_the_nodes_link(job: Job, nodes: list[TestNode]) -> None:
    """124 M parameters; node 1's uplink is measured, node 2's is not, and 1 byte a second buys no year."""
    Job.objects.filter(pk=job.pk).update(upload_limit=upload_limit(124_000_000))
    Node.objects.filter(pk=1).update(measured={"up": {"value": 2.5e6}})
    audits.draw_audits(round_id=paid(job, 0).pk)
    size, asked = evidence_limit(124_000_000), timezone.now()
    left = {audit.node_id: (audit.deadline - asked).total_seconds() for audit in Audit.objects.all()}
    assert left == pytest.approx({1: 600 + 2 * size / 2.5e6, 2: 600 + 2 * size / 1.25e6}, abs=60)
    Node.objects.filter(pk=1).update(measured={"up": {"value": 1.0}})
    claimed = audits.time_to_answer(Node.objects.get(pk=1), 0).total_seconds()
    assert claimed == pytest.approx(600 + 2 * size / 125_000), "and what is open counts"
    (told,) = lease(nodes[0])["audits"]
    assert told["most_bytes"] == size


def test_nobody_is_asked_for_what_the_installation_would_not_take(job: Job, settings) -> None:
    needed = evidence_limit(job.parameters or 0)
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"max_artifact_bytes": needed - 1})
    round_ = paid(job, 0)
    audits.draw_audits(round_id=round_.pk)
    round_.refresh_from_db()
    assert round_.drawn_at is not None and not Audit.objects.exists()
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"max_artifact_bytes": needed})
    audits.draw_audits(round_id=paid(job, 1).pk)
    assert Audit.objects.count() == 2
