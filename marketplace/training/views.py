"""The agent's side of a round. Plain Django views: they stream, wait, and answer errors in the common form."""

from __future__ import annotations

import gzip
import math
import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marketplace.artifacts.models import Artifact
from marketplace.artifacts.views import body_chunks, serve
from marketplace.common.arrival import arrival_of
from marketplace.common.errors import error_response
from marketplace.operators import links
from marketplace.operators import services as operators
from marketplace.operators.authentication import authenticated_node
from marketplace.operators.links import LinkReport
from marketplace.operators.models import Node
from marketplace.operators.peers import peers_of
from marketplace.training import selectors
from marketplace.training.models import Assignment, Contribution
from marketplace.training.services import audits, intake, leases, versions
from marketplace.training.waiting import wait_for_work
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import HEADER_BODY
from trainer.protocol.types import Receipt

POLL_SECONDS = 20
RECHECK_SECONDS = 2.0
"""The broker's nudge may be lost; then the rows are looked at again after this long."""
WORK = (Artifact.Kind.PSEUDO_GRADIENT, Artifact.Kind.AUDIT)
"""What nodes have made: shown to others only once it is public."""
MOST_DIGITS = 15
"""Of a file's size in bytes."""
View = Callable[..., Any]
Losses = list[tuple[int, float]]


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


AnyBody = TypeVar("AnyBody", bound=Body)


class LeaseBody(Body):
    link: LinkReport | None = None


class HeartbeatBody(LeaseBody):
    fence: int
    step: int = Field(default=0, ge=0, le=10**6)
    losses: Losses = Field(default=[], max_length=256)


class CommitBody(Body):
    fence: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0)


class ReceiptFields(Body):
    model_config = ConfigDict(extra="forbid")

    job_id: int
    round: int
    node_id: int
    units: int
    base: str
    artifact: str


class ReceiptBody(Body):
    fence: int
    receipt: ReceiptFields
    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")
    losses: Losses = Field(default=[], max_length=256)
    seconds: float = Field(default=0.0, ge=0)


class FailBody(Body):
    fence: int
    code: str = Field(default="", max_length=60)
    message: str = Field(default="", max_length=300)


def agent_view(view: View) -> View:
    """Refusals leave as {code, message, data}; agents carry signatures, not cookies, so CSRF does not apply."""

    @csrf_exempt
    @wraps(view)
    def answered(request: HttpRequest, **kwargs: Any) -> Any:
        try:
            return view(request, **kwargs)
        except HyperGPUError as error:
            return error_response(error)

    return answered


def parsed(kind: type[AnyBody], body: bytes) -> AnyBody:
    """A request's JSON body. Raises HyperGPUError `request.invalid` with the wrong fields."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problems = [{"field": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()]
        raise HyperGPUError("request.invalid", "The request's body is not valid; see data.", problems=problems) from error


@csrf_exempt
async def lease(request: HttpRequest) -> HttpResponse:
    """The node's next work order, and the audits that it is to answer, if any; waits up to `POLL_SECONDS`, then answers 204."""
    try:
        node, _body = await sync_to_async(authenticate_lease)(request)
        until = time.monotonic() + POLL_SECONDS
        while True:
            leased = await sync_to_async(next_lease)(node.pk)
            audited = await sync_to_async(audits.open_audits)(node_id=node.pk)
            if leased is not None or audited:
                break
            if (left := until - time.monotonic()) <= 0:
                return HttpResponse(status=204)
            if not await wait_for_work(node.pk, seconds=min(left, RECHECK_SECONDS)):
                await sync_to_async(operators.hear)(node=node)
    except HyperGPUError as error:
        return error_response(error)
    said = ({"audits": audited} if audited else {}) | (leased or {})
    return compact(JsonResponse(said), request)


