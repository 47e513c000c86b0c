"""A round from its opening to its aggregate, and what happens when parts of it fail."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.artifacts import store
from marketplace.chain.abi import decode_arguments
from marketplace.chain.models import Intent
from marketplace.chain.services import coordinator_address, domain
from marketplace.chain.values import snake
from marketplace.events.models import Event
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Bid, Node
from marketplace.training import selectors, tasks
from marketplace.training.models import Assignment, Checkpoint, Contribution, Round
from marketplace.training.services import leases, rounds, seats, verdicts
from tests.marketplace.training.work import commit, contribute, hand_in, lease, overdue, train, upload
from tests.marketplace.world import TestNode, fund, register
from trainer.diloco.checkpoint import load_checkpoint
from trainer.diloco.outer import apply_delta
from trainer.diloco.round import bench
from trainer.diloco.version import model_root
from trainer.protocol import eip712
from trainer.protocol.types import Bid as SignedBid

pytestmark = pytest.mark.django_db


def check_all() -> None:
    for pk in Contribution.objects.values_list("pk", flat=True):
        tasks.check_contribution(pk)


def test_a_round_ends_in_a_better_checkpoint(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    for node in nodes:
        contribute(node)
    check_all()
    assert rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    open_round.refresh_from_db()
    job.refresh_from_db()
    assert open_round.state == Round.State.AGGREGATED
    assert job.round == 1
    checkpoint = Checkpoint.objects.get(job=job, number=1)
    assert (checkpoint.params, checkpoint.version) == (job.checkpoint, job.version)
    assert checkpoint.version != open_round.base
    before = Checkpoint.objects.get(job=job, number=0)
    params = load_checkpoint(store.read(before.params), shapes=bench(selectors.job_work(job)).shapes)
    stepped = apply_delta(params, store.read(checkpoint.delta), job.parsed_spec)
    assert model_root(stepped) == checkpoint.version, "the step that nodes are sent leads there"
    assert store.read(open_round.evidence)
    for contribution in Contribution.objects.all():
        assert contribution.state == Contribution.State.ACCEPTED
        assert 5_000 <= contribution.quality <= 10_000
    assert sum(Contribution.objects.values_list("weight", flat=True)) == pytest.approx(1.0)


def test_a_round_is_evaluated_after_it_has_ended(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    for node in nodes:
        contribute(node)
    check_all()
    assert rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    open_round.refresh_from_db()
    job.refresh_from_db()
    assert open_round.metric is None  # the next round does not wait for it
    assert job.metric == job.start_metric
    for _ in range(2):
        tasks.evaluate_round(open_round.pk)
    open_round.refresh_from_db()
    job.refresh_from_db()
    assert job.metric == open_round.metric == Checkpoint.objects.get(job=job, number=1).metric
    assert job.metric["loss"] < job.start_metric["loss"]
    assert Event.objects.filter(type="round.evaluated").count() == 1


def test_the_newest_metric_is_the_jobs(open_round: Round, job: Job) -> None:
    later = Round.objects.create(job=job, number=open_round.number + 1, base="", deadline=open_round.deadline)
    verdicts.record_metric(round_id=later.pk, metric={"loss": 1.0, "accuracy": 0.5})
    verdicts.record_metric(round_id=open_round.pk, metric={"loss": 2.0, "accuracy": 0.4})
    job.refresh_from_db()
    open_round.refresh_from_db()
    assert job.metric["loss"] == 1.0
    assert open_round.metric["loss"] == 2.0


def test_each_task_may_run_twice(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    for node in nodes:
        contribute(node)
    check_all()
    check_all()
    rounds.close_round_if_complete(round_id=open_round.pk)
    assert not rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    first = Job.objects.get(pk=job.pk).checkpoint
    tasks.aggregate_round(open_round.pk)
    assert Job.objects.get(pk=job.pk).checkpoint == first
    assert rounds.open_round(job_id=job.pk) is not None
    assert rounds.open_round(job_id=job.pk) is None
    assert Checkpoint.objects.count() == 2


def test_a_copy_is_rejected_and_not_paid(open_round: Round, nodes: list[TestNode]) -> None:
    contribute(nodes[0])
    original = store.read(Contribution.objects.get().artifact)
    # One byte of a value differs, so the hash does; the update is the same.
    contribute(nodes[1], original[:-1] + bytes([original[-1] ^ 1]))
    check_all()
    rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    copy = Contribution.objects.get(node_id=2)
    assert (copy.state, copy.code, copy.quality) == (Contribution.State.REJECTED, "contribution.copy", None)
    assert Contribution.objects.get(node_id=1).state == Contribution.State.ACCEPTED


def test_each_round_is_a_match_that_counts_once(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    contribute(nodes[0])
    original = store.read(Contribution.objects.get().artifact)
    contribute(nodes[1], original[:-1] + bytes([original[-1] ^ 1]))
    check_all()
    rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    first, copier = Node.objects.order_by("pk")
    assert first.rating_mu > 25 > copier.rating_mu, "who copies comes last"
    assert first.rating_sigma < 25 / 3
    tasks.aggregate_round(open_round.pk)
    assert Node.objects.get(pk=1).rating_mu == first.rating_mu


def test_a_round_waits_for_nodes_that_can_still_deliver(open_round: Round, nodes: list[TestNode]) -> None:
    contribute(nodes[0])
    check_all()
    assert not rounds.close_round_if_complete(round_id=open_round.pk)
    Node.objects.filter(pk=2).update(last_seen=timezone.now() - timedelta(hours=1))
    assert rounds.close_round_if_complete(round_id=open_round.pk), "quorum stands and the other node is gone"
    assert Assignment.objects.get(node_id=2).state == Assignment.State.EXPIRED


def test_a_missed_quorum_extends_and_then_fails_the_job(open_round: Round, job: Job) -> None:
    for _ in range(rounds.MAX_EXTENSIONS):
        overdue()
        rounds.close_round_if_complete(round_id=open_round.pk)
        open_round.refresh_from_db()
        assert open_round.deadline > timezone.now()
    overdue()
    rounds.close_round_if_complete(round_id=open_round.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    rounds.close_round_if_complete(round_id=open_round.pk)
    open_round.refresh_from_db()
    assert open_round.state == Round.State.ABANDONED


def test_a_silent_nodes_lease_is_taken_back(open_round: Round, nodes: list[TestNode]) -> None:
    held = lease(nodes[0])
    Assignment.objects.filter(node_id=1).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert leases.expire_leases() == 1
    assignment = Assignment.objects.get(node_id=1)
    assert assignment.state == Assignment.State.OPEN
    assert assignment.fence > held["fence"]
    assert lease(nodes[0])["fence"] > assignment.fence


def test_heartbeats_renew_the_lease_and_keep_progress(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    held = lease(nodes[0])
    Assignment.objects.filter(node_id=1).update(lease_until=timezone.now() + timedelta(seconds=1))
    beat = {"fence": held["fence"], "step": 3, "steps": 4, "losses": [[1, 2.3], [2, 2.2], [3, 2.1]], "link": {"rtt": [12.5]}}
    answer = nodes[0].call("POST", f"/agent/v1/assignments/{held['assignment_id']}/heartbeat", beat).json()
    assert not answer["cancel"]
    assignment = Assignment.objects.get(node_id=1)
    assert assignment.lease_until > timezone.now() + timedelta(seconds=5)
    assert (assignment.step, assignment.losses) == (3, [[1, 2.3], [2, 2.2], [3, 2.1]])
    assert Job.objects.get(pk=job.pk).first_step_at is not None


def test_a_stopped_job_finishes_and_pays_the_round_it_is_in(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    jobs.end(job_id=job.pk, state=Job.State.STOPPED, reason="Stopped by its requester.")
    for node in nodes:
        contribute(node)
    check_all()
    assert rounds.close_round_if_complete(round_id=open_round.pk)
    tasks.aggregate_round(open_round.pk)
    assert set(Contribution.objects.values_list("state", flat=True)) == {Contribution.State.ACCEPTED}
    assert rounds.open_round(job_id=job.pk) is None


def test_a_failed_job_cancels_its_work(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    held = lease(nodes[0])
    Job.objects.filter(pk=job.pk).update(state=Job.State.FAILED)
    answer = nodes[0].call("POST", f"/agent/v1/assignments/{held['assignment_id']}/heartbeat", {"fence": held["fence"]}).json()
    assert answer["cancel"]


def test_nobody_without_a_fitting_bid_gets_a_seat(db: None) -> None:
    register(1).bid(rate=50)
    register(2).bid(capacity=1)
    register(3)
    register(4, online=False).bid()
    job = fund(max_rate=10)
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING)
    assert rounds.open_round(job_id=job.pk) is None
    assert not Seat.objects.exists()
    assert "Waiting for nodes" in Job.objects.get(pk=job.pk).reason


def test_the_cheapest_bids_are_taken(db: None) -> None:
    for node_id, rate in ((1, 9), (2, 3), (3, 6)):
        register(node_id).bid(rate=rate)
    job = fund()
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING)
    rounds.open_round(job_id=job.pk)
    assert set(Seat.objects.values_list("node_id", flat=True)) == {2, 3}


def test_a_round_that_could_not_be_paid_does_not_open_and_the_job_waits_for_money(job: Job) -> None:
    Round.objects.filter(job=job).delete()
    cost = jobs.round_cost(job.parsed_spec, rate=int(job.max_rate))
    Job.objects.filter(pk=job.pk).update(spent=job.escrow - cost + 1)
    assert rounds.open_round(job_id=job.pk) is None
    job.refresh_from_db()
    assert (job.state, job.shortfall, job.runway) == (Job.State.PAUSED, 1, None)
    assert "fund 1 more" in job.reason
    tasks.tick()
    assert Job.objects.get(pk=job.pk).state == Job.State.PAUSED
    jobs.record_funding(chain_id=1, escrow=int(job.escrow) + 1)
    tasks.tick()
    job = Job.objects.get(pk=job.pk)
    assert (job.state, job.reason, job.shortfall, job.paused_at) == (Job.State.RUNNING, "", 0, None)
    assert Round.objects.filter(job=job, number=0).exists()


def test_a_job_that_is_paused_for_too_long_ends(job: Job) -> None:
    jobs.pause(job_id=job.pk, shortfall=10**12)
    Job.objects.filter(pk=job.pk).update(escrow=1, paused_at=timezone.now() - timedelta(days=8))
    tasks.tick()
    assert Job.objects.get(pk=job.pk).state == Job.State.STOPPED


def test_a_job_with_few_covered_rounds_warns_once(job: Job) -> None:
    warned = Event.objects.filter(type="job.runway_low", stream__topic=f"job.{job.pk}")
    rounds.watch_runways(pause_limit=timedelta(days=1))
    assert not warned.exists()
    cost = jobs.round_cost(job.parsed_spec, rate=int(job.max_rate))
    Job.objects.filter(pk=job.pk).update(escrow=cost, spent=0)
    rounds.watch_runways(pause_limit=timedelta(days=1))
    rounds.watch_runways(pause_limit=timedelta(days=1))
    assert Job.objects.get(pk=job.pk).runway == 1
    assert warned.count() == 1, "two rounds are to come, one is covered"


def test_unsettled_rounds_and_records_left_out_count_at_their_most(open_round: Round, job: Job) -> None:
    cost = jobs.round_cost(job.parsed_spec, rate=int(job.max_rate))
    Job.objects.filter(pk=job.pk).update(escrow=4 * cost, spent=0)
    job.refresh_from_db()
    assert rounds.runway(job).rounds == 3, "one round is open"
    Round.objects.filter(pk=open_round.pk).update(state=Round.State.SETTLED)
    Job.objects.filter(pk=job.pk).update(round=1)
    job.refresh_from_db()
    assert rounds.runway(job).rounds == 4
    seat = Seat.objects.filter(job=job).first()
    jobs.record_recording(chain_id=1, round=0, node_id=seat.node_id, units=1)
    assert rounds.runway(job) == rounds.Runway(3, 0, 0)
    jobs.record_release(chain_id=1, round=0, node_id=seat.node_id)
    assert rounds.runway(job).rounds == 4


def test_a_job_waits_for_rounds_that_may_cost_less_than_their_most(open_round: Round, job: Job) -> None:
    Round.objects.filter(pk=open_round.pk).update(state=Round.State.AGGREGATED)
    cost = jobs.round_cost(job.parsed_spec, rate=int(job.max_rate))
    Job.objects.filter(pk=job.pk).update(round=1, escrow=2 * cost - 1)
    assert rounds.open_round(job_id=job.pk) is None
    assert Job.objects.get(pk=job.pk).state == Job.State.RUNNING
    Round.objects.filter(pk=open_round.pk).update(state=Round.State.SETTLED)
    Job.objects.filter(pk=job.pk).update(spent=cost // 2)
    assert rounds.open_round(job_id=job.pk) is not None


def test_a_receipt_after_the_close_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    Round.objects.filter(pk=open_round.pk).update(state=Round.State.AGGREGATING)
    answer = hand_in(nodes[0], leased, data)
    assert (answer.status_code, answer.json()["code"]) == (409, "lease.expired")
    assert not Contribution.objects.exists()


def test_a_bid_is_taken_with_the_coordinators_consent_to_no_more_than_is_ordered(open_round: Round, job: Job) -> None:
    intent = Intent.objects.get(kind="takeBids", key__startswith="take:1:2:")
    job_id, [taken], _, most, consent = decode_arguments("market", "takeBids", intent.data)
    assert most == job.parsed_spec.most_units == 4 * job.parsed_spec.units_per_round
    bid = SignedBid(**{snake(name): value for name, value in zip(SignedBid.FIELDS, taken, strict=True)})
    message = eip712.seating(job_id=job_id, max_units=most, bids=[bid])
    assert eip712.recover(domain(), message, "0x" + consent.hex()) == coordinator_address()


def test_a_bid_that_the_chain_refuses_frees_its_seat(open_round: Round, job: Job) -> None:
    intent = Intent.objects.get(kind="takeBids", key__startswith="take:1:2:")
    intent.state, intent.reason = "failed", "BidExpired(...)"
    seats.record_failed_seat(intent)
    assert set(Seat.objects.values_list("node_id", flat=True)) == {1}
    assert Bid.objects.get(node_id=2).state == Bid.State.CANCELLED
