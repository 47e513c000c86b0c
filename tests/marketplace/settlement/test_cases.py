"""Cases at the court: who opens one, what the chain's refusals mean, whose turn it is, and what a committee goes by."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from django.utils import timezone
from eth_utils.crypto import keccak
from pydantic import SecretStr

from marketplace.artifacts import store
from marketplace.chain.models import Alarm, ChainLog, Intent
from marketplace.chain.projections import LogEntry
from marketplace.chain.services import domain
from marketplace.jobs.models import Seat
from marketplace.settlement import committee, selectors, tasks
from marketplace.settlement.attestor import Attestor
from marketplace.settlement.models import Payment
from marketplace.settlement.services import batches, cases
from marketplace.training import calibration, engine
from marketplace.training.models import Assignment, Audit, Case, Contribution, Round
from tests.marketplace.settlement.conftest import evidence_of
from tests.marketplace.world import TestNode, fund, wallet
from tests.settings import test_key as key_of
from trainer.protocol.canonical import canonical_bytes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import AuditVerdict, AuditWork

pytestmark = pytest.mark.django_db


@pytest.fixture
def challenger() -> Any:
    key = {"challenger_key": SecretStr(key_of("challenger"))}
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update=key)):
        yield


def settle(round_: Round) -> Audit:
    """Its batch is paid, as the chain tells; then a replay proves node 1's work false."""
    (batch,) = batches.build_batches(round_id=round_.pk)
    Payment.objects.filter(batch=batch).update(quality=9_000, state=Payment.State.FINAL)
    said = {
        "job_id": round_.job.chain_id, "round": round_.number, "batch": 0, "base": "0x" + round_.base,
        "evidence": "0x" + round_.evidence, "epoch": 1, "attestors": 7,
    }  # fmt: skip
    chain_log("RoundSettled", said)
    return Audit.objects.create(
        contribution=Contribution.objects.get(node_id=1), node_id=1, segment=0, block=1, block_hash="0x", precision="fp32",
        deadline=timezone.now(), state=Audit.State.FAILED, shadow=False, proven=True, evidence="ab" * 32,
    )  # fmt: skip


def chain_log(name: str, args: dict[str, Any], *, index: int = 0) -> None:
    ChainLog.objects.create(block=9, block_hash="0x", tx_hash="0x", log_index=index, name=name, args=args, timestamp=0)


@pytest.fixture
def failed(nodes: list[TestNode]) -> Audit:
    """Of work that nobody has trained: these tests are about who says what to whom."""
    round_ = Round.objects.create(
        job=fund(), number=0, base="ba" * 32, evidence="ed" * 32, deadline=timezone.now(), state=Round.State.SETTLED
    )
    Seat.objects.create(job=round_.job, node_id=1, rate=5, capacity=100)
    slot = Assignment.objects.create(round=round_, node_id=1, shard=0, steps=4, encoding={}, state="handed_in")
    Contribution.objects.create(
        assignment=slot, round=round_, node_id=1, state=Contribution.State.ACCEPTED, units=32, size=1, seconds=1,
        artifact="aa" * 32, signature="0x" + "11" * 65, committed_at=timezone.now(),
    )  # fmt: skip
    return settle(round_)


@pytest.fixture
def case(failed: Audit, challenger: None) -> Case:
    tasks.open_cases(failed.contribution.round_id)
    return Case.objects.select_related("contribution__round__job").get()


def told(case: Case, **changes: Any) -> None:
    """Fields of the row, as the court's events would set them."""
    Case.objects.filter(pk=case.pk).update(**changes)
    case.refresh_from_db()


def log(name: str, **args: Any) -> LogEntry:
    return LogEntry(name=f"court.{name}", args=args, block=10, block_hash="0x", tx_hash="0x", log_index=0, timestamp=1000)


def opened(case: Case, **changes: Any) -> None:
    """CaseOpened, as the indexer would tell it."""
    place = {"job_id": case.contribution.round.job.chain_id, "round": case.contribution.round.number, "node_id": 1}
    said = {"case_id": 3, "kind": cases.QUALITY, "challenger": wallet("challenger").address, "bond": 5, "deadline": 2000}
    cases.record_opening(log("CaseOpened", **(place | said | changes)))
    case.refresh_from_db()