def next_lease(node_id: int) -> dict[str, Any] | None:
    """The node's next order, with what it may get from other nodes of the round, and the outer steps that it has missed."""
    leased = leases.lease_next(node_id=node_id)
    if leased is None:
        return None
    assignment, order = leased
    size = selectors.step_size(assignment.round) if order.order.delta else 0
    round_id = assignment.round_id
    hints = peers_of(node_id, among=selectors.nodes_of(round_id), size=size, vias=selectors.vias_of(round_id))
    steps = versions.missed_steps(assignment)
    return leases.lease_json(assignment, order) | ({"peers": hints} if hints else {}) | ({"steps": steps} if steps else {})


def compact(response: HttpResponse, request: HttpRequest) -> HttpResponse:
    """As gzip where the client takes it: an order is mostly the job's specification, and halves. It holds no secret next to
    what a stranger chose, so its length betrays nothing (BREACH)."""
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.content = gzip.compress(response.content, mtime=0)
        response["Content-Encoding"] = "gzip"
    return response


def authenticate_lease(request: HttpRequest) -> tuple[Node, LeaseBody]:
    if request.method != "POST":
        raise HyperGPUError("request.method", "Ask for a lease with POST.")
    node = authenticated_node(request)
    body = parsed(LeaseBody, request.body)
    hear(node, body.link)
    return node, body


def hear(node: Node, link: LinkReport | None) -> None:
    """A sign of life, with what it says of the link."""
    if link is not None:
        links.record_report(node_id=node.pk, report=link)
    operators.hear(node=node)


@require_POST
@agent_view
def heartbeat(request: HttpRequest, assignment_id: int) -> JsonResponse:
    node = authenticated_node(request)
    body = parsed(HeartbeatBody, request.body)
    assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=body.fence)
    hear(node, body.link)
    return JsonResponse(leases.renew(assignment=assignment, step=body.step, losses=finite(body.losses), known=assignment_id))


@require_POST
@agent_view
def commit(request: HttpRequest, assignment_id: int) -> JsonResponse:
    node = authenticated_node(request)
    body = parsed(CommitBody, request.body)
    assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=body.fence)
    intake.commit(assignment=assignment, sha256=body.sha256, size=body.size, limit=upload_limit(assignment))
    return JsonResponse({"upload": f"/agent/v1/assignments/{assignment_id}/artifact?fence={body.fence}"})


def upload_limit(assignment: Assignment) -> int:
    return assignment.round.job.upload_limit or settings.HYPERGPU.max_artifact_bytes


def came_gathered(request: HttpRequest, assignment: Assignment) -> bool:
    """Whether an upload came by the node that its order names: another way, or one that it made up, is its own link's."""
    via = assignment.began.via
    return via is not None and request.GET.get("via") == str(via)


def time_gathered(request: HttpRequest, assignment: Assignment) -> None:
    """What a whole upload says of the way by another node, if its order named one."""
    via = assignment.began.via
    if via is not None and assignment.committed_at and assignment.committed_size:
        seconds = (timezone.now() - assignment.committed_at).total_seconds()
        links.record_gathered(
            node_id=assignment.node_id, by=via, size=assignment.committed_size, seconds=seconds,
            fell_back=not came_gathered(request, assignment),
        )  # fmt: skip


def time_upload(request: HttpRequest, node: Node, *, answered_at: datetime | None = None) -> None:
    """What an upload says of its node's link; `answered_at`: when it was told that it may upload."""
    if (arrival := arrival_of(request)) is not None:
        turnaround = None if answered_at is None else arrival.at - answered_at.timestamp()
        links.record_upload(node_id=node.pk, size=arrival.size, seconds=arrival.seconds, turnaround=turnaround)


