"""Rounds of a coordinator that lies: what it says does not follow, so no attestor signs it."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.artifacts import store
from marketplace.settlement import attesting
from marketplace.settlement.models import Attestation, Batch
from marketplace.settlement.services import attestations, batches
from marketplace.training import engine, selectors
from marketplace.training.models import Contribution, Round
from marketplace.training.services import rounds
from tests.marketplace.settlement.conftest import aggregate, attestor, evidence_of
from tests.marketplace.world import ATTESTORS, TestNode, ask, attest
from trainer.diloco.evidence import outcome
from trainer.diloco.round import bench, replay_round, score_seed
from trainer.protocol.canonical import canonical_bytes
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.django_db


def claim(round_: Round, document: dict[str, Any]) -> None:
    """The coordinator names another document as the round's evidence."""
    data = canonical_bytes(document)
    Round.objects.filter(pk=round_.pk).update(evidence=store.write_stream([data], limit=len(data))[0])


def refusal_of(round_: Round) -> str:
    """The code with which an attestor refuses the round's batch; the batch stays without commitments."""
    (batch,) = batches.build_batches(round_id=round_.pk)
    batch = Batch.objects.select_related("round__job", "epoch").get(pk=batch.pk)
    with pytest.raises(HyperGPUError) as refusal:
        attesting.scores(batch, attestor(ATTESTORS[0]))
    ask(batch, *ATTESTORS)
    assert set(Attestation.objects.filter(batch=batch).values_list("commitment", flat=True)) == {""}
    assert refusal.value.message in batch.reason
    return refusal.value.code


@pytest.fixture
def second(aggregated: Round, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch) -> Round:
    """The round that follows `aggregated`, both of them honest. The chain names what the coordinator names of the first."""
    monkeypatch.setattr(attesting, "settled_evidence", lambda *_, **__: Round.objects.get(number=0).evidence)
    Round.objects.filter(pk=aggregated.pk).update(settled_block=7)
    rounds.open_round(job_id=aggregated.job_id)
    return aggregate(Round.objects.get(job=aggregated.job, number=1), nodes)


def test_two_honest_rounds_are_attested(second: Round) -> None:
    (batch,) = batches.build_batches(round_id=second.pk)
    assert attest(batch).commitments is not None


def test_a_past_that_is_not_the_chains_is_not_attested(second: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attesting, "settled_evidence", lambda *_, **__: "ab" * 32)
    assert refusal_of(second) == "attestation.other_past"


def test_a_past_that_is_not_what_the_attestor_has_judged_is_not_attested(aggregated: Round, second: Round) -> None:
    (batch,) = batches.build_batches(round_id=aggregated.pk)
    ask(batch, *ATTESTORS)
    document = evidence_of(aggregated)
    document["after"]["standings"]["2"]["rounds"] = 98
    claim(aggregated, document)
    assert refusal_of(second) == "attestation.other_past"


def test_a_round_whose_past_is_taken_away_is_not_attested_as_a_first_one(second: Round) -> None:
    document = evidence_of(second)
    Round.objects.filter(number=0).update(number=7)
    assert document["base"] == second.base
    assert attest_quietly(second) == set()


def attest_quietly(round_: Round) -> set[str]:
    """Commitments and refusals of a round's batch once all attestors were asked."""
    (batch,) = batches.build_batches(round_id=round_.pk)
    ask(batch, *ATTESTORS)
    rows = Attestation.objects.filter(batch=batch)
    return {row.commitment or row.refusal for row in rows}


def test_a_round_whose_past_is_not_settled_waits_for_it(second: Round) -> None:
    """Nothing is said against the batch: settlements may pause for days, and a new set has judged nothing yet."""
    Round.objects.filter(number=0).update(settled_block=None)
    Batch.objects.update(drives=attestations.MAX_DRIVES)
    assert attest_quietly(second) == set()
    assert Batch.objects.get(round=second).state == Batch.State.ATTESTING
    Round.objects.filter(number=0).update(settled_block=7)
    assert attest(Batch.objects.select_related("round__job", "epoch").get(round=second)).commitments is not None


@pytest.mark.parametrize("name", ["version", "checkpoint", "outer_state", "aggregate", "delta"])
def test_an_outcome_that_does_not_follow_is_not_attested(aggregated: Round, name: str) -> None:
    document = evidence_of(aggregated)
    document["after"][name] = document["contributions"][0]["artifact"]
    claim(aggregated, document)
    assert refusal_of(aggregated) == "evidence.other_outcome"


def test_a_contribution_left_out_of_the_aggregate_is_not_attested(aggregated: Round) -> None:
    document = evidence_of(aggregated)
    document["contributions"][0]["refused"] = "contribution.harmful"
    Contribution.objects.filter(node_id=document["contributions"][0]["node"]).update(state=Contribution.State.REJECTED)
    claim(aggregated, document)
    assert refusal_of(aggregated) == "evidence.other_outcome"