# Opening.


@pytest.mark.parametrize("changes", [{"shadow": True}, {"proven": False}, {"state": "suspicious"}])
def test_only_a_failure_that_is_proven_and_counts_opens_a_case(failed: Audit, challenger: None, changes: dict[str, Any]) -> None:
    Audit.objects.filter(pk=failed.pk).update(**changes)
    tasks.open_cases(failed.contribution.round_id)
    assert selectors.unopened_cases() == []
    assert not Case.objects.exists()


def test_what_was_paid_nearly_nothing_is_not_worth_a_bond(failed: Audit, challenger: None) -> None:
    failed.contribution.payment.quality = 500
    failed.contribution.payment.save()
    tasks.open_cases(failed.contribution.round_id)
    assert not Case.objects.exists()
    assert selectors.unopened_cases() == [], "nor asked for again for ever"


def test_newer_rounds_are_brought_to_the_court_first(failed: Audit) -> None:
    """More rounds may wait than one sweep takes, and the oldest ones' windows are nearly over or past."""
    first = failed.contribution.round
    later = Round.objects.create(job=first.job, number=1, base="bb" * 32, deadline=timezone.now(), state=Round.State.SETTLED)
    paid = failed.contribution.payment
    slot = Assignment.objects.create(round=later, node_id=1, shard=0, steps=4, encoding={}, state="handed_in")
    again = Contribution.objects.get(pk=failed.contribution_id)
    again.pk, again.round, again.assignment, again.artifact = None, later, slot, "ab" * 32
    again.save()
    paid.pk, paid.contribution = None, again
    paid.save()
    failed.pk, failed.contribution = None, again
    failed.save()
    assert selectors.unopened_cases() == [{"round_id": later.pk}, {"round_id": first.pk}]


def test_one_contribution_has_one_case_whatever_of_it_fails(case: Case, failed: Audit) -> None:
    failed.pk, failed.segment = None, 1
    failed.save()
    assert selectors.unopened_cases() == []
    tasks.open_cases(failed.contribution.round_id)
    assert (Case.objects.count(), Intent.objects.filter(kind="challengeQuality").count()) == (1, 1)
    assert list(Intent.objects.filter(group="challenges").values_list("kind", flat=True)) == ["approve", "challengeQuality"]


def test_without_a_challenger_an_alarm_says_so_until_there_is_one(failed: Audit) -> None:
    tasks.open_cases(failed.contribution.round_id)
    assert Alarm.objects.get().code == cases.NO_CHALLENGER
    assert selectors.unopened_cases() == [{"round_id": failed.contribution.round_id}], "it is tried again"
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update={"challenger_key": SecretStr(key_of("challenger"))})):
        tasks.open_cases(failed.contribution.round_id)
    assert (Alarm.objects.count(), Case.objects.count()) == (0, 1)


def refuse(case: Case, reason: str) -> None:
    case.refresh_from_db()
    Intent.objects.filter(key=case.intent_key).update(state=Intent.State.FAILED, reason=reason)
    cases.record_intent(Intent.objects.get(key=case.intent_key))
    case.refresh_from_db()


def test_a_case_whose_bond_nobody_has_is_asked_for_again(case: Case) -> None:
    refuse(case, "ERC20InsufficientBalance(sender=0x, balance=0, needed=5)")
    assert (case.state, Alarm.objects.get().code) == (Case.State.PROMISED, cases.NO_BOND)
    assert selectors.due_cases() == [], "not at once"
    told(case, retry_at=timezone.now() - timedelta(seconds=1))
    assert selectors.due_cases() == [{"case_id": case.pk}]
    for _ in range(2):
        tasks.send_case_again(case.pk)
    first, second = Intent.objects.filter(kind="challengeQuality").order_by("pk")
    assert (first.data, second.state) == (second.data, Intent.State.PENDING)
    opened(case)
    assert (case.state, case.chain_id, Alarm.objects.count()) == (Case.State.DRAWING, 3, 0)


