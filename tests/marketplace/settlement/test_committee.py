"""What a committee's member goes by where work began in earlier rounds: what the chain names, not what the coordinator keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from marketplace.artifacts import store
from marketplace.settlement import attesting, committee
from marketplace.training import engine, selectors, tasks
from marketplace.training.models import Assignment, Audit, Contribution, Round
from marketplace.training.services import audits, rounds
from tests.marketplace.settlement.conftest import evidence_of
from tests.marketplace.training.test_replays import Ahead
from tests.marketplace.training.work import lease, started
from tests.marketplace.world import TestNode, fund
from trainer.protocol.orders import order_seed
from trainer.scoring.evidence import gather_evidence, write_evidence

pytestmark = pytest.mark.django_db
EAGER = {
    "inner": {"steps": 10, "batch_size": 8}, "rounds": {"rounds": 3, "nodes": 2, "quorum": 1}, "aggregation": {"gate": False},
    "network": {"overlap": "eager", "policy": "equal"},
}  # fmt: skip


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The evidence that each settled round names, by its number."""
    named: dict[int, str] = {}
    monkeypatch.setattr(attesting, "settled_evidence", lambda job, number, *, block: named.get(number))
    monkeypatch.setattr(audits, "final_block_hash", lambda number: "0x" + "5e" * 32)
    monkeypatch.setattr(audits, "drawn_segments", lambda *_, **__: [0])
    return named


Play = Callable[..., Audit]


@pytest.fixture
def play(nodes: list[TestNode], chain: dict[int, str]) -> Play:
    """Two rounds of an eager job. Node 2 begins the second `elsewhere` than at its guess, or gives its lead another `mark`, or
    what it handed in first was `refused` at its check. The replayed audit of its second contribution."""

    def played(*, elsewhere: float = 0.0, mark: dict[str, Any] | None = None, refused: bool = False) -> Audit:
        job = started(fund(spec=EAGER))
        workers = [Ahead(node, job) for node in nodes]
        for number in range(2):
            rounds.open_round(job_id=job.pk)
            round_ = Round.objects.get(job=job, number=number)
            for worker in workers:
                order = worker.work()
                if number == 0:
                    worker.go_ahead(order, elsewhere=elsewhere * (worker.node.id == 2))
            if refused and number == 0:
                lost = {"state": Contribution.State.REJECTED, "code": "artifact.malformed"}
                Contribution.objects.filter(round=round_, node_id=2).update(**lost)
            for pk in Contribution.objects.filter(round=round_).values_list("pk", flat=True):
                tasks.check_contribution(pk)
            rounds.close_round_if_complete(round_id=round_.pk)
            tasks.aggregate_round(round_.pk)
            rounds.mark_settled(round_id=round_.pk, block=7 + number)
            round_.refresh_from_db()
            chain[number] = round_.evidence
            cheat = workers[1]
            if mark is not None and cheat.lead is not None:
                cheat.lead.mark = cheat.lead.mark._replace(**mark)
        Contribution.objects.filter(round=round_).update(state=Contribution.State.ACCEPTED)
        audits.draw_audits(round_id=round_.pk)
        asked = next(one for one in lease(cheat.node)["audits"] if one["artifact"] == artifact_of(cheat.node, round_))
        answer = write_evidence(gather_evidence(cheat.made[1].trace, asked["segment"], before=cheat.made[0].trace))
        assert cheat.node.call("PUT", f"/agent/v1/audits/{asked['audit_id']}/evidence", raw=answer).status_code == 200
        tasks.replay_audit(asked["audit_id"])
        audit: Audit = Audit.objects.select_related("contribution__round__job", "contribution__assignment").get(
            pk=asked["audit_id"]
        )
        return audit

    return played


def artifact_of(node: TestNode, round_: Round) -> str:
    return str(Contribution.objects.get(round=round_, node_id=node.id).artifact)


def convicts(audit: Audit) -> bool:
    return committee.fails(audit, evidence_of(audit.contribution.round))


def test_work_that_was_begun_elsewhere_is_convicted(play: Play) -> None:
    audit = play(elsewhere=0.5)
    assert (audit.state, audit.code, audit.proven) == ("failed", "audit.diverged", True)
    assert convicts(audit)


def test_who_has_an_upload_refused_and_then_begins_elsewhere_is_convicted(play: Play) -> None:
    """The upload is in no evidence; the lead names it by its hash."""
    audit = play(elsewhere=0.5, refused=True)
    assert [entry["node"] for entry in evidence_of(Round.objects.get(number=0))["contributions"]] == [1]
    assert (audit.state, audit.code) == ("failed", "audit.diverged")
    assert convicts(audit)


def test_an_earlier_round_is_what_the_chain_names(play: Play, chain: dict[int, str]) -> None:
    """The coordinator shows another model than the one from which the node has begun; its own row says so."""
    audit = play(elsewhere=0.5)
    chain[0] = "ab" * 32
    assert not convicts(audit)
    del chain[0]
    assert not convicts(audit)


def test_a_lead_from_what_was_never_handed_in_is_proven_by_the_receipt_before(play: Play, chain: dict[int, str]) -> None:
    audit = play(mark={"artifact": "0" * 64})
    assert (audit.state, audit.code, audit.proven) == ("failed", "audit.wrong_lead", True)
    assert convicts(audit)


def test_a_lead_whose_beginning_nobody_can_know_is_no_proof(play: Play) -> None:
    audit = play(mark={"artifact": "0" * 64}, refused=True)
    assert (audit.state, audit.code, audit.proven) == ("failed", "audit.unknown_lead", False)
    assert not convicts(audit)


def test_nobody_is_convicted_by_a_contribution_that_the_coordinator_puts_before(play: Play) -> None:
    """It shows another upload as the one before: the node's lead does not fit that, and no receipt of the node names it."""
    audit = play()
    assert audit.state == "passed"
    forged, _ = store.write_stream([b"forged"], limit=99)
    Contribution.objects.filter(round__number=0, node_id=2).update(artifact=forged)
    assert not convicts(audit)
    other = Contribution.objects.get(round__number=0, node_id=1).artifact
    Contribution.objects.filter(round__number=0, node_id=2).update(artifact=other)
    assert not convicts(audit)


def test_nobody_is_convicted_of_an_order_that_it_was_not_given(play: Play) -> None:
    """The coordinator says, and a quorum has attested, that the node was to train on another shard."""
    audit = play()
    slot, document = audit.contribution.assignment, evidence_of(audit.contribution.round)
    assert not convicts(audit)
    spec, shard = audit.contribution.round.job.parsed_spec, 1 - slot.shard
    Assignment.objects.filter(pk=slot.pk).update(shard=shard)
    framed = Audit.objects.select_related("contribution__round__job", "contribution__assignment").get(pk=audit.pk)
    entry = next(entry for entry in document["contributions"] if entry["node"] == audit.node_id)
    entry |= {"shard": shard, "seed": order_seed(spec, 1, shard)}
    found = engine.replay_audit(selectors.audit_work(framed))
    assert (found.verdict, found.code, found.proven) == ("failed", "audit.other_order", False)
    assert not committee.fails(framed, document)
