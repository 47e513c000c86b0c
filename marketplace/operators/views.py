"""Operators, nodes and bids over HTTP; the agent's hello."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.chain.services import coordinator_address, domain
from marketplace.events.serializers import StreamSerializer
from marketplace.events.services import position
from marketplace.operators import services
from marketplace.operators.authentication import authenticated_node
from marketplace.operators.models import Measurement, Node
from marketplace.operators.serializers import (
    BidSerializer,
    MeasurementSerializer,
    NodeSerializer,
    bid_json,
    measurement_json,
    node_json,
)
from trainer.protocol.types import Bid as SignedBid


class NodesSerializer(serializers.Serializer):
    nodes = NodeSerializer(many=True)


class OperatorsSerializer(NodesSerializer):
    stream = StreamSerializer()


class OperatorsView(APIView):
    @extend_schema(operation_id="listOperators", responses=OperatorsSerializer)
    def get(self, request: Request) -> Response:
        stream = position("market")
        nodes = Node.objects.select_related("operator").order_by("id")
        return Response({"nodes": [node_json(node) for node in nodes], "stream": stream})


class NodesView(APIView):
    @extend_schema(operation_id="listNodes", parameters=[OpenApiParameter("hot_key", str)], responses=NodesSerializer)
    def get(self, request: Request) -> Response:
        nodes = Node.objects.select_related("operator").order_by("id")
        if hot_key := request.query_params.get("hot_key"):
            nodes = nodes.filter(hot_key__iexact=hot_key)
        return Response({"nodes": [node_json(node) for node in nodes]})


class MeasurementsSerializer(serializers.Serializer):
    measurements = MeasurementSerializer(many=True)


class MeasurementsView(APIView):
    """What was measured of a node and its link, by the node and by the coordinator, over time."""

    @extend_schema(operation_id="listMeasurements", responses=MeasurementsSerializer)
    def get(self, request: Request, node_id: int) -> Response:
        rows = Measurement.objects.filter(node_id=node_id).order_by("quantity", "of", "claimed")
        return Response({"measurements": [measurement_json(row) for row in rows]})


class PairsView(APIView):
    """Round trips between nodes' own endpoints, where some node has reached another's."""

    @extend_schema(operation_id="listPairs", responses=MeasurementsSerializer)
    def get(self, request: Request) -> Response:
        rows = Measurement.objects.filter(quantity=Measurement.Quantity.PEER_RTT).order_by("node_id", "of")
        return Response({"measurements": [measurement_json(row) for row in rows]})


class PostBidSerializer(serializers.Serializer):
    job_id = serializers.IntegerField(min_value=0, max_value=2**53)
    node_id = serializers.IntegerField(min_value=1, max_value=2**32 - 1)
    rate = serializers.IntegerField(min_value=1, max_value=2**100)
    capacity = serializers.IntegerField(min_value=1, max_value=2**53)
    expires_at = serializers.IntegerField(min_value=0, max_value=2**40)
    nonce = serializers.IntegerField(min_value=0, max_value=2**53)
    signature = serializers.RegexField(r"^0x[0-9a-fA-F]{130}$")


class PostedBidSerializer(serializers.Serializer):
    bid = BidSerializer()


class BidsView(APIView):
    authentication_classes: list[Any] = []  # the wallet's signature on the bid is the authentication

    @extend_schema(operation_id="postBid", request=PostBidSerializer, responses={201: PostedBidSerializer})
    def post(self, request: Request) -> Response:
        body = PostBidSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        values = dict(body.validated_data)
        signature = values.pop("signature").lower()
        bid = services.post_bid(message=SignedBid(**values), signature=signature)
        return Response({"bid": bid_json(bid)}, status=201)


class HelloSerializer(serializers.Serializer):
    device = serializers.CharField(max_length=120)
    software = serializers.DictField(child=serializers.CharField(max_length=80, allow_null=True))
    samples_per_second = serializers.FloatField(allow_null=True, min_value=0, max_value=1e9, default=None)
    name = serializers.CharField(max_length=80, allow_blank=True, default="")
    endpoint = serializers.RegexField(r"^https?://[^\s/?#@]+$", max_length=200, default="")


class HelloView(APIView):
    authentication_classes: list[Any] = []

    @extend_schema(exclude=True)
    def post(self, request: Request) -> Response:
        django_request: HttpRequest = request._request
        node = authenticated_node(django_request)
        body = HelloSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        services.greet(node=node, **body.validated_data)
        where = domain()
        return Response(
            {
                "node_id": node.pk,
                "operator": node.operator_id,
                "coordinator": coordinator_address(),
                "domain": {"chain_id": where.chain_id, "contract": where.contract},
                "server_time": int(timezone.now().timestamp()),
                **services.heartbeat_settings(),
            }
        )
