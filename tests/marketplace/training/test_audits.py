"""Replay audits: drawn by chance that nobody chooses, answered once, judged once, and without consequences until calibrated."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.artifacts.models import Artifact
from marketplace.chain.models import Cursor
from marketplace.chain.services import domain
from marketplace.common.driving import MAX_DRIVES, STALL
from marketplace.events.models import Event
from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Node
from marketplace.operators.selectors import usable_bids
from marketplace.training import calibration, selectors, tasks
from marketplace.training.calibration import HONEST_AUDITS, Calibration
from marketplace.training.models import Assignment, Audit, Contribution, Round
from marketplace.training.services import audits, rounds
from tests.marketplace.training.work import AUDITED, HASH, lease, paid
from tests.marketplace.world import TestNode, fund, register
from trainer.protocol.draws import DELAY, audit_digest, drawn_segments
from trainer.protocol.limits import evidence_limit
from trainer.protocol.rounds import AuditVerdict

pytestmark = pytest.mark.django_db
FILE = b"states of a node"


@pytest.fixture
def nodes(db: None) -> list[TestNode]:
    return [register(1), register(2)]


@pytest.fixture
def job(nodes: list[TestNode]) -> Job:
    job = fund(spec=AUDITED)
    Job.objects.filter(pk=job.pk).update(upload_limit=1_000)
    job.refresh_from_db()
    return job


@pytest.fixture
def final(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Hashes of final blocks by number."""
    blocks: dict[int, str] = {}
    monkeypatch.setattr(audits, "final_block_hash", blocks.get)
    return blocks


