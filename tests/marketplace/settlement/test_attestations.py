"""Commit, fix, open: who may see what, and what happens when attestors are late, lost, or of another mind."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.test import override_settings
from django.utils import timezone
from eth_account import Account
from eth_typing import HexStr
from pydantic import SecretStr

from marketplace.artifacts import store
from marketplace.chain.models import Intent
from marketplace.chain.services import domain
from marketplace.jobs.models import Job
from marketplace.settlement import tasks
from marketplace.settlement.models import Attestation, Batch, Payment
from marketplace.settlement.selectors import PATIENCE, bundle, fixed, statement
from marketplace.settlement.services import attestations, batches
from marketplace.training.models import Contribution, Round
from marketplace.training.services import planning, rounds
from tests.marketplace.settlement.conftest import aggregate, attestor, evidence_of
from tests.marketplace.world import ATTESTORS, TestNode, ask, attest, begin_epoch, wallet
from tests.settings import test_key as key_of
from trainer.network.policy import Part, Plan
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import commitment, commitments_hash, pack_scores, unpack_scores
from trainer.protocol.spec import EncodingSpec

pytestmark = pytest.mark.django_db
ONE, TWO, THREE = ATTESTORS


@pytest.fixture
def batch(aggregated: Round) -> Batch:
    (built,) = batches.build_batches(round_id=aggregated.pk)
    return Batch.objects.select_related("round__job", "epoch").get(pk=built.pk)


def wait_out(batch: Batch) -> None:
    """The patience with those that are late is over."""
    Batch.objects.filter(pk=batch.pk).update(quorum_at=timezone.now() - PATIENCE - timedelta(seconds=1))
    attestations.press(batch_id=batch.pk)
    batch.refresh_from_db()


def test_no_score_is_in_the_database_before_the_list_is_fixed(batch: Batch) -> None:
    ask(batch, ONE, TWO)
    ask(batch, ONE, TWO)
    assert batch.commitments is None
    assert [(bytes(row.scores), row.salt, row.signature) for row in Attestation.objects.all()] == [(b"", "", "")] * 2
    ask(batch, THREE)
    assert sorted(fixed(batch)) == [0, 1, 2], "all have committed: no need to wait"
    assert not Attestation.objects.exclude(signature="").exists()


def test_a_commitment_opens_to_what_the_contract_checks(batch: Batch) -> None:
    attest(batch)
    message = statement(batch).attested(commitments_hash(fixed(batch)))
    for row in Attestation.objects.all():
        opened = commitment(attestor=row.attestor, salt=bytes.fromhex(row.salt[2:]), scores=bytes(row.scores))
        assert opened == fixed(batch)[row.member] == row.commitment
        assert eip712.recover(domain(), message, row.signature) == row.attestor
        accepted = Contribution.objects.filter(state="accepted").order_by("node_id")
        assert unpack_scores(bytes(row.scores)) == list(accepted.values_list("quality", flat=True))


def test_a_quorum_does_not_wait_for_ever(batch: Batch) -> None:
    ask(batch, ONE, THREE)
    assert batch.commitments is None, "the third has a little time"
    wait_out(batch)
    assert sorted(fixed(batch)) == [0, 2]
    ask(batch, TWO)
    assert sorted(fixed(batch)) == [0, 2], "too late: the list is fixed"
    ask(batch, ONE, THREE)
    assert batch.state == Batch.State.QUEUED


def test_who_committed_and_does_not_open_is_named_by_the_bare_commitment(batch: Batch) -> None:
    ask(batch, *ATTESTORS)
    ask(batch, ONE, TWO)
    assert batch.state == Batch.State.ATTESTING, "the third has a little time"
    wait_out(batch)
    assert batch.state == Batch.State.QUEUED
    third = bundle(batch.round)["batches"][0]["attestations"][2]
    assert third == {"member": 2, "salt": fixed(batch)[2], "scores": "0x", "signature": "0x"}


def test_the_median_counts_when_attestors_differ(batch: Batch) -> None:
    attestor(TWO).commit(statement(batch), pack_scores([1, 5]))
    attestor(THREE).commit(statement(batch), pack_scores([0, 10_000]))
    attest(batch)
    recomputed = Contribution.objects.get(node_id=2).quality
    assert 5 < recomputed <= 10_000
    assert dict(Payment.objects.values_list("node_id", "quality")) == {1: 1, 2: recomputed}


def test_the_coordinators_own_quality_does_not_count(batch: Batch) -> None:
    honest = Contribution.objects.get(node_id=1).quality
    Contribution.objects.filter(node_id=1).update(quality=1)
    attest(batch)
    assert Payment.objects.get(node_id=1).quality == honest


def test_one_round_mixes_densities(job: Job, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node's work is read as its own order asked for, by the coordinator and by the attestors."""
    parts = {1: Part(steps=4, encoding=EncodingSpec()), 2: Part(steps=3, encoding=EncodingSpec(kind="topk", k=64))}
    monkeypatch.setattr(planning, "plan_round", lambda *_, **__: Plan(parts=parts, quorum=2, deadline_s=60.0))
    rounds.open_round(job_id=job.pk)
    mixed = aggregate(Round.objects.get(job=job, number=0), nodes)
    assert set(Contribution.objects.values_list("node_id", "state", "code")) == {(1, "accepted", ""), (2, "accepted", "")}
    dense, small = Contribution.objects.order_by("node_id")
    assert small.size < dense.size / 10
    entries = {entry["node"]: (entry["steps"], entry["encoding"]["kind"]) for entry in evidence_of(mixed)["contributions"]}
    assert entries == {1: (4, "int4"), 2: (3, "topk")}
    (batch,) = batches.build_batches(round_id=mixed.pk)
    attest(batch)
    assert set(Payment.objects.values_list("node_id", "quality")) == {(1, dense.quality), (2, small.quality)}