def test_a_case_whose_challenger_is_gone_waits_for_one(case: Case) -> None:
    refuse(case, "ERC20InsufficientBalance(sender=0x, balance=0, needed=5)")
    told(case, retry_at=timezone.now() - timedelta(seconds=1))
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update={"challenger_key": SecretStr("")})):
        tasks.send_case_again(case.pk)
    assert Alarm.objects.filter(code=cases.NO_CHALLENGER).exists()
    assert selectors.due_cases() == [{"case_id": case.pk}], "it is tried again"
    tasks.send_case_again(case.pk)
    assert not Alarm.objects.filter(code=cases.NO_CHALLENGER).exists()
    assert Intent.objects.filter(kind="challengeQuality").count() == 2


@pytest.mark.parametrize("reason", ["WindowOver(job_id=1, round=0, until=7)", "RoundIsAccepted(job_id=1, round=0)"])
def test_a_case_that_comes_too_late_is_over(case: Case, reason: str) -> None:
    refuse(case, reason)
    assert (case.state, case.reason, selectors.due_cases()) == (Case.State.REFUSED, reason, [])
    opened(case, challenger=wallet("stranger").address)
    assert (case.state, case.reason) == (Case.State.DRAWING, ""), "somebody else was first, and it is followed all the same"


# Whose turn it is.


def test_steps_that_are_open_to_anyone_are_taken_when_they_are_due(case: Case) -> None:
    opened(case)
    assert cases.due_step(case, now=1999) == "drawCommittee"
    assert cases.due_step(case, now=2000) == "decide", "nobody drew it: the court has a default"
    cases.record_committee(log("CommitteeDrawn", case_id=3, attestor_ids=[4, 5], commit_until=3000, reveal_until=4000))
    votes = [
        ("VoteCommitted", {"attestor_id": 4}), ("VoteCommitted", {"attestor_id": 5}),
        ("VoteRevealed", {"attestor_id": 5, "quality": 0}), ("VoteRevealed", {"attestor_id": 4, "quality": 7}),
    ]  # fmt: skip
    steps = []
    for name, args in votes:
        case.refresh_from_db()
        steps.append(cases.due_step(case, now=2500))
        cases.record_vote(log(name, case_id=3, **args))
    case.refresh_from_db()
    steps.append(cases.due_step(case, now=2500))
    assert steps == ["", "", "", "", "decide"]
    assert case.votes == {"4": 7, "5": 0}
    told(case, votes={"4": 0})
    assert [cases.due_step(case, now=now) for now in (2999, 3000)] == ["", "decide"], "who committed has revealed; no more will"
    told(case, votes={"4": None, "5": 0})
    assert [cases.due_step(case, now=now) for now in (3999, 4000)] == ["", "decide"]
    cases.record_decision(log("CaseDecided", case_id=3, finding=0, found=True, appeal_until=5000))
    case.refresh_from_db()
    assert [cases.due_step(case, now=now) for now in (4999, 5000)] == ["", "execute"]
    cases.record_appeal(log("CaseAppealed", case_id=3, by=wallet("requester").address, ruling_until=6000))
    case.refresh_from_db()
    assert (case.state, [cases.due_step(case, now=now) for now in (5999, 6000)]) == ("appealed", ["", "execute"])


def test_a_step_is_promised_once_in_a_while_and_who_has_not_voted_is_asked(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "unix_now", lambda: 1000.0)
    opened(case)
    for _ in range(2):
        assert cases.press(case_id=case.pk) == []
    assert Intent.objects.get(kind="drawCommittee").group.startswith("case:")
    for number in (4, 5):
        joined = {"attestor_id": number, "signer": wallet(f"attestor {number}").address}
        chain_log("registry.AttestorJoined", joined, index=number)
    told(case, state=Case.State.VOTING, members=[4, 5], votes={"5": 9_000}, commit_until=3000, until=4000)
    assert cases.press(case_id=case.pk) == [wallet("attestor 4").address]
    told(case, state=Case.State.EXECUTED)
    assert cases.press(case_id=case.pk) == []