@pytest.fixture
def unreplayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays are handed to a worker that never answers."""
    monkeypatch.setattr(tasks.replay_audit, "delay", lambda **refs: None)


@pytest.fixture
def audited(job: Job, final: dict[int, str]) -> Audit:
    """An open audit of node 1."""
    final[102] = HASH
    audits.draw_audits(round_id=paid(job, 0, (1,)).pk)
    return Audit.objects.get()


def calibrate(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(precision: str, operator: str, auditor: str = "") -> Calibration:
        return Calibration(precision, operator, auditor, HONEST_AUDITS, 0)

    monkeypatch.setattr(calibration, "of", known)


def give(node: TestNode, audit: Audit, data: bytes = FILE):  # type: ignore[no-untyped-def]
    return node.call("PUT", f"/agent/v1/audits/{audit.pk}/evidence", raw=data)


def judge(audit: Audit, verdict: str) -> Audit:
    found = AuditVerdict(verdict=verdict, auditor_class="cpu", error=0.2, encoding_error=0.1, tolerance=0.06)
    audits.record_verdict(audit_id=audit.pk, found=found)
    audit.refresh_from_db()
    return audit


# Drawing.


def test_the_draw_waits_for_a_final_block_after_the_settlement(job: Job, final: dict[int, str]) -> None:
    round_ = paid(job, 0)
    final[101] = HASH
    audits.draw_audits(round_id=round_.pk)
    round_.refresh_from_db()
    assert (round_.drawn_at, Audit.objects.count()) == (None, 0)
    final[100 + DELAY] = HASH
    audits.draw_audits(round_id=round_.pk)
    audits.draw_audits(round_id=round_.pk)
    assert set(Audit.objects.values_list("node_id", "block", "block_hash", "state")) == {
        (1, 102, HASH, "requested"), (2, 102, HASH, "requested")
    }  # fmt: skip


def test_anybody_can_draw_again(audited: Audit, job: Job) -> None:
    place = {"market": domain().contract, "job_id": job.chain_id, "round": 0, "node_id": 1}
    digest = audit_digest(block_hash=audited.block_hash, **place)
    assert [audited.segment] == drawn_segments(digest, job.parsed_spec.audit, steps=7, rate=1.0)


def test_newcomers_are_drawn_and_old_hands_by_the_jobs_own_rate(job: Job, final: dict[int, str]) -> None:
    for number in range(4):
        final[102 + number] = HASH
        audits.draw_audits(round_id=paid(job, number, block=100 + number).pk)
    assert sorted(Audit.objects.values_list("contribution__round__number", "node_id")) == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_late_work_is_audited_like_a_newcomers(job: Job, final: dict[int, str]) -> None:
    found = [paid(job, number) for number in range(4)]
    began = Assignment.objects.get(round=found[2], node_id=1)
    Assignment.objects.filter(round=found[3], node_id=1).update(origin=began)
    final[102] = HASH
    audits.draw_audits(round_id=found[3].pk)
    assert set(Audit.objects.values_list("node_id", flat=True)) == {1}


def test_a_failed_audit_makes_a_newcomer(job: Job, final: dict[int, str]) -> None:
    found = [paid(job, number) for number in range(4)]
    audit = Audit.objects.create(
        contribution=Contribution.objects.get(round=found[2], node_id=1), node_id=1, segment=0, block=1, block_hash=HASH,
        deadline=timezone.now(), precision="fp32", state=Audit.State.FAILED,
    )  # fmt: skip
    final[102] = HASH
    audits.draw_audits(round_id=found[3].pk)
    assert Audit.objects.count() == 1, "in shadow mode nothing follows"
    Audit.objects.filter(pk=audit.pk).update(shadow=False)
    Round.objects.update(drawn_at=None)
    audits.draw_audits(round_id=found[3].pk)
    assert set(Audit.objects.exclude(pk=audit.pk).values_list("node_id", flat=True)) == {1}


def test_each_segment_is_an_audit_of_its_own(nodes: list[TestNode], final: dict[int, str]) -> None:
    job = fund(spec={"audit": AUDITED["audit"] | {"segments": 3}})
    final[102] = HASH
    audits.draw_audits(round_id=paid(job, 0, (1,)).pk)
    assert len(set(Audit.objects.values_list("segment", flat=True))) == 3
    assert [asked["segment"] for asked in audits.open_audits(node_id=1)] == [one.segment for one in Audit.objects.order_by("id")]


def test_the_class_of_a_machine_is_what_its_agent_says_it_computes_on() -> None:
    software = {"device_class": "cpu-x86_64-avx512-torch2.13"}
    assert audits.class_of(Node(device="CPU x86_64, 1 of 2 cores", software=software)) == "cpu-x86_64-avx512-torch2.13"
    assert audits.class_of(Node(device="CPU x86_64, 1 of 2 cores")) == "CPU x86_64, 1 of 2 cores"


def test_work_that_was_not_paid_is_not_audited(job: Job, final: dict[int, str]) -> None:
    round_ = paid(job, 0)
    Contribution.objects.filter(node_id=2).update(state=Contribution.State.REJECTED)
    final[102] = HASH
    audits.draw_audits(round_id=round_.pk)
    assert Audit.objects.get().node_id == 1


def test_the_sweep_finds_rounds_whose_block_is_final(job: Job) -> None:
    round_ = paid(job, 0)
    cursor = Cursor.objects.create(name="market:0x", block=99, finalized=101)
    assert selectors.drawable_rounds() == []
    Cursor.objects.filter(pk=cursor.pk).update(finalized=102)
    assert selectors.drawable_rounds() == [{"round_id": round_.pk}]


# Asking and answering.


def test_the_lease_answer_tells_of_audits_also_when_there_is_no_order(audited: Audit, nodes: list[TestNode]) -> None:
    told = lease(nodes[0])
    assert set(told) == {"audits"}
    (asked,) = told["audits"]
    assert 590 < asked.pop("deadline_seconds") < 610
    wanted = {"audit_id": audited.pk, "artifact": audited.contribution.artifact, "segment": audited.segment}
    assert asked == wanted | {"most_bytes": audits.most_evidence(audited.contribution.round)}


def test_a_node_is_reminded_only_after_a_while(audited: Audit) -> None:
    assert audits.open_audits(node_id=1)
    assert not audits.open_audits(node_id=1), "it is at it; the long poll must not spin"
    Audit.objects.update(told_at=timezone.now() - audits.REMIND - timedelta(seconds=1))
    assert audits.open_audits(node_id=1)
    assert not audits.open_audits(node_id=2)


def test_evidence_is_taken_once_and_only_of_the_node_itself(audited: Audit, nodes: list[TestNode], unreplayed: None) -> None:
    other = give(nodes[1], audited)
    assert (other.status_code, other.json()["code"]) == (403, "audit.not_yours")
    assert give(nodes[0], audited).json() == {"audit_id": audited.pk, "state": "answered"}
    assert give(nodes[0], audited).status_code == 200, "the same again: its answer was lost"
    again = give(nodes[0], audited, b"something else")
    assert (again.status_code, again.json()["code"]) == (409, "audit.answered")
    audited.refresh_from_db()
    assert Artifact.objects.get(pk=audited.evidence).public is False
    hidden = nodes[1].call("GET", f"/agent/v1/artifacts/{audited.evidence}")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "artifact.unknown")
    assert not audits.open_audits(node_id=1)


def test_evidence_that_is_too_large_late_or_of_no_audit_is_refused(audited: Audit, nodes: list[TestNode]) -> None:
    large = give(nodes[0], audited, bytes(audits.most_evidence(audited.contribution.round) + 1))
    assert (large.status_code, large.json()["code"]) == (413, "artifact.too_large")
    Audit.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    late = give(nodes[0], audited)
    assert (late.status_code, late.json()["code"]) == (409, "audit.expired")
    unknown = nodes[0].call("PUT", "/agent/v1/audits/999/evidence", raw=FILE)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "audit.unknown")
    assert not Artifact.objects.filter(kind=Artifact.Kind.AUDIT).exists()


# Verdicts.


@pytest.fixture
def answered(audited: Audit, nodes: list[TestNode], unreplayed: None) -> Audit:
    give(nodes[0], audited)
    audited.refresh_from_db()
    return audited


@pytest.mark.parametrize("verdict", ["passed", "suspicious", "failed"])
def test_in_shadow_mode_a_verdict_is_shown_and_hurts_nobody(answered: Audit, verdict: str, job: Job) -> None:
    judge(answered, verdict)
    assert (answered.state, answered.shadow, answered.error, answered.auditor_class) == (verdict, True, 0.2, "cpu")
    assert Node.objects.get(pk=1).suspended_until is None
    assert not Artifact.objects.get(pk=answered.evidence).public
    assert Event.objects.filter(type="audit.judged", stream__topic=f"job.{job.pk}").count() == 1
    judge(answered, "failed" if verdict == "passed" else "passed")
    assert answered.state == verdict, "the first verdict stands"


def test_a_failed_audit_leaves_the_node_out_for_a_while(
    answered: Audit, nodes: list[TestNode], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in nodes:
        node.bid()
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING, round=1)
    calibrate(monkeypatch)
    judge(answered, "failed")
    assert not answered.shadow
    assert Artifact.objects.get(pk=answered.evidence).public, "whoever wants to can compute it again"
    node = Node.objects.get(pk=1)
    assert node.suspended_until > timezone.now() + timedelta(hours=23)
    assert f"Audit {answered.pk}" in node.suspension_reason
    assert node.rating_mu is None, "it was alone in its round: there is nobody to lose against"
    assert Event.objects.filter(type="node.suspended").exists()
    open_ = {"chain_job_id": 1, "max_rate": 10, "units": 1}
    assert set(usable_bids(**open_).values_list("node_id", flat=True)) == {2}
    opened = rounds.open_round(job_id=job.pk)
    assert set(opened.assignments.values_list("node_id", flat=True)) == {2}
    Node.objects.update(suspended_until=timezone.now() - timedelta(seconds=1))
    assert set(usable_bids(**open_).values_list("node_id", flat=True)) == {1, 2}, "the way back"


def test_who_was_caught_once_is_audited_in_every_round_that_it_can_still_lose(
    job: Job, final: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 1 is caught in round 3, by an audit at a rate at which nobody else is drawn."""
    Job.objects.filter(pk=job.pk).update(spec=job.spec | {"audit": job.spec["audit"] | {"newcomer_rate": 0.0}})
    now = timezone.now()
    found = [paid(job, number, block=100 * number) for number in range(5)]
    final.update({100 * number + DELAY: HASH for number in range(5)})
    Round.objects.update(drawn_at=now, settled_at=now)
    Round.objects.filter(pk=found[0].pk).update(settled_at=now - timedelta(seconds=601))
    Round.objects.filter(pk=found[1].pk).update(accepted_at=now)
    caught = Audit.objects.create(
        contribution=Contribution.objects.get(round=found[3], node_id=1), node_id=1, segment=0, block=1, block_hash=HASH,
        deadline=now, precision="fp32", state=Audit.State.FAILED, shadow=False, judged_at=timezone.now(),
    )  # fmt: skip
    assert selectors.suspect_rounds() == [], "a failure that is not proven"
    Audit.objects.filter(pk=caught.pk).update(proven=True)
    Contribution.objects.filter(round=found[4]).update(received_at=now + timedelta(hours=1))
    assert selectors.suspect_rounds() == [{"round_id": found[2].pk}], "not beyond dispute, not looked at, not of another life"
    for _ in range(2):
        tasks.audit_suspects(found[2].pk)
    drawn = Audit.objects.exclude(pk=caught.pk).get()
    assert (drawn.contribution.round_id, drawn.node_id, drawn.block, drawn.state) == (found[2].pk, 1, 202, "requested")
    assert selectors.suspect_rounds() == []


