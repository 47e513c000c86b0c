"""From an attested batch to a payment that is final, and the refund at the end."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.artifacts import store
from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.jobs.models import Job
from marketplace.operators.models import Node
from marketplace.settlement import tasks
from marketplace.settlement.models import Batch, Closure, Payment
from marketplace.settlement.services import batches, closures, finality
from marketplace.training.models import Contribution, Round
from marketplace.training.services import rounds
from tests.marketplace.settlement.conftest import aggregate
from tests.marketplace.world import ATTESTORS, TestNode, ask, attest, begin_epoch, wallet, worker_of
from trainer.diloco import findings
from trainer.protocol import eip712
from trainer.protocol.packing import unpack_receipts
from trainer.protocol.types import Receipt

pytestmark = pytest.mark.django_db
TX = "0x" + "ab" * 32


def log(name: str, **args: object) -> LogEntry:
    return LogEntry(name=name, args=args, block=12, block_hash=TX, tx_hash=TX, log_index=0, timestamp=1_800_000_000)


def settle(batch: Batch, *, nodes: list[int] | None = None) -> None:
    """The batch's final logs, as the indexer hands them on; of these nodes, or all."""
    place = {"job_id": 1, "round": batch.round.number}
    for payment in batch.payments.all():
        if nodes is None or payment.node_id in nodes:
            finality.record_payment(
                log("ContributionSettled", **place, node_id=payment.node_id, quality=payment.quality, amount=payment.amount)
            )
    finality.record_settlement(log("RoundSettled", **place, batch=batch.number, last=batch.last))


def report(batch: Batch, state: str, **changes: object) -> None:
    """The sender's word on the batch's transaction."""
    intent = Intent(key=batch.intent_key, state=state, **{"tx_hash": TX, **changes})
    finality.record_intent(intent)
    batch.refresh_from_db()


def only(batches_: list[Batch]) -> Batch:
    (batch,) = batches_
    return batch


@pytest.fixture
def batch(aggregated: Round) -> Batch:
    return only(batches.build_batches(round_id=aggregated.pk))


def test_every_accepted_contribution_gets_one_payment(aggregated: Round, batch: Batch) -> None:
    assert only(batches.build_batches(round_id=aggregated.pk)).pk == batch.pk
    assert Payment.objects.count() == Contribution.objects.filter(state="accepted").count() == 2
    for line, node_id in zip(unpack_receipts(bytes(batch.packed)), (1, 2), strict=True):
        receipt = Receipt(
            job_id=1, round=0, node_id=line.node_id, units=line.units, base="0x" + aggregated.base, artifact=line.artifact
        )
        assert eip712.recover(batches.domain(), receipt, line.signature) == wallet(f"hot {node_id}").address


def test_a_payment_has_no_quality_before_the_scores_are_shown(batch: Batch) -> None:
    assert set(Payment.objects.values_list("quality", "amount")) == {(None, None)}
    attest(batch)
    for payment in Payment.objects.all():
        assert payment.quality == payment.contribution.quality, "same inputs, same code, same score"
        assert payment.amount == payment.units * payment.rate * payment.quality // 10_000
        assert payment.state == "queued"


