"""Who would train a job now, when would it reach its target, what would it cost: what the planner says of the open bids."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast, get_args

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.jobs.models import Job
from marketplace.jobs.serializers import WantedSerializer
from marketplace.operators.facts import facts_of
from marketplace.operators.selectors import usable_bids
from marketplace.operators.serializers import ReasonSerializer
from marketplace.training.models import Round
from marketplace.training.services import overheads
from trainer.network.facts import Reason
from trainer.network.planner import Goal, Proposal, Span, propose
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec

GOALS = get_args(Goal)
BASES = get_args(overheads.Basis)
SHOWN = 5
ANY_RATE = 2**96 - 1
"""The highest that the contract can hold."""
KEPT_SECONDS = 10
"""An answer stands for this long: whoever asks the same again, as pages do, costs nothing."""
planning = threading.Lock()
"""Anybody may ask, and an answer takes up to seconds of a core: one at a time in a process, which has nodes to serve too."""


class SpanSerializer(serializers.Serializer):
    expected = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField(allow_null=True, help_text="null: no upper bound is known.")


class ProposalSerializer(serializers.Serializer):
    nodes = serializers.ListField(child=serializers.IntegerField())
    spec = serializers.DictField(help_text="The job's, with the changes.")
    changes = serializers.ListField(child=serializers.CharField(), help_text="Of the specification, for a job not yet posted.")
    in_time = serializers.BooleanField(allow_null=True, help_text="Expected by the deadline; null: there is none.")
    round_seconds = SpanSerializer(help_text="Eight rounds of ten end within, as far as is known.")
    round_price = serializers.CharField(help_text="Base units at full quality: the most.")
    rounds = SpanSerializer()
    seconds = SpanSerializer()
    price = SpanSerializer()
    reasons = ReasonSerializer(many=True)


class ProposalsSerializer(serializers.Serializer):
    goal = serializers.ChoiceField(Job.Goal.choices)
    finish_by = serializers.DateTimeField(allow_null=True)
    parameters = serializers.IntegerField(help_text="Of the model.")
    bidders = serializers.IntegerField(help_text="Nodes that are online with a fitting bid.")
    basis = serializers.ChoiceField(
        BASES, help_text="How sure that is: each of them has kept orders here, which show what links and machines do not; others "
        "have; nobody has, and what rounds take beside links and steps is assumed.",
    )  # fmt: skip
    proposals = ProposalSerializer(
        many=True, help_text="The best first, late ones after all in time; empty when fewer bid than the quorum."
    )


class ProposalsRequestSerializer(WantedSerializer):
    max_rate = serializers.IntegerField(min_value=1, max_value=ANY_RATE, default=ANY_RATE)
    parameters = serializers.IntegerField(
        min_value=1, max_value=10**12, default=None, allow_null=True, help_text="Of the model, where no job has had it yet."
    )


class ProposalsView(APIView):
    """For a job that is here."""

    @extend_schema(
        operation_id="listProposals", responses=ProposalsSerializer,
        parameters=[
            OpenApiParameter("goal", enum=GOALS, description="Sorted by the expected time, or price, to the target."),
            OpenApiParameter("parameters", int, description="Of the model, while it has not been built."),
        ],
    )  # fmt: skip
    def get(self, request: Request, job_id: int) -> Response:
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise HyperGPUError("job.unknown", f"There is no job {job_id}.")
        goal = request.query_params.get("goal", "time")
        if goal not in GOALS:
            raise HyperGPUError("request.invalid", f"A proposal's goal is one of {', '.join(GOALS)}.")
        said = request.query_params.get("parameters", "")
        given = int(said) if said.isdecimal() and 0 < int(said) < 10**12 else None
        return Response(
            proposals(
                job.parsed_spec, cast(Goal, goal), count=parameters(job.parsed_spec, job.parameters or given), seen=seen(job),
                finish_by=job.finish_by, max_rate=int(job.max_rate), chain_job_id=job.chain_id,
            )
        )  # fmt: skip


class PlanView(APIView):
    """For one that is still to be posted."""

    @extend_schema(operation_id="planJob", request=ProposalsRequestSerializer, responses=ProposalsSerializer)
    def post(self, request: Request) -> Response:
        body = ProposalsRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        count = parameters(asked["spec"], asked["parameters"])
        return Response(
            proposals(
                asked["spec"], asked["goal"], count=count, finish_by=asked["finish_by"], max_rate=asked["max_rate"],
                chain_job_id=None,
            )
        )  # fmt: skip


def parameters(spec: JobSpec, known: int | None) -> int:
    """Of the model: as `known`, or as a job had it that trained it on the same data."""
    if known is None:
        alike = {f"spec__{name}": spec.model_dump(mode="json")[name] for name in ("model", "data")}
        before = Job.objects.filter(upload_limit__isnull=False, **alike).first()
        known = before.parameters if before else None
    if known is None:
        text = "The job's model has not been built here yet: say with parameters=N how many parameters it has."
        raise HyperGPUError("plan.size_unknown", text)
    return known


def seen(job: Job) -> list[tuple[int, float]]:
    """Rounds done, and the target's metric after each."""
    done = Round.objects.filter(job=job, metric__isnull=False).order_by("number").values_list("number", "metric")
    name = job.parsed_spec.target.metric
    return [(number + 1, float(metric[name])) for number, metric in done if metric and name in metric]


