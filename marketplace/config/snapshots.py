"""Snapshots that a page starts from: rows of several apps, read after the place of the stream they belong to."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from django.conf import settings
from django.db.models import Max, Min
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.chain.models import Alarm, Cursor
from marketplace.chain.services import coordinator_address, finalized_block, market_view
from marketplace.common.times import iso
from marketplace.events.models import Event
from marketplace.events.selectors import events_after
from marketplace.events.serializers import StreamSerializer
from marketplace.events.services import position
from marketplace.events.types import EVENT_TYPES
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.jobs.serializers import JobSerializer, PostJobSerializer, job_json
from marketplace.jobs.views import read_posted
from marketplace.operators.models import Bid, Node, Operator
from marketplace.operators.selectors import usable_bids
from marketplace.operators.serializers import BidSerializer, NodeSerializer, bid_json, node_json
from marketplace.settlement import selectors as settlement
from marketplace.settlement.models import AttestorSet, Pause, Payment
from marketplace.settlement.serializers import PaymentSerializer, payment_json
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.selectors import audits_of
from marketplace.training.serializers import (
    AssignmentSerializer,
    AuditSerializer,
    ContributionSerializer,
    RoundSerializer,
    assignment_json,
    audit_json,
    contribution_json,
    round_json,
)
from trainer.protocol.errors import HyperGPUError

LAST_PAYMENTS = 200
STARTED = timezone.now()


class SettlementCallSerializer(serializers.Serializer):
    """The arguments of one `settleRound`."""

    header = serializers.DictField()
    receipts = serializers.CharField()
    attestations = serializers.ListField(child=serializers.DictField())


class SettlementSerializer(serializers.Serializer):
    chain_id = serializers.IntegerField()
    market = serializers.CharField()
    job_id = serializers.IntegerField()
    round = serializers.IntegerField()
    batches = SettlementCallSerializer(many=True)


class SettlementView(APIView):
    """What anyone needs to settle a round: its receipts and attestations. No login; once complete it never changes."""

    @extend_schema(operation_id="getSettlement", responses=SettlementSerializer)
    def get(self, request: Request, job_id: int, number: int) -> Response:
        round_ = Round.objects.select_related("job").filter(job_id=job_id, number=number).first()
        if round_ is None:
            raise HyperGPUError("round.unknown", f"There is no round {number} of job {job_id}.")
        caching = "public, max-age=31536000, immutable" if round_.settlement else "no-store"
        return Response(settlement.bundle(round_), headers={"Cache-Control": caching})


class JobSnapshotSerializer(serializers.Serializer):
    job = JobSerializer()
    rounds = RoundSerializer(many=True)
    assignments = AssignmentSerializer(many=True)
    contributions = ContributionSerializer(many=True)
    nodes = NodeSerializer(many=True)
    payments = PaymentSerializer(many=True)
    audits = AuditSerializer(many=True)
    stream = StreamSerializer()


class JobView(APIView):
    @extend_schema(operation_id="getJob", responses=JobSnapshotSerializer)
    def get(self, request: Request, job_id: int) -> Response:
        stream = position(f"job.{job_id}")
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise HyperGPUError("job.unknown", f"There is no job {job_id}.")
        rounds = Round.objects.filter(job=job).select_related("job").order_by("number")
        assignments = Assignment.objects.filter(round__job=job).select_related("round__job").order_by("id")
        contributions = Contribution.objects.filter(round__job=job).select_related("round").order_by("id")
        nodes = (
            Node.objects.filter(pk__in=Seat.objects.filter(job=job).values("node_id")).select_related("operator").order_by("id")
        )
        payments = settlement.payments().filter(contribution__round__job=job).order_by("id")
        return Response(
            {
                "job": job_json(job),
                "rounds": [round_json(row) for row in rounds],
                "assignments": [assignment_json(row) for row in assignments],
                "contributions": [contribution_json(row) for row in contributions],
                "nodes": [node_json(row) for row in nodes],
                "payments": [payment_json(row) for row in payments],
                "audits": [audit_json(row) for row in audits_of(contribution__round__job=job)],
                "stream": stream,
            }
        )


class OperatorSerializer(serializers.Serializer):
    address = serializers.CharField()
    stake = serializers.CharField()
    credit = serializers.CharField()
    withdrawable = serializers.CharField(allow_null=True)
    earned = serializers.CharField()


class OperatorSnapshotSerializer(serializers.Serializer):
    operator = OperatorSerializer()
    nodes = NodeSerializer(many=True)
    bids = BidSerializer(many=True)
    payments = PaymentSerializer(many=True)
    audits = AuditSerializer(many=True)
    stream = StreamSerializer()


def withdrawable_now(operator: str) -> str | None:
    """What the operator could take out at the newest final block: it grows with time, so only the chain can tell. None while
    the chain does not answer."""
    try:
        return str(market_view("getOperatorMetrics", operator)["withdrawable"])
    except HyperGPUError:
        return None


class OperatorView(APIView):
    """Any address has a page; one that never staked has an empty one."""

    @extend_schema(operation_id="getOperator", responses=OperatorSnapshotSerializer)
    def get(self, request: Request, address: str) -> Response:
        stream = position(f"operator.{address.lower()}")
        operator = Operator.objects.filter(address__iexact=address).first()
        nodes = list(Node.objects.filter(operator__address__iexact=address).select_related("operator").order_by("id"))
        bids = Bid.objects.filter(node__in=nodes).order_by("-id")
        payments = settlement.payments().filter(operator__iexact=address).order_by("-id")[:LAST_PAYMENTS]
        return Response(
            {
                "operator": {
                    "address": operator.address if operator else address,
                    "stake": str(operator.stake if operator else 0),
                    "credit": str(sum(node.credit for node in nodes)),
                    "withdrawable": withdrawable_now(address) if nodes else "0",
                    "earned": str(sum(node.earned for node in nodes)),
                },
                "nodes": [node_json(node) for node in nodes],
                "bids": [bid_json(bid) for bid in bids],
                "payments": [payment_json(payment) for payment in payments],
                "audits": [audit_json(row) for row in audits_of(node_id__in=[node.pk for node in nodes])],
                "stream": stream,
            }
        )


class RecentPaymentsSerializer(serializers.Serializer):
    payments = PaymentSerializer(many=True)


class PaymentsView(APIView):
    @extend_schema(operation_id="listPayments", responses=RecentPaymentsSerializer)
    def get(self, request: Request) -> Response:
        newest = settlement.payments().order_by("-id")[:LAST_PAYMENTS]
        return Response({"payments": [payment_json(payment) for payment in newest]})


class CheckedJobSerializer(serializers.Serializer):
    spec = serializers.DictField()
    spec_hash = serializers.CharField()
    units_per_round = serializers.IntegerField()
    worst_case_cost = serializers.CharField()
    matching_nodes = serializers.IntegerField()
    online_nodes = serializers.IntegerField()
    cheapest_rate = serializers.CharField(allow_null=True)


class CheckJobView(APIView):
    """What a job would cost and who could do it, before anything is posted."""

    @extend_schema(operation_id="checkJob", request=PostJobSerializer, responses=CheckedJobSerializer)
    def post(self, request: Request) -> Response:
        posted = read_posted(request)
        spec, rate = posted["spec"], posted["max_rate"]
        anyone = usable_bids(chain_job_id=0, max_rate=2**128 - 1, units=spec.units_per_round)
        matching = anyone.filter(rate__lte=rate)
        cheapest = anyone.aggregate(lowest=Min("rate"))["lowest"]
        return Response(
            {
                "spec": spec.model_dump(mode="json"),
                "spec_hash": spec.sha256(),
                "units_per_round": spec.units_per_round,
                "worst_case_cost": str(jobs.worst_case_cost(spec, rate=rate)),
                "matching_nodes": matching.values("node_id").distinct().count(),
                "online_nodes": anyone.values("node_id").distinct().count(),
                "cheapest_rate": None if cheapest is None else str(cheapest),
            }
        )


class TokenSerializer(serializers.Serializer):
    name = serializers.CharField()
    symbol = serializers.CharField()
    decimals = serializers.IntegerField()


class ChainSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    rpc_url = serializers.CharField()
    block_seconds = serializers.FloatField()
    finality_seconds = serializers.FloatField()
    currency = TokenSerializer()
    explorer_url = serializers.CharField(allow_null=True)
    test = serializers.BooleanField()


class ContractsSerializer(serializers.Serializer):
    market = serializers.CharField()
    token = serializers.CharField()
    registry = serializers.CharField()
    court = serializers.CharField()
    timelock = serializers.CharField()


class AlarmSerializer(serializers.Serializer):
    code = serializers.CharField()
    subject = serializers.CharField()
    message = serializers.CharField()
    since = serializers.CharField()


def alarm_json(alarm: Alarm) -> dict[str, Any]:
    return {"code": alarm.code, "subject": alarm.subject, "message": alarm.message, "since": iso(alarm.since)}


class PauseSerializer(serializers.Serializer):
    new_jobs_until = serializers.CharField(allow_null=True)
    settlement_until = serializers.CharField(allow_null=True)


class NetworkSerializer(serializers.Serializer):
    version = serializers.CharField()
    chain = ChainSerializer()
    contracts = ContractsSerializer()
    token = TokenSerializer()
    coordinator = serializers.CharField()
    attestors = serializers.ListField(child=serializers.CharField())
    quorum = serializers.IntegerField()
    epoch = serializers.IntegerField()
    settlement_mode = serializers.CharField()
    paused = PauseSerializer()
    min_stake = serializers.CharField()
    exit_notice_seconds = serializers.IntegerField()
    indexed_block = serializers.IntegerField()
    final_block = serializers.IntegerField()
    alarms = AlarmSerializer(many=True)
    emulated = serializers.CharField(allow_null=True)


def indexed_block() -> int:
    """The newest final block whose events are in the database."""
    return Cursor.objects.aggregate(newest=Max("block"))["newest"] or 0


def paused_now() -> dict[str, str | None]:
    """Ends of the pauses that hold now; a pause ends by itself."""
    pause, now = Pause.objects.first() or Pause(), timezone.now()
    until = {name: getattr(pause, name) for name in ("new_jobs_until", "settlement_until")}
    return {name: iso(end) if end and end > now else None for name, end in until.items()}


class NetworkView(APIView):
    @extend_schema(operation_id="getNetwork", responses=NetworkSerializer)
    def get(self, request: Request) -> Response:
        env = settings.HYPERGPU
        deployment, chain = env.deployment, env.chain
        terms = deployment.get("terms", {}).get("market", {})
        attestors = AttestorSet.objects.order_by("-epoch").first()
        return Response(
            {
                "version": version("hypergpu"),
                "chain": {
                    "id": env.chain_id, "name": chain.name, "rpc_url": env.wallet_rpc_url or env.rpc_urls[0],
                    "block_seconds": chain.block_seconds, "finality_seconds": chain.finality_seconds,
                    "currency": {"name": chain.currency, "symbol": chain.currency, "decimals": 18},
                    "explorer_url": chain.explorer_url or None, "test": not chain.real_money,
                },
                "contracts": {name: deployment.get(name, "") for name in ("market", "token", "registry", "court", "timelock")},
                "token": deployment.get("tokenInfo", {"name": "", "symbol": "", "decimals": 6}),
                "coordinator": coordinator_address(),
                "attestors": attestors.members if attestors else [],
                "quorum": attestors.quorum if attestors else 0,
                "epoch": attestors.pk if attestors else 0,
                "settlement_mode": env.settlement_mode,
                "paused": paused_now(),
                "min_stake": str(terms.get("minStake", 0)),
                "exit_notice_seconds": int(terms.get("exitNotice", 0)),
                "indexed_block": indexed_block(),
                "final_block": Cursor.objects.aggregate(newest=Max("finalized"))["newest"] or 0,
                "alarms": [alarm_json(alarm) for alarm in Alarm.objects.all()],
                "emulated": env.emulated or None,
            }
        )  # fmt: skip


class ChangesSerializer(serializers.Serializer):
    """The entities that an event changed, whole; a client replaces its rows by id."""

    job = JobSerializer(required=False)
    rounds = RoundSerializer(many=True, required=False)
    assignments = AssignmentSerializer(many=True, required=False)
    contributions = ContributionSerializer(many=True, required=False)
    nodes = NodeSerializer(many=True, required=False)
    payments = PaymentSerializer(many=True, required=False)
    bids = BidSerializer(many=True, required=False)
    audits = AuditSerializer(many=True, required=False)


class EventSerializer(serializers.Serializer):
    """A fact, as the socket's `pub` frames and the catch-up carry it."""

    op = serializers.ChoiceField(["pub"])
    topic = serializers.CharField()
    epoch = serializers.CharField()
    seq = serializers.IntegerField()
    type = serializers.ChoiceField(EVENT_TYPES)
    at = serializers.CharField()
    changes = ChangesSerializer()