@require_http_methods(["PUT"])
@agent_view
def artifact(request: HttpRequest, assignment_id: int) -> JsonResponse:
    node = authenticated_node(request, streamed_body=True)
    fence, size = fence_of(request), request.headers.get("Content-Length", "")
    if not size.isdecimal():
        raise HyperGPUError("request.invalid", "An upload names its Content-Length in the headers.")
    assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=fence)
    if request.headers[HEADER_BODY] != assignment.committed_sha256:
        raise HyperGPUError("artifact.hash_mismatch", "The upload's signed hash is not the committed one.")
    if not came_gathered(request, assignment):
        time_upload(request, node, answered_at=assignment.committed_at)
    stored = intake.upload(assignment=assignment, chunks=body_chunks(request), size=int(size))
    time_gathered(request, assignment)
    return JsonResponse({"sha256": stored.sha256, "size": stored.size})


@require_http_methods(["PUT"])
@agent_view
def piece(request: HttpRequest, assignment_id: int, pieces: int, index: int) -> JsonResponse:
    """One of the pieces of an upload; the request's signature covers the piece's own hash."""
    node = authenticated_node(request, streamed_body=True)
    assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=fence_of(request))
    was_whole = assignment.uploaded
    whole = intake.upload_piece(
        assignment=assignment, pieces=pieces, index=index, chunks=body_chunks(request), sha256=request.headers[HEADER_BODY]
    )
    if whole and not was_whole:
        time_gathered(request, assignment)
        if not came_gathered(request, assignment) and assignment.committed_at and assignment.committed_size:
            seconds = (timezone.now() - assignment.committed_at).total_seconds()
            links.record_upload(node_id=node.pk, size=assignment.committed_size, seconds=seconds, turnaround=None)
    return JsonResponse({"whole": whole})


@require_GET
@agent_view
def pieces_held(request: HttpRequest, assignment_id: int, pieces: int) -> JsonResponse:
    node = authenticated_node(request)
    assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=fence_of(request))
    return JsonResponse({"held": intake.pieces_held(assignment=assignment, pieces=pieces), "whole": assignment.uploaded})


def fence_of(request: HttpRequest) -> int:
    fence = request.GET.get("fence", "")
    if not fence.isdecimal():
        raise HyperGPUError("request.invalid", "An upload names its fence in the query.")
    return int(fence)


@require_POST
@agent_view
def receipt(request: HttpRequest, assignment_id: int) -> JsonResponse:
    node = authenticated_node(request)
    body = parsed(ReceiptBody, request.body)
    made = intake.standing_contribution(assignment_id=assignment_id, node_id=node.pk, signature=body.signature.lower())
    if made is None:
        made = accepted(leases.held(assignment_id=assignment_id, node_id=node.pk, fence=body.fence), node, body)
    return JsonResponse({"contribution_id": made.pk, "state": made.state})


@require_http_methods(["PUT"])
@agent_view
def contribution(request: HttpRequest, assignment_id: int) -> JsonResponse:
    """Commitment, bytes and receipt of a small upload in one request, taken in this order: the JSON of a receipt, a newline, the
    bytes. `seconds` of the answer are ours, not the link's."""
    began, node = time.monotonic(), authenticated_node(request)
    receipt, _, data = request.body.partition(b"\n")
    body = parsed(ReceiptBody, receipt)
    time_upload(request, node)
    made = intake.standing_contribution(assignment_id=assignment_id, node_id=node.pk, signature=body.signature.lower())
    if made is None:
        assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=body.fence)
        intake.commit(assignment=assignment, sha256=sha256_hex(data), size=len(data), limit=upload_limit(assignment))
        intake.upload(assignment=assignment, chunks=[data], size=len(data))
        made = accepted(assignment, node, body)
    return JsonResponse({"contribution_id": made.pk, "state": made.state, "seconds": round(time.monotonic() - began, 4)})


def accepted(assignment: Assignment, node: Node, body: ReceiptBody) -> Contribution:
    return intake.accept_contribution(
        assignment=assignment, node=node, receipt=Receipt(**body.receipt.model_dump()), signature=body.signature.lower(),
        losses=finite(body.losses), seconds=body.seconds,
    )  # fmt: skip