def test_a_round_of_many_receipts_is_several_batches(aggregated: Round, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    monkeypatch.setattr(batches, "BATCH_RECEIPTS", 1)
    first, second = batches.build_batches(round_id=aggregated.pk)
    assert [(one.number, one.last) for one in (first, second)] == [(0, False), (1, True)]
    attest(second)
    assert not Intent.objects.filter(kind="settleRound").exists(), "batch 1 must not overtake batch 0"
    attest(first)
    keys = list(Intent.objects.filter(kind="settleRound").order_by("id").values_list("key", flat=True))
    assert keys == [first.intent_key, second.intent_key]
    settle(first)
    aggregated.refresh_from_db()
    assert aggregated.state == Round.State.AGGREGATED, "the round ends with its last batch"
    settle(second)
    aggregated.refresh_from_db()
    assert aggregated.state == Round.State.SETTLED
    assert set(Payment.objects.values_list("state", flat=True)) == {"final"}


def test_a_round_without_accepted_work_is_one_empty_batch(
    open_round: Round, nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "passes_gate", lambda *_: False)
    aggregated = aggregate(open_round, nodes)
    assert set(Contribution.objects.values_list("state", flat=True)) == {"rejected"}
    empty = only(batches.build_batches(round_id=aggregated.pk))
    assert (bytes(empty.packed), empty.last) == (b"", True)
    attest(empty)
    assert Intent.objects.filter(key=empty.intent_key).count() == 1
    settle(empty)
    aggregated.refresh_from_db()
    assert aggregated.state == Round.State.SETTLED


def test_the_chains_word_makes_a_payment_final_once(aggregated: Round, batch: Batch, job: Job) -> None:
    attest(batch)
    report(batch, "sent")
    assert set(Payment.objects.values_list("state", flat=True)) == {"sent"}
    settle(batch)
    report(batch, "included", block=12)
    assert set(Payment.objects.values_list("state", flat=True)) == {"final"}
    aggregated.refresh_from_db()
    assert aggregated.state == Round.State.SETTLED


def test_the_chains_quality_counts_and_what_it_did_not_pay_is_lost(batch: Batch) -> None:
    attest(batch)
    Payment.objects.filter(node_id=1).update(quality=1, amount=1)
    settle(batch, nodes=[1])
    assert {p.node_id: (p.state, p.amount) for p in Payment.objects.all()}[1] == ("final", 1)
    assert Payment.objects.get(node_id=2).state == "failed"


def test_the_public_bundle_is_what_is_sent_to_the_chain(aggregated: Round, batch: Batch) -> None:
    url = f"/api/v1/jobs/{aggregated.job_id}/rounds/0/settlement"
    early = Client().get(url)
    assert (early.status_code, early.json()["code"]) == (404, "settlement.unknown")
    attest(batch)
    answer = Client().get(url)
    assert "immutable" in answer["Cache-Control"]
    bundle = answer.json()
    assert (bundle["job_id"], bundle["round"], len(bundle["batches"])) == (1, 0, 1)
    call = bundle["batches"][0]
    assert call["header"] == {
        "jobId": 1, "round": 0, "batch": 0, "last": True, "epoch": 1, "base": "0x" + aggregated.base,
        "evidence": "0x" + aggregated.evidence,
    }  # fmt: skip
    assert call["receipts"] == "0x" + bytes(batch.packed).hex()
    assert [one["member"] for one in call["attestations"]] == [0, 1, 2]
    aggregated.refresh_from_db()
    assert json.loads(store.read(aggregated.settlement)) == bundle


def test_a_later_round_waits_for_the_one_before(aggregated: Round, batch: Batch, nodes: list[TestNode], job: Job) -> None:
    rounds.open_round(job_id=job.pk)
    later = aggregate(Round.objects.get(job=job, number=1), nodes)
    second = only(batches.build_batches(round_id=later.pk))
    ask(batch, *ATTESTORS)
    attest(second)
    assert not Intent.objects.filter(kind="settleRound").exists(), "round 1 must not overtake round 0"
    attest(batch)
    keys = list(Intent.objects.filter(kind="settleRound").order_by("id").values_list("key", flat=True))
    assert keys == [batch.intent_key, second.intent_key]


def test_a_settlement_that_somebody_else_sent_waits_for_the_log(batch: Batch, job: Job) -> None:
    attest(batch)
    report(batch, "failed", reason="UnexpectedBatch(job_id=1, round=0, batch=0, expected_round=1, expected_batch=0)")
    assert (batch.state, batch.retry_at) == ("queued", None)
    settle(batch)
    assert set(Payment.objects.values_list("state", flat=True)) == {"final"}
    assert Job.objects.get(pk=job.pk).state == Job.State.RUNNING


@pytest.mark.parametrize(
    "reason",
    [
        "UnexpectedBatch(job_id=1, round=1, batch=0, expected_round=0, expected_batch=0)",
        "InsufficientEscrow(job_id=1, required=9, available=1)",
    ],
)
def test_what_will_pass_is_sent_again_byte_for_byte(batch: Batch, job: Job, reason: str) -> None:
    attest(batch)
    first = Intent.objects.get(key=batch.intent_key)
    report(batch, "failed", reason=reason)
    tasks.send_batch_again(batch_id=batch.pk)
    assert Intent.objects.filter(kind="settleRound").count() == 1, "not before its time"
    Batch.objects.update(retry_at=timezone.now() - timedelta(seconds=1))
    tasks.send_batch_again(batch_id=batch.pk)
    tasks.send_batch_again(batch_id=batch.pk)
    again = Intent.objects.exclude(pk=first.pk).get(kind="settleRound")
    assert again.data == first.data
    assert Job.objects.get(pk=job.pk).state == Job.State.RUNNING


def test_a_batch_that_cannot_settle_ends_the_job_and_frees_the_rest(batch: Batch, job: Job) -> None:
    attest(batch)
    report(batch, "failed", reason="InvalidReceiptSignature(node_id=2, recovered=0x00)")
    payment = Payment.objects.first()
    assert (payment.state, payment.reason) == ("failed", "InvalidReceiptSignature(node_id=2, recovered=0x00)")
    assert Job.objects.get(pk=job.pk).state == Job.State.FAILED
    assert Node.objects.get(pk=1).earned == 0
    close(job)
    closures.record_failed_closure(Intent.objects.get(kind="closeJob"))
    close(job)
    assert Intent.objects.filter(kind="closeJob").count() == 2, "a refused closing is tried again"


def close(job: Job, *names: str) -> None:
    closures.begin_closure(job_id=job.pk)
    for name in names or ATTESTORS:
        with worker_of(name):
            tasks.attest_closure(job_id=job.pk)


def test_a_stopped_job_is_closed_by_a_quorum_when_its_last_round_is_final(batch: Batch, job: Job) -> None:
    attest(batch)
    Job.objects.filter(pk=job.pk).update(state=Job.State.STOPPED, spent=sum(p.amount for p in Payment.objects.all()))
    close(job)
    assert not Closure.objects.exists(), "a payment is still under way"
    settle(batch)
    closures.begin_closure(job_id=job.pk)
    assert closures.unsigned(job_id=job.pk) == [wallet(name).address for name in ATTESTORS]
    close(job, "attestor 2")
    assert not Intent.objects.filter(kind="closeJob").exists(), "one is no quorum"
    close(job, "attestor 0")
    close(job)
    assert Intent.objects.filter(kind="closeJob").count() == 1
    closures.begin_closure(job_id=job.pk)
    assert closures.unsigned(job_id=job.pk) == []


def test_attestors_do_not_sign_the_end_of_a_job_whose_money_moves(batch: Batch, job: Job) -> None:
    attest(batch)
    settle(batch)
    Job.objects.filter(pk=job.pk).update(state=Job.State.STOPPED)
    closures.begin_closure(job_id=job.pk)
    Job.objects.filter(pk=job.pk).update(spent=7)
    with worker_of("attestor 0"):
        tasks.attest_closure(job_id=job.pk)
    assert not Closure.objects.get().signatures.exists()
    close(job)
    assert Closure.objects.get(state="queued").spent == 7


def test_a_new_epoch_signs_an_unsigned_closure(batch: Batch, job: Job) -> None:
    attest(batch)
    settle(batch)
    Job.objects.filter(pk=job.pk).update(state=Job.State.STOPPED)
    closures.begin_closure(job_id=job.pk)
    begin_epoch(2, ("attestor 3",), quorum=1)
    close(job, "attestor 3")
    assert Closure.objects.get(state="queued").epoch_id == 2