def test_inputs_of_another_round_are_not_attested(batch: Batch) -> None:
    Round.objects.filter(pk=batch.round_id).update(base="0" * 64)
    ask(batch, *ATTESTORS)
    assert batch.state == Batch.State.ATTESTING
    assert "the evidence differs in: base" in batch.reason
    assert set(Attestation.objects.values_list("commitment", flat=True)) == {""}
    Batch.objects.update(drives=attestations.MAX_DRIVES)
    ask(batch, *ATTESTORS)
    assert batch.state == Batch.State.FAILED
    assert Job.objects.get().state == Job.State.FAILED


def test_a_missing_input_is_waited_for(batch: Batch) -> None:
    path = store.path_of(Contribution.objects.get(node_id=1).artifact)
    data = path.read_bytes()
    path.unlink()
    ask(batch, *ATTESTORS)
    assert "There is no artifact" in batch.reason
    path.write_bytes(data)
    attest(batch)
    assert (batch.state, batch.reason) == (Batch.State.QUEUED, "")


def test_an_input_that_was_tampered_with_is_not_attested(batch: Batch) -> None:
    path = store.path_of(Contribution.objects.get(node_id=1).artifact)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        ask(batch, *ATTESTORS)
        assert "hashes otherwise" in batch.reason
    finally:
        path.write_bytes(data)


def test_an_attestor_that_starts_again_opens_the_same_commitment(batch: Batch) -> None:
    ask(batch, ONE)
    first = Attestation.objects.get().commitment
    salt = attestor(ONE).salt(statement(batch))
    ask(batch, ONE)
    assert Attestation.objects.get().commitment == first
    assert attestor(ONE).salt(statement(batch)) == salt != attestor(TWO).salt(statement(batch))