def proposals(
    spec: JobSpec, goal: Goal, *, count: int, finish_by: datetime | None, max_rate: int, chain_job_id: int | None,
    seen: Sequence[tuple[int, float]] = (),
) -> dict[str, Any]:  # fmt: skip
    """By the bids that are open now and the rounds that the job has done, or were a few seconds ago. A job that is not on chain
    may change its steps. Raises HyperGPUError `plan.busy` while another one is planned."""
    asked = repr((spec.sha256(), goal, count, finish_by, max_rate, chain_job_id, seen))
    key = f"proposals:{sha256_hex(asked.encode())}"
    answer: dict[str, Any] | None = cache.get(key)
    if answer is not None:
        return answer
    if not planning.acquire(blocking=False):
        raise HyperGPUError("plan.busy", "Another job is being planned: ask again in a few seconds.")
    try:
        answer = planned(spec, goal, count=count, finish_by=finish_by, max_rate=max_rate, chain_job_id=chain_job_id, seen=seen)
    finally:
        planning.release()
    cache.set(key, answer, KEPT_SECONDS)
    return answer


def planned(
    spec: JobSpec, goal: Goal, *, count: int, finish_by: datetime | None, max_rate: int, chain_job_id: int | None,
    seen: Sequence[tuple[int, float]],
) -> dict[str, Any]:  # fmt: skip
    bids = usable_bids(chain_job_id=chain_job_id or 0, max_rate=max_rate, units=spec.units_per_round)
    cheapest = {bid.node_id: bid for bid in reversed(bids)}
    rates = {node: int(bid.rate) for node, bid in cheapest.items()}
    known = overheads.expected(facts_of([bid.node for bid in cheapest.values()], spec, rates=rates), spec)
    found = propose(
        known.facts, spec, count=count, goal=goal, seen=seen, free=chain_job_id is None, overhead=known.between,
        deadline_s=None if finish_by is None else (finish_by - timezone.now()).total_seconds(),
        settings=settings.HYPERGPU.network,
    )  # fmt: skip
    return {
        "goal": goal, "finish_by": finish_by, "parameters": count, "bidders": len(known.facts),
        "basis": known.basis, "proposals": [as_json(one, known.reason) for one in found[:SHOWN]],
    }  # fmt: skip


def as_json(one: Proposal, known: Reason) -> dict[str, Any]:
    return {
        "nodes": list(one.nodes), "spec": one.spec.model_dump(mode="json"), "changes": list(one.changes), "in_time": one.in_time,
        "round_seconds": span(one.round_s), "round_price": str(one.round_price),
        "rounds": span(one.rounds), "seconds": span(one.seconds), "price": span(one.price),
        "reasons": [asdict(reason) for reason in (*one.reasons, known, *one.plan.reasons)],
    }  # fmt: skip


def span(value: Span) -> dict[str, float | None]:
    return {name: None if part is None else round(part, 3) for name, part in asdict(value).items()}