@require_POST
@agent_view
def fail(request: HttpRequest, assignment_id: int) -> JsonResponse:
    node = authenticated_node(request)
    body = parsed(FailBody, request.body)
    assignment = leases.held(assignment_id=assignment_id, node_id=node.pk, fence=body.fence)
    leases.release(assignment=assignment, reason=f"{body.code}: {body.message}")
    return JsonResponse({})


@require_http_methods(["PUT"])
@agent_view
def audit_evidence(request: HttpRequest, audit_id: int) -> JsonResponse:
    """The states that an audit asks for, in the file format of trainer/diloco/trace.py."""
    node = authenticated_node(request, streamed_body=True)
    size = request.headers.get("Content-Length", "")
    if not size.isdecimal():
        raise HyperGPUError("request.invalid", "An upload names its Content-Length in the headers.")
    time_upload(request, node)
    audit = audits.accept_evidence(
        audit=audits.answerable(audit_id=audit_id, node_id=node.pk), chunks=body_chunks(request),
        sha256=request.headers[HEADER_BODY], size=int(size),
    )  # fmt: skip
    return JsonResponse({"audit_id": audit.pk, "state": audit.state})


@require_http_methods(["PUT"])
@agent_view
def evidence_piece(request: HttpRequest, audit_id: int, pieces: int, index: int) -> JsonResponse:
    """One of the pieces of an answer; the request's signature covers the piece's own hash, and the file's in the query."""
    node = authenticated_node(request, streamed_body=True)
    audit, (sha256, size) = audits.answerable(audit_id=audit_id, node_id=node.pk), named_file(request)
    whole = audits.accept_piece(
        audit=audit, sha256=sha256, size=size, pieces=pieces, index=index, chunks=body_chunks(request),
        piece_sha256=request.headers[HEADER_BODY],
    )  # fmt: skip
    return JsonResponse({"whole": whole})


@require_GET
@agent_view
def evidence_held(request: HttpRequest, audit_id: int, pieces: int) -> JsonResponse:
    node = authenticated_node(request)
    audit, (sha256, _) = audits.answerable(audit_id=audit_id, node_id=node.pk), named_file(request)
    held = audits.pieces_held(audit=audit, sha256=sha256, pieces=pieces)
    return JsonResponse({"held": held, "whole": audit.evidence == sha256})


def named_file(request: HttpRequest) -> tuple[str, int]:
    """Hash and size in bytes of the file of which pieces are sent."""
    sha256, size = request.GET.get("sha256", ""), request.GET.get("size", "")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not size.isdecimal() or len(size) > MOST_DIGITS:
        raise HyperGPUError("request.invalid", "Pieces name the SHA-256 and the size of their file in the query.")
    return sha256, int(size)


@require_GET
def ping(request: HttpRequest) -> HttpResponse:
    """Nothing, to be timed."""
    return HttpResponse(status=204)


@require_GET
@agent_view
def download(request: HttpRequest, sha256: str) -> HttpResponse | FileResponse:
    """Checkpoints and data sets for nodes. Other nodes' work is shown only once its round is closed."""
    node = authenticated_node(request)
    found = Artifact.objects.filter(sha256=sha256).first()
    if found is None or (found.kind in WORK and not found.public):
        raise HyperGPUError("artifact.unknown", f"There is no artifact {sha256} for nodes.")
    response, arrival = serve(found, request), arrival_of(request)
    if arrival is not None and isinstance(response, FileResponse):
        links.begin_download(node_id=node.pk, sha256=sha256)

        def note() -> None:
            links.record_download(node_id=node.pk, sha256=sha256, size=found.size, sent=arrival.sent)

        response._resource_closers.append(note)  # type: ignore[attr-defined]  # what Django calls once all is sent, or the node has gone
    return response


def finite(losses: Losses) -> Losses:
    """Points that a curve can show."""
    return [(step, loss) for step, loss in losses if math.isfinite(loss)]