def test_stalled_cases_are_pressed_again(case: Case) -> None:
    assert selectors.open_cases() == [], "it is the outbox's turn"
    opened(case)
    assert selectors.open_cases() == [{"case_id": case.pk}]
    assert selectors.open_cases() == []


# What a committee finds.


def at_court(case: Case, **changes: Any) -> dict[str, Any]:
    contribution, round_ = case.contribution, case.contribution.round
    return {
        "job_id": round_.job.chain_id, "round": round_.number, "node_id": 1, "artifact": "0x" + contribution.artifact,
        "evidence": "0x" + round_.evidence, "paid": 9_000,
    } | changes  # fmt: skip


@pytest.fixture
def trained(aggregated: Round, challenger: None) -> Case:
    """A case about work that was really done, in a round with real evidence."""
    tasks.open_cases(settle(aggregated).contribution.round_id)
    return Case.objects.select_related("contribution__round__job", "contribution__assignment").get()


def show(data: bytes) -> None:
    """What the node is said to have shown."""
    Audit.objects.update(evidence=store.write_stream([data], limit=99)[0])


def test_a_member_goes_by_what_a_quorum_has_attested_and_by_everybodys_tolerance(
    trained: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(b"states")
    assert committee.finding(trained, at_court(trained)) == 9_000, "no answer to an audit: anybody may have made it"
    replayed: list[AuditWork] = []

    def replay(work: AuditWork) -> AuditVerdict:
        replayed.append(work)
        return AuditVerdict(verdict="failed", auditor_class="cpu", proven=True)

    monkeypatch.setattr(engine, "replay_audit", replay)
    monkeypatch.setattr(calibration, "honest_errors", lambda *_: {"cpu": [1e-9] * 300})
    assert committee.finding(trained, at_court(trained)) == 0
    assert replayed[0].honest_errors == {}
    other = trained.contribution.assignment
    Assignment.objects.filter(pk=other.pk).update(shard=other.shard + 1)
    assert committee.finding(trained, at_court(trained)) == 9_000, "it was ordered otherwise than is said now"
    assert len(replayed) == 1


def test_a_case_without_a_failed_audit_is_about_the_score(trained: Case) -> None:
    Audit.objects.all().delete()
    assert committee.finding(trained, at_court(trained)) == trained.contribution.quality


def test_a_quorum_that_attested_a_lie_does_not_bind_the_court(trained: Case) -> None:
    Audit.objects.all().delete()
    document = evidence_of(trained.contribution.round)
    mine = next(entry for entry in document["contributions"] if entry["node"] == 1)
    for lie in ({"quality": 1}, {"score": mine["score"] | {"improvement": -1.0}}, {"weight": 7.0}):
        mine |= lie
        data = canonical_bytes(document)
        said = at_court(trained, evidence="0x" + store.write_stream([data], limit=len(data))[0])
        assert committee.finding(trained, said) == trained.contribution.quality


def test_a_case_about_something_else_is_not_judged(case: Case) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        committee.finding(case, at_court(case, artifact="0x" + "00" * 32))
    assert refusal.value.code == "court.other_case"


# The member's own memory.


def test_a_vote_is_the_same_for_the_same_case_and_what_the_court_opens(tmp_path: Path) -> None:
    one, other = (Attestor(key_of(name), domain=domain(), home=tmp_path) for name in ("attestor 0", "attestor 1"))
    court = "0xCf7Ed3AccA5a467e9e704C703E8D87F634fB0Fc9"
    assert one.finding(court, 3) is None
    assert one.decide(court, 3, 0) == 0
    assert one.decide(court, 3, 9_000) == one.finding(court, 3) == 0, "what was written down first stands"
    assert one.finding(court, 4) is one.finding("0x" + "00" * 20, 3) is None
    vote = one.vote(court, 3, 0)
    assert vote == one.vote(court, 3, 0)
    words = [(3).to_bytes(32, "big"), bytes(12) + bytes.fromhex(one.address[2:]), bytes(32), bytes.fromhex(vote.salt[2:])]
    assert vote.commitment == "0x" + keccak(b"".join(words)).hex()
    assert len({vote.salt, other.vote(court, 3, 0).salt, one.vote(court, 4, 0).salt}) == 3