class EventsSerializer(serializers.Serializer):
    epoch = serializers.CharField()
    seq = serializers.IntegerField()
    events = EventSerializer(many=True)


class EventsView(APIView):
    """What a topic's socket would have sent after `since`."""

    @extend_schema(
        operation_id="listEvents", responses=EventsSerializer,
        parameters=[
            OpenApiParameter("topic", str, required=True), OpenApiParameter("since", int), OpenApiParameter("limit", int)
        ],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        topic = request.query_params.get("topic", "")
        numbers = [request.query_params.get("since", "0"), request.query_params.get("limit", "200")]
        if not topic or not all(number.isdecimal() for number in numbers):
            raise HyperGPUError("request.invalid", "Name a topic; since and limit are numbers.")
        since, limit = map(int, numbers)
        stream = position(topic)
        frames = events_after(topic, since, limit=min(limit, 1000))
        return Response({"epoch": stream["epoch"], "seq": stream["seq"], "events": frames})


class StatusSerializer(serializers.Serializer):
    indexed_block = serializers.IntegerField()
    finalized_block = serializers.IntegerField()
    lag_blocks = serializers.IntegerField()
    undispatched_events = serializers.IntegerField()
    unsettled_payments = serializers.IntegerField()
    started_at = serializers.CharField()


class StatusView(APIView):
    @extend_schema(operation_id="getStatus", responses=StatusSerializer)
    def get(self, request: Request) -> Response:
        indexed, finalized = indexed_block(), finalized_block()
        open_payments = Payment.objects.exclude(state__in=[Payment.State.FINAL, Payment.State.FAILED])
        return Response(
            {
                "indexed_block": indexed,
                "finalized_block": finalized,
                "lag_blocks": max(finalized - indexed, 0),
                "undispatched_events": Event.objects.filter(dispatched_at=None).count(),
                "unsettled_payments": open_payments.count(),
                "started_at": iso(STARTED),
            }
        )
