"""Who would train a job now, when would it reach its target, what would it cost: what the planner says of the open bids."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast, get_args

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.jobs.models import Job
from marketplace.operators.facts import facts_of
from marketplace.operators.selectors import usable_bids
from marketplace.operators.serializers import ReasonSerializer
from marketplace.training.models import Round
from trainer.network.planner import Goal, Proposal, Span, propose
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.wire import HEADER_BYTES

GOALS = get_args(Goal)
SHOWN = 5


class SpanSerializer(serializers.Serializer):
    expected = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField(allow_null=True, help_text="null: no upper bound is known.")


class ProposalSerializer(serializers.Serializer):
    nodes = serializers.ListField(child=serializers.IntegerField())
    changes = serializers.ListField(child=serializers.CharField(), help_text="Of the specification, for a job not yet posted.")
    round_seconds = serializers.FloatField()
    round_price = serializers.CharField(help_text="Base units at full quality: the most.")
    rounds = SpanSerializer()
    seconds = SpanSerializer()
    price = SpanSerializer()
    reasons = ReasonSerializer(many=True)


class ProposalsSerializer(serializers.Serializer):
    goal = serializers.ChoiceField(GOALS)
    bidders = serializers.IntegerField(help_text="Nodes that are online with a fitting bid.")
    proposals = ProposalSerializer(many=True, help_text="The best first; empty when fewer bid than the quorum.")


class ProposalsView(APIView):
    @extend_schema(
        operation_id="listProposals", responses=ProposalsSerializer,
        parameters=[
            OpenApiParameter("goal", enum=GOALS, description="Sorted by the expected time, or price, to the target."),
            OpenApiParameter("parameters", int, description="Of the model, while the job has not been started."),
        ],
    )  # fmt: skip
    def get(self, request: Request, job_id: int) -> Response:
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise HyperGPUError("job.unknown", f"There is no job {job_id}.")
        goal = request.query_params.get("goal", "time")
        if goal not in GOALS:
            raise HyperGPUError("request.invalid", f"A proposal's goal is one of {', '.join(GOALS)}.")
        return Response(proposals(job, cast(Goal, goal), count=parameters(job, request.query_params.get("parameters", ""))))


def parameters(job: Job, said: str) -> int:
    """Of the job's model: known once it has been built, else what the request says."""
    if job.upload_limit:
        return max((job.upload_limit - HEADER_BYTES) // 4, 1)
    if said.isdecimal() and 0 < int(said) < 10**12:
        return int(said)
    text = "The job's model has not been built yet: say with parameters=N how many parameters it has."
    raise HyperGPUError("request.invalid", text)


def proposals(job: Job, goal: Goal, *, count: int) -> dict[str, Any]:
    """By the bids that are open now and the rounds that the job has done. A job that is not posted may change its steps."""
    spec, posted = job.parsed_spec, job.chain_id is not None
    bids = usable_bids(chain_job_id=job.chain_id or 0, max_rate=job.max_rate, units=spec.units_per_round)
    cheapest = {bid.node_id: bid for bid in reversed(bids)}
    facts = facts_of([bid.node for bid in cheapest.values()], spec, rates={node: int(bid.rate) for node, bid in cheapest.items()})
    done = Round.objects.filter(job=job, metric__isnull=False).order_by("number").values_list("number", "metric")
    seen = [(number + 1, float(metric[spec.target.metric])) for number, metric in done if metric and spec.target.metric in metric]
    found = propose(facts, spec, count=count, goal=goal, seen=seen, free=not posted) if facts else []
    return {"goal": goal, "bidders": len(facts), "proposals": [as_json(one) for one in found[:SHOWN]]}


def as_json(one: Proposal) -> dict[str, Any]:
    return {
        "nodes": list(one.nodes), "changes": list(one.changes), "round_seconds": round(one.round_s, 3),
        "round_price": str(one.round_price), "rounds": span(one.rounds), "seconds": span(one.seconds), "price": span(one.price),
        "reasons": [asdict(reason) for reason in (*one.reasons, *one.plan.reasons)],
    }  # fmt: skip


def span(value: Span) -> dict[str, float | None]:
    return {name: None if part is None else round(part, 3) for name, part in asdict(value).items()}
