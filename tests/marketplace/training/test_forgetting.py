"""What nobody can need any more is deleted, and nothing that it takes to compute again what was paid."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from marketplace.artifacts import services as artifacts
from marketplace.artifacts import store
from marketplace.artifacts.models import Artifact
from marketplace.chain.models import Alarm
from marketplace.jobs.models import Job
from marketplace.training.models import Assignment, Audit, Case, Checkpoint, Contribution, Round
from marketplace.training.services.forgetting import DRAFTED, UNNAMED, forget, watch_disk
from tests.marketplace.training.work import commit, contribute, lease, train, upload
from tests.marketplace.world import TestNode, fund
from trainer.protocol.canonical import sha256_hex

pytestmark = pytest.mark.django_db
TEXT = b"to be learned " * 200
Kind = Artifact.Kind


def sent(data: bytes, kind: str = Kind.DATASET) -> str:
    return artifacts.store_upload(chunks=[data], kind=kind).pk


def a_day_passes() -> None:
    Artifact.objects.update(created_at=timezone.now() - UNNAMED - timedelta(minutes=1))


def is_here(sha256: str) -> bool:
    row, file = Artifact.objects.filter(pk=sha256).exists(), store.path_of(sha256).exists()
    assert row == file
    return row


def text_job(sha256: str) -> Job:
    return fund(spec={"model": {"architecture": "gpt"}, "data": {"kind": "text", "files": {"text": sha256}}})


def test_a_data_set_is_kept_for_a_day_and_for_jobs() -> None:
    used, unused = sent(TEXT), sent(b"never used")
    text_job(used)
    assert forget() == 0
    a_day_passes()
    sent(b"never used")  # again: its day begins anew
    assert forget() == 0
    a_day_passes()
    assert forget() == 1
    assert (is_here(used), is_here(unused)) == (True, False)


def test_a_draft_keeps_its_data_set_for_a_week() -> None:
    used = sent(TEXT)
    job = text_job(used)
    Job.objects.filter(pk=job.pk).update(state=Job.State.DRAFT)
    a_day_passes()
    assert forget() == 0
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - DRAFTED)
    assert forget() == 1
    assert not is_here(used)


def test_an_upload_that_was_not_handed_in_is_kept_while_its_lease_is_held(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    assert commit(nodes[0], leased, data).status_code == 200
    assert upload(nodes[0], leased, data).status_code == 200
    a_day_passes()
    assert forget() == 0
    Assignment.objects.update(state=Assignment.State.EXPIRED)
    assert forget() == 1
    assert not is_here(sha256_hex(data))


def test_all_that_a_round_is_computed_again_from_stays(open_round: Round, nodes: list[TestNode]) -> None:
    for node in nodes:
        assert contribute(node).status_code == 200
    Contribution.objects.filter(node_id=nodes[1].id).update(state=Contribution.State.REJECTED)  # the evidence names it, too
    Round.objects.update(state=Round.State.SETTLED, settled_at=timezone.now() - timedelta(days=1000))
    Assignment.objects.update(state=Assignment.State.EXPIRED)
    Job.objects.update(state=Job.State.CLOSED)
    before = set(Artifact.objects.values_list("sha256", flat=True))
    assert len(before) >= 5
    a_day_passes()
    assert forget() == 0
    assert all(map(is_here, before))


def test_what_a_job_names_stays_whoever_sent_it_first(job: Job) -> None:
    """Its first checkpoint and its specification can be known beforehand."""
    first = Checkpoint.objects.get(job=job)
    names = [first.params, first.outer_state, job.spec_hash]
    Artifact.objects.filter(pk__in=names).update(kind=Kind.DATASET)
    a_day_passes()
    assert forget() == 0
    assert all(map(is_here, names))


@pytest.mark.parametrize(
    ("state", "old", "disputed", "stays"),
    [
        ("passed", True, False, False), ("passed", False, False, True), ("passed", True, True, True),
        ("failed", True, False, True), ("suspicious", True, False, True), ("answered", True, False, True),
    ],
)  # fmt: skip
def test_evidence_of_an_honest_node_is_kept_for_the_challenge_window(
    open_round: Round, nodes: list[TestNode], state: str, old: bool, disputed: bool, stays: bool
) -> None:
    window = settings.HYPERGPU.deployment["terms"]["market"]["challengeWindow"]
    contribute(nodes[0])
    contribution, now = Contribution.objects.get(), timezone.now()
    Round.objects.update(state=Round.State.SETTLED, settled_at=now - timedelta(seconds=window + (60 if old else -60)))
    evidence = sent(b"states", Kind.AUDIT)
    Audit.objects.create(
        contribution=contribution, segment=0, node_id=nodes[0].id, state=state, block=1, block_hash="0x", deadline=now,
        precision="fp32", evidence=evidence,
    )  # fmt: skip
    if disputed:
        Case.objects.create(contribution=contribution)
    a_day_passes()
    assert forget() == (0 if stays else 1)
    assert is_here(evidence) == stays


def test_what_a_killed_process_was_writing_is_removed() -> None:
    ages = {"old": UNNAMED.total_seconds() + 60, "young": 60}
    for name, age in ages.items():
        (store.incoming() / name).write_bytes(b"half a fi")
        os.utime(store.incoming() / name, (time.time() - age,) * 2)
    forget()
    assert [path.name for path in store.incoming().iterdir()] == ["young"]


def test_an_alarm_stands_while_the_disk_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda: -1)
    watch_disk()
    assert Alarm.objects.get().code == "disk.low"
    monkeypatch.setattr(store, "free_bytes", lambda: settings.HYPERGPU.least_free_bytes)
    watch_disk()
    assert not Alarm.objects.exists()
