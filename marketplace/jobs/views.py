"""Posting and stopping jobs."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.services import signed_in
from marketplace.events.serializers import StreamSerializer
from marketplace.events.services import position
from marketplace.jobs import services
from marketplace.jobs.models import Job
from marketplace.jobs.serializers import JobSerializer, PostJobSerializer, job_json
from trainer.protocol.errors import HyperGPUError

PAGE = 50


class TransactionSerializer(serializers.Serializer):
    function = serializers.CharField()
    args = serializers.ListField(child=serializers.CharField())


class DraftSerializer(serializers.Serializer):
    job = JobSerializer()
    transaction = TransactionSerializer()


class JobsSerializer(serializers.Serializer):
    jobs = JobSerializer(many=True)
    stream = StreamSerializer()


class OneJobSerializer(serializers.Serializer):
    job = JobSerializer()


def read_posted(request: Request) -> dict[str, Any]:
    body = PostJobSerializer(data=request.data)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


class JobsView(APIView):
    def get_permissions(self) -> list[Any]:
        return [IsAuthenticated()] if self.request.method == "POST" else []

    @extend_schema(
        operation_id="listJobs", responses=JobsSerializer, parameters=[OpenApiParameter("before", int, description="Job id.")]
    )
    def get(self, request: Request) -> Response:
        stream = position("market")
        # A draft is its requester's business until it is funded.
        jobs = Job.objects.exclude(state=Job.State.DRAFT).order_by("-id")
        before = request.query_params.get("before", "")
        if before.isdecimal():
            jobs = jobs.filter(pk__lt=int(before))
        return Response({"jobs": [job_json(job) for job in jobs[:PAGE]], "stream": stream})

    @extend_schema(operation_id="postJob", request=PostJobSerializer, responses={201: DraftSerializer})
    def post(self, request: Request) -> Response:
        posted = read_posted(request)
        job = services.draft_job(requester=signed_in(request), **posted)
        args = ["0x" + job.spec_hash, str(job.escrow), str(job.max_rate)]
        return Response({"job": job_json(job), "transaction": {"function": "createJob", "args": args}}, status=201)


class StopJobView(APIView):
    permission_classes = [IsAuthenticated]

    @extend_schema(operation_id="stopJob", request=None, responses=OneJobSerializer)
    def post(self, request: Request, job_id: int) -> Response:
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise HyperGPUError("job.unknown", f"There is no job {job_id}.")
        if job.requester != signed_in(request):
            raise HyperGPUError("job.not_yours", "Only its requester stops a job.")
        services.end(job_id=job_id, state=Job.State.STOPPED, reason="Stopped by its requester.")
        job.refresh_from_db()
        return Response({"job": job_json(job)})