@pytest.mark.parametrize("verdict", ["passed", "suspicious"])
def test_only_a_failed_audit_has_consequences(answered: Audit, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate(monkeypatch)
    judge(answered, verdict)
    assert (answered.state, answered.shadow) == (verdict, False)
    assert Node.objects.get(pk=1).suspended_until is None


def over() -> None:
    """The time of every open audit."""
    Audit.objects.filter(state="requested").update(deadline=timezone.now() - timedelta(seconds=1))
    audits.expire()


def test_two_unanswered_audits_in_a_row_count_as_a_failed_one(
    audited: Audit, job: Job, final: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(monkeypatch)
    over()
    audited.refresh_from_db()
    assert (audited.state, audited.code) == ("unanswered", "audit.unanswered")
    assert Node.objects.get(pk=1).suspended_until is None, "a crash may lose what it would answer with"
    audits.draw_audits(round_id=paid(job, 1, (1,)).pk)
    over()
    assert Node.objects.get(pk=1).suspended_until is not None


def test_in_shadow_mode_silence_hurts_nobody(audited: Audit, job: Job, final: dict[int, str]) -> None:
    over()
    audits.draw_audits(round_id=paid(job, 1, (1,)).pk)
    over()
    assert set(Audit.objects.values_list("state", "shadow")) == {("unanswered", True)}
    assert Node.objects.get(pk=1).suspended_until is None


def test_a_replay_that_kills_its_worker_says_nothing_against_the_node(answered: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate(monkeypatch)
    Audit.objects.update(drives=MAX_DRIVES, driven_at=timezone.now() - 2 * STALL)
    assert selectors.stalled_audits() == []
    tasks.tick()
    answered.refresh_from_db()
    assert (answered.state, answered.code) == ("suspicious", "audit.not_replayed")
    assert Node.objects.get(pk=1).suspended_until is None


def test_a_lost_replay_is_driven_again(answered: Audit) -> None:
    assert selectors.stalled_audits() == [], "it was handed over just now"
    Audit.objects.update(driven_at=timezone.now() - 2 * STALL)
    assert selectors.stalled_audits() == [{"audit_id": answered.pk}]
    assert selectors.stalled_audits() == []


def test_a_failed_audit_is_a_lost_match_against_the_round(
    answered: Audit, job: Job, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    round_ = answered.contribution.round
    slot = Assignment.objects.create(round=round_, node_id=2, shard=0, steps=7, encoding={}, state="handed_in")
    Contribution.objects.create(
        assignment=slot, round=round_, node_id=2, state=Contribution.State.ACCEPTED, units=1, size=1, seconds=1,
        artifact="b" * 64, signature="0x", committed_at=timezone.now(),
    )  # fmt: skip
    calibrate(monkeypatch)
    judge(answered, "failed")
    assert Node.objects.get(pk=1).rating_mu < 25 < Node.objects.get(pk=2).rating_mu


# What deters.


def test_the_page_shows_the_arithmetic(answered: Audit, job: Job, client: Client) -> None:
    judge(answered, "passed")
    Seat.objects.create(job=job, node_id=1, rate=10, capacity=32)
    Seat.objects.create(job=job, node_id=2, rate=10**6, capacity=32)
    Job.objects.filter(pk=job.pk).update(spec=job.spec | {"audit": job.spec["audit"] | {"rate": 0.1}})
    found = client.get(f"/api/v1/jobs/{job.pk}/deterrence").json()
    assert (found["segments"], found["segments_of_round"], found["rate"]) == (1, 2, 0.1)
    assert found["caught_idle"] == pytest.approx(0.1 * 0.99)
    assert found["caught_lazy"] == pytest.approx(0.1 * 0.99 * 0.5), "a tenth of the work is one of two segments"
    assert found["left_idle"] == pytest.approx(0.01**2), "newcomers of this job are audited in each of two rounds"
    assert found["left_lazy"] == pytest.approx((1 - 0.99 * 0.5) ** 2)
    assert (found["auditing"], found["auditing_newcomers"]) == (pytest.approx(0.05), 0.5)
    assert found["shown_bytes"] == evidence_limit(Job.objects.get(pk=job.pk).parameters or 0) > 0
    cheap, dear = found["nodes"]
    assert (cheap["pay"], cheap["needed"]) == ("320", str(math.ceil(3 * 0.7 * 320 / (0.1 * 0.99))))
    assert (cheap["at_stake"], cheap["enough"]) == ("640", False), "a case takes twice the pay, however much the node has"
    assert dear["at_stake"] == str(10**7), "and no more than it has"
    assert found["deterring_rate"] == pytest.approx(0.7 / (2 * 0.99))
    often = job.spec | {"audit": job.spec["audit"] | {"rate": 1.0}}
    Job.objects.filter(pk=job.pk).update(spec=often)
    assert not client.get(f"/api/v1/jobs/{job.pk}/deterrence").json()["nodes"][0]["enough"], "three times over, nothing is"
    (known,) = found["classes"]
    assert (known["operator_class"], known["honest"], known["false_alarms"], known["calibrated"]) == ("cpu", 1, 0, False)
    Job.objects.filter(pk=job.pk).update(spec=job.spec)
    nothing = client.get(f"/api/v1/jobs/{job.pk}/deterrence").json()["nodes"][0]
    assert (nothing["needed"], nothing["enough"]) == (None, False), "without audits nothing deters"