def test_accepted_work_that_the_batch_leaves_out_is_not_attested(aggregated: Round) -> None:
    """The model moves by it, and its node would go unpaid."""
    Contribution.objects.filter(node_id=2).update(state=Contribution.State.REJECTED)
    assert refusal_of(aggregated) == "attestation.other_inputs"


def test_a_batch_that_ends_too_early_is_not_attested(aggregated: Round) -> None:
    (batch,) = batches.build_batches(round_id=aggregated.pk)
    Batch.objects.filter(pk=batch.pk).update(last=False)
    assert refusal_of(aggregated) == "attestation.other_inputs"


def test_a_first_round_from_another_model_is_not_attested(aggregated: Round, second: Round) -> None:
    """Round 0 begins at what round 1 began at: a model of the coordinator's choice."""
    document, other = evidence_of(aggregated), evidence_of(second)
    document |= {name: other[name] for name in ("base", "checkpoint", "outer_state")}
    claim(aggregated, document)
    Round.objects.filter(pk=aggregated.pk).update(base=document["base"])
    assert refusal_of(aggregated) == "evidence.broken_chain"


@pytest.mark.parametrize("changed", ["version", "checkpoint", "outer_state", "aggregate"])
def test_a_round_that_does_not_begin_where_the_one_before_ended_is_not_attested(
    aggregated: Round, second: Round, changed: str
) -> None:
    before = evidence_of(aggregated)
    before["after"][changed] = before["contributions"][0]["artifact"]
    claim(aggregated, before)
    assert refusal_of(second) == "evidence.broken_chain"


@pytest.mark.parametrize("standing", [{"rounds": 98, "owned": 1.0}, {"rounds": 1, "owned": 0.5}])
def test_standings_that_are_not_those_of_the_round_before_are_not_attested(second: Round, standing: dict[str, Any]) -> None:
    document = evidence_of(second)
    document["standings"]["2"] = standing
    claim(second, document)
    assert refusal_of(second) == "evidence.broken_chain"


def test_standings_that_do_not_follow_from_the_round_are_not_attested(aggregated: Round) -> None:
    """A friend's is lifted: it could train on anything for ever."""
    document = evidence_of(aggregated)
    document["after"]["standings"]["2"] = {"rounds": 98, "owned": 1.0}
    claim(aggregated, document)
    assert refusal_of(aggregated) == "evidence.other_standings"


def test_honest_work_that_the_coordinator_refuses_keeps_the_round_from_being_attested(aggregated: Round) -> None:
    """It leaves it out of the aggregate, too: nothing but the judgement is false."""
    document = evidence_of(aggregated)
    first, other = document["contributions"]
    first |= {"refused": "contribution.harmful", "quality": None, "weight": None}
    work = engine.round_work(document, selectors.job_work(aggregated.job), store.read)
    after = replay_round(work, [other["node"]])
    document["after"] |= outcome(after, bench(work.job).shapes)
    assert after.gathered is not None
    other["weight"] = after.gathered.weights[other["node"]]
    claim(aggregated, document)
    Contribution.objects.filter(node_id=first["node"]).update(state=Contribution.State.REJECTED)
    assert refusal_of(aggregated) == "evidence.other_verdicts"


def test_held_out_data_of_the_coordinators_choice_are_not_attested(aggregated: Round) -> None:
    document = evidence_of(aggregated)
    document["score_seed"] = "00" * 32
    claim(aggregated, document)
    assert refusal_of(aggregated) == "evidence.other_batch"


def test_work_that_the_recomputation_refuses_is_not_attested(aggregated: Round) -> None:
    """The coordinator "accepts" a copy, and aggregates it as it should be: honest nodes would go on from it."""
    original = Contribution.objects.get(node_id=1)
    data = store.read(original.artifact)
    copy, _ = store.write_stream([data[:-1] + bytes([data[-1] ^ 1])], limit=len(data))
    Contribution.objects.filter(node_id=2).update(artifact=copy)
    document = evidence_of(aggregated)
    next(entry for entry in document["contributions"] if entry["node"] == 2)["artifact"] = copy
    work = engine.round_work(document, selectors.job_work(aggregated.job), store.read)
    after = replay_round(work, [1, 2])
    document["score_seed"] = score_seed(work)
    document["after"] |= outcome(after, bench(work.job).shapes)
    assert after.gathered is not None
    for entry in document["contributions"]:
        entry["weight"] = after.gathered.weights[entry["node"]]
    claim(aggregated, document)
    assert refusal_of(aggregated) == "evidence.other_scores", "a copy has no score"