def test_an_attestor_that_lost_its_scores_does_not_open_something_else(batch: Batch) -> None:
    ask(batch, *ATTESTORS)
    shutil.rmtree(attestor(ONE).folder)
    ask(batch, ONE)
    assert Attestation.objects.get(member=0).signature == ""
    ask(batch, TWO, THREE)
    wait_out(batch)
    assert batch.state == Batch.State.QUEUED


def test_an_attestor_signs_one_content_for_a_batch_and_never_another(batch: Batch) -> None:
    me, said = attestor(ONE), statement(batch)
    first = commitments_hash({0: "0x" + "11" * 32, 1: "0x" + "22" * 32})
    signature = me.sign(said, first)
    assert attestor(ONE).sign(said, first) == signature
    for other in (commitments_hash({0: "0x" + "11" * 32}), "0x" + "00" * 32):
        with pytest.raises(HyperGPUError) as refusal:
            attestor(ONE).sign(said, other)
        assert refusal.value.code == "attestation.signed_other"


def test_what_does_not_open_the_listed_commitment_is_not_taken(batch: Batch) -> None:
    ask(batch, *ATTESTORS)
    me, said = attestor(ONE), statement(batch)
    signature = me.sign(said, commitments_hash(fixed(batch)))
    salt = "0x" + me.salt(said).hex()
    scores = me.kept_scores(said)
    assert scores is not None
    stranger = eip712.sign(domain(), said.attested(commitments_hash(fixed(batch))), key_of("stranger"))
    for wrong, code in (
        ({"scores": pack_scores([1, 1])}, "attestation.mismatch"),
        ({"salt": "0x" + "00" * 32}, "attestation.mismatch"),
        ({"signature": stranger}, "attestation.wrong_signer"),
    ):
        given = {"salt": salt, "scores": scores, "signature": signature} | wrong
        with pytest.raises(HyperGPUError) as refusal:
            attestations.record_opening(batch_id=batch.pk, attestor=me.address, **given)
        assert refusal.value.code == code
    assert not Attestation.objects.exclude(signature="").exists()


def test_an_attestors_key_may_be_an_encrypted_file(batch: Batch, tmp_path: Path) -> None:
    path = tmp_path / "attestor.json"
    path.write_text(json.dumps(Account.encrypt(HexStr(key_of(ONE)), "open sesame", kdf="pbkdf2", iterations=2)))
    path.with_name("attestor.json.password").write_text("open sesame\n")
    key = {"attestor_key": SecretStr(f"keystore:{path}")}
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update=key)):
        tasks.attest(batch_id=batch.pk)
    row = Attestation.objects.get()
    assert (row.attestor, bool(row.commitment)) == (wallet(ONE).address, True)
    assert attestor(ONE).kept_scores(statement(batch)) is not None, "the same key, as text, finds the same folder"


def test_strangers_and_workers_without_a_key_give_nothing(batch: Batch) -> None:
    ask(batch, "attestor 9")
    tasks.attest(batch_id=batch.pk)
    assert not Attestation.objects.exists()


def test_an_unsigned_batch_goes_over_to_a_new_epoch_and_a_signed_one_stays(batch: Batch) -> None:
    ask(batch, ONE)
    begin_epoch(2, ("attestor 3", TWO), quorum=2)
    assert attestations.press(batch_id=batch.pk) == [wallet("attestor 3").address, wallet(TWO).address]
    batch = Batch.objects.select_related("round__job", "epoch").get(pk=batch.pk)
    assert (batch.epoch_id, Attestation.objects.count()) == (2, 0)
    attest(batch, "attestor 3", TWO)
    assert batch.state == Batch.State.QUEUED
    begin_epoch(3, (ONE,), quorum=1)
    assert attestations.press(batch_id=batch.pk) == []
    assert Batch.objects.get().epoch_id == 2


def test_each_step_may_be_taken_twice(batch: Batch) -> None:
    attest(batch)
    attest(batch)
    attestations.press(batch_id=batch.pk)
    assert Intent.objects.filter(kind="settleRound").count() == 1
    assert Attestation.objects.count() == 3
