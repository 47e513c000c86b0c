"""From an aggregated round to a payment that is final, and the refund at the end."""

from __future__ import annotations

import pytest

from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.jobs.models import Job
from marketplace.operators.models import Node
from marketplace.settlement import services, tasks
from marketplace.settlement.models import Attestation, Batch, Payment
from marketplace.training import tasks as training
from marketplace.training.models import Contribution, Round
from marketplace.training.services import rounds
from tests.marketplace.training.conftest import job, nodes, open_round  # noqa: F401
from tests.marketplace.training.work import contribute
from tests.marketplace.world import TestNode, wallet
from trainer.protocol import eip712
from trainer.protocol.packing import unpack_receipts
from trainer.protocol.types import Receipt

pytestmark = pytest.mark.django_db
TX = "0x" + "ab" * 32


def settled_log() -> LogEntry:
    """RoundSettled of the first round, as the indexer hands it on."""
    args = {"job_id": 1, "round": 0, "batch": 0, "last": True, "receipts": 2, "total": 1}
    return LogEntry(name="RoundSettled", args=args, block=12, block_hash=TX, tx_hash=TX, log_index=0, timestamp=1_800_000_000)


def report(batch: Batch, state: str, **changes: object) -> None:
    """The sender's word on the batch's transaction."""
    intent = Intent(key=batch.intent_key, state=state, **{"tx_hash": TX, **changes})
    services.record_intent(intent)


@pytest.fixture
def aggregated(open_round: Round, nodes: list[TestNode]) -> Round:  # noqa: F811
    for node in nodes:
        contribute(node)
    for pk in Contribution.objects.values_list("pk", flat=True):
        training.check_contribution(pk)
    rounds.close_round_if_complete(round_id=open_round.pk)
    training.aggregate_round(open_round.pk)
    open_round.refresh_from_db()
    return open_round


def test_every_accepted_contribution_gets_one_payment(aggregated: Round) -> None:
    batch = services.build_batch(round_id=aggregated.pk)
    assert services.build_batch(round_id=aggregated.pk).pk == batch.pk
    assert Payment.objects.count() == Contribution.objects.filter(state="accepted").count() == 2
    for payment in Payment.objects.all():
        assert payment.amount == payment.units * payment.rate * payment.quality // 10_000
    for line, node_id in zip(unpack_receipts(bytes(batch.packed)), (1, 2), strict=True):
        receipt = Receipt(
            job_id=1, round=0, node_id=line.node_id, units=line.units, base="0x" + aggregated.base, artifact=line.artifact
        )
        assert eip712.recover(services.domain(), receipt, line.signature) == wallet(f"hot {node_id}").address


def test_the_attestor_recomputes_signs_and_queues_the_settlement(aggregated: Round) -> None:
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    tasks.attest(batch.pk)
    attestation = Attestation.objects.get()
    signer = eip712.recover(services.domain(), services.attestation_message(batch), attestation.signature)
    assert signer == wallet("attestor").address
    assert Intent.objects.filter(key=batch.intent_key).count() == 1
    assert set(Payment.objects.values_list("state", flat=True)) == {"queued"}


def test_an_attestor_does_not_sign_for_a_wrong_quality(aggregated: Round) -> None:
    Contribution.objects.filter(node_id=1).update(quality=1_000)
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    batch.refresh_from_db()
    assert batch.state == Batch.State.FAILED
    assert "quality 1000 in the batch" in batch.reason
    assert not Intent.objects.filter(key=batch.intent_key).exists()


def test_the_chains_word_makes_a_payment_final_once(aggregated: Round, job: Job) -> None:  # noqa: F811
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    report(batch, "sent")
    assert set(Payment.objects.values_list("state", flat=True)) == {"sent"}
    services.record_settlement(settled_log())
    report(batch, "included", block=12)
    assert set(Payment.objects.values_list("state", flat=True)) == {"final"}
    aggregated.refresh_from_db()
    assert aggregated.state == Round.State.SETTLED


def test_a_stopped_job_is_closed_when_its_last_round_is_final(aggregated: Round, job: Job) -> None:  # noqa: F811
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    Job.objects.filter(pk=job.pk).update(state=Job.State.STOPPED, spent=sum(p.amount for p in Payment.objects.all()))
    services.close_if_settled(job_id=job.pk)
    assert not Intent.objects.filter(kind="closeJob").exists(), "a payment is still under way"
    services.record_settlement(settled_log())
    services.close_if_settled(job_id=job.pk)
    services.close_if_settled(job_id=job.pk)
    assert Intent.objects.filter(key__startswith="close:").count() == 1


def test_a_later_round_waits_for_the_one_before(aggregated: Round, nodes: list[TestNode], job: Job) -> None:  # noqa: F811
    first = services.build_batch(round_id=aggregated.pk)
    rounds.open_round(job_id=job.pk)
    second_round = Round.objects.get(job=job, number=1)
    for node in nodes:
        contribute(node)
    for pk in Contribution.objects.values_list("pk", flat=True):
        training.check_contribution(pk)
    rounds.close_round_if_complete(round_id=second_round.pk)
    training.aggregate_round(second_round.pk)
    second = services.build_batch(round_id=second_round.pk)
    tasks.attest(second.pk)
    assert not Intent.objects.filter(kind="settleRound").exists(), "round 1 must not overtake round 0"
    tasks.attest(first.pk)
    keys = list(Intent.objects.filter(kind="settleRound").order_by("id").values_list("key", flat=True))
    assert keys == [first.intent_key, second.intent_key]


def test_a_node_that_changed_its_key_is_left_out_and_the_others_are_paid(aggregated: Round) -> None:
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    report(batch, "failed", reason="InvalidReceiptSignature(node_id=2, signer=0x00)")
    batch.refresh_from_db()
    assert (batch.state, [r.node_id for r in unpack_receipts(bytes(batch.packed))]) == (Batch.State.ATTESTING, [1])
    tasks.attest(batch.pk)
    assert Intent.objects.filter(key=batch.intent_key).count() == 1
    services.record_settlement(settled_log())
    assert {p.node_id: p.state for p in Payment.objects.all()} == {1: "final", 2: "failed"}


def test_a_settlement_that_somebody_else_sent_first_is_not_a_failure(aggregated: Round, job: Job) -> None:  # noqa: F811
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    report(batch, "failed", reason="UnexpectedBatch(job_id=1)")
    services.record_settlement(settled_log())
    assert set(Payment.objects.values_list("state", flat=True)) == {"final"}
    assert Job.objects.get(pk=job.pk).state == Job.State.RUNNING


def test_a_batch_that_cannot_settle_ends_the_job_and_frees_the_rest(aggregated: Round, job: Job) -> None:  # noqa: F811
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    report(batch, "failed", reason="InsufficientEscrow(job_id=1)")
    assert Job.objects.get(pk=job.pk).state == Job.State.FAILED
    services.close_if_settled(job_id=job.pk)
    closing = Intent.objects.get(kind="closeJob")
    services.record_failed_closure(closing)
    services.close_if_settled(job_id=job.pk)
    assert Intent.objects.filter(kind="closeJob").count() == 2, "a refused closing is tried again"


def test_a_reverted_settlement_says_why(aggregated: Round) -> None:
    batch = services.build_batch(round_id=aggregated.pk)
    tasks.attest(batch.pk)
    report(batch, "failed", reason="EscrowExceeded")
    payment = Payment.objects.first()
    assert (payment.state, payment.reason) == ("failed", "EscrowExceeded")
    assert Node.objects.get(pk=1).earned == 0
