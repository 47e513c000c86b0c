"""Mode `per-receipt`: every contribution is put on chain as it arrives, and its round's settlement waits for that, a little."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.utils import timezone

from marketplace.chain import abi
from marketplace.chain.models import Intent
from marketplace.chain.projections import LogEntry
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.settlement.models import Batch
from marketplace.settlement.selectors import PATIENCE
from marketplace.settlement.services import attestations, batches, closures, finality
from marketplace.training import selectors, tasks
from marketplace.training.models import Contribution, Round
from marketplace.training.services import recording, rounds
from tests.marketplace.settlement.conftest import aggregate
from tests.marketplace.training.work import contribute
from tests.marketplace.world import TestNode, attest

pytestmark = pytest.mark.django_db
TX = "0x" + "cd" * 32


@pytest.fixture(autouse=True)
def mode(db: None) -> Iterator[None]:
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update={"settlement_mode": "per-receipt"})):
        yield


@pytest.fixture
def seated(open_round: Round, job: Job) -> Round:
    """The chain has the seats."""
    for seat in Seat.objects.filter(job=job):
        jobs.record_seat(chain_id=1, node_id=seat.node_id, rate=int(seat.rate), capacity=seat.capacity)
    return open_round


def submissions() -> list[str]:
    return list(Intent.objects.filter(kind="submitContribution").order_by("key").values_list("key", flat=True))


def recorded(contribution: Contribution) -> None:
    """ContributionRecorded is final."""
    said = {"job_id": 1, "round": 0, "node_id": contribution.node_id, "units": contribution.units}
    log = LogEntry(
        name="ContributionRecorded", args={**said, "artifact": "0x" + contribution.artifact}, block=3, block_hash=TX, tx_hash=TX,
        log_index=0, timestamp=0,
    )  # fmt: skip
    jobs.record_recording(chain_id=1, round=0, node_id=contribution.node_id, units=contribution.units)
    recording.record_recording(log)
    finality.show_recording(log)


def test_each_contribution_is_promised_once_as_it_arrives(seated: Round, nodes: list[TestNode]) -> None:
    contribute(nodes[0])
    assert submissions() == [recording.key_of(seated, 1)]
    contribution = Contribution.objects.get()
    expected = abi.encode_call(
        "market", "submitContribution", [1, 0, "0x" + seated.base, "0x" + bytes(packed(contribution)).hex()]
    )
    intent = Intent.objects.get(kind="submitContribution")
    assert (intent.data, intent.group) == (expected, ""), "they need no order, so they run in parallel"
    tasks.record_contribution(contribution.pk)
    assert len(submissions()) == 1


def packed(contribution: Contribution) -> bytes:
    return batches.pack_receipts([batches.packed_receipt(contribution)])


def test_a_contribution_waits_for_its_seat(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    contribute(nodes[0])
    assert submissions() == []
    waiting = selectors.unrecorded_contributions()
    assert waiting == [{"contribution_id": Contribution.objects.get().pk}]
    jobs.record_seat(chain_id=1, node_id=1, rate=5, capacity=10**6)
    tasks.record_contribution(**waiting[0])
    assert submissions() == [recording.key_of(open_round, 1)]
    assert selectors.unrecorded_contributions() == []


def test_a_seat_holds_one_record_at_a_time(seated: Round, nodes: list[TestNode], job: Job) -> None:
    aggregate(seated, nodes)
    first = submissions()
    rounds.open_round(job_id=job.pk)
    contribute(nodes[0])
    assert submissions() == first, "the record of round 0 stands"
    Intent.objects.filter(kind="submitContribution").update(state=Intent.State.FINAL)
    tasks.record_waiting_contributions(job.pk)
    assert submissions() == first
    Round.objects.filter(pk=seated.pk).update(state=Round.State.SETTLED)
    tasks.record_waiting_contributions(job.pk)
    assert submissions() == [*first, recording.key_of(Round.objects.get(number=1), 1)]


def test_the_settlement_waits_for_the_recordings_a_little(seated: Round, nodes: list[TestNode]) -> None:
    aggregate(seated, nodes)
    (batch,) = batches.build_batches(round_id=seated.pk)
    assert attest(batch).state == Batch.State.ATTESTING
    Intent.objects.filter(key=submissions()[0]).update(state=Intent.State.INCLUDED)
    Intent.objects.filter(key=submissions()[1]).update(state=Intent.State.FAILED)
    attestations.press(batch_id=batch.pk)
    batch.refresh_from_db()
    assert batch.state == Batch.State.QUEUED


def test_the_settlement_does_not_wait_for_ever(seated: Round, nodes: list[TestNode]) -> None:
    aggregate(seated, nodes)
    (batch,) = batches.build_batches(round_id=seated.pk)
    attest(batch)
    past = timezone.now() - recording.WAIT - PATIENCE
    Batch.objects.filter(pk=batch.pk).update(created_at=past, quorum_at=past)
    attestations.press(batch_id=batch.pk)
    batch.refresh_from_db()
    assert batch.state == Batch.State.QUEUED


def test_a_record_is_shown_with_contribution_and_payment_and_ends_with_it(seated: Round, nodes: list[TestNode], job: Job) -> None:
    aggregate(seated, nodes)
    batches.build_batches(round_id=seated.pk)
    first, second = Contribution.objects.order_by("node_id")
    recorded(first)
    snapshot = Client().get(f"/api/v1/jobs/{job.pk}").json()
    assert {row["node_id"]: row["recorded_tx"] for row in snapshot["contributions"]} == {1: TX, 2: None}
    assert {row["node_id"]: row["recorded_tx"] for row in snapshot["payments"]} == {1: TX, 2: None}
    assert list(Seat.objects.order_by("node_id").values_list("recorded_round", flat=True)) == [0, None]
    jobs.record_release(chain_id=1, round=1, node_id=1)
    assert Seat.objects.get(node_id=1).recorded_round == 0, "another round's payment ends no record"
    jobs.record_release(chain_id=1, round=0, node_id=1)
    assert Seat.objects.get(node_id=1).recorded_round is None
    assert second.recorded_tx == ""


def test_a_receipt_with_another_artifact_is_not_ours(seated: Round, nodes: list[TestNode]) -> None:
    contribute(nodes[0])
    contribution = Contribution.objects.get()
    contribution.artifact = "0" * 64
    recorded(contribution)
    assert Contribution.objects.get().recorded_tx == ""


def test_a_record_that_was_left_out_keeps_the_job_open_until_it_lapses(seated: Round, nodes: list[TestNode], job: Job) -> None:
    contribute(nodes[0])
    recorded(Contribution.objects.get())
    Round.objects.filter(pk=seated.pk).update(state=Round.State.SETTLED, settled_at=timezone.now())
    Job.objects.filter(pk=job.pk).update(state=Job.State.STOPPED)
    assert closures.closing(job_id=job.pk) is None
    closures.lapse_records(job_id=job.pk)
    assert not Intent.objects.filter(kind="lapseRecord").exists(), "it may still be claimed"
    long_ago = timezone.now() - closures.challenge_window() - timedelta(minutes=2)
    Round.objects.filter(pk=seated.pk).update(settled_at=long_ago)
    closures.lapse_records(job_id=job.pk)
    closures.lapse_records(job_id=job.pk)
    assert Intent.objects.filter(kind="lapseRecord").count() == 1
    jobs.record_release(chain_id=1, round=0, node_id=1)
    assert closures.closing(job_id=job.pk) == (1, 0)
