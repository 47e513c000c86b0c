"""Who may send a large body, and how large: asked of a request's head, before any of the body is received."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve

from marketplace.accounts.models import Account
from marketplace.artifacts import store
from marketplace.artifacts.views import DatasetsView
from marketplace.config.body_limit import Upload
from marketplace.jobs import services as jobs
from marketplace.operators.authentication import NODE, authenticated_node
from marketplace.operators.models import Node
from marketplace.training import views as training
from marketplace.training.services import audits, intake, leases
from trainer.network.transfers import piece_size
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import HEADER_BODY


def of_artifact(request: HttpRequest, node: Node, assignment_id: int) -> int:
    fence = training.fence_of(request)
    return intake.committed_size(leases.held(assignment_id=assignment_id, node_id=node.pk, fence=fence))


def of_piece(request: HttpRequest, node: Node, assignment_id: int, pieces: int, index: int) -> int:
    return piece_size(of_artifact(request, node, assignment_id), max(pieces, 1))


def of_evidence(request: HttpRequest, node: Node, audit_id: int) -> int:
    audit = audits.answerable(audit_id=audit_id, node_id=node.pk)
    if audit.evidence != request.headers[HEADER_BODY]:
        audits.refuse_evidence(audit, 0)
    return audits.most_evidence(audit.contribution.round)


def of_evidence_piece(request: HttpRequest, node: Node, audit_id: int, pieces: int, index: int) -> int:
    audit, (sha256, size) = audits.answerable(audit_id=audit_id, node_id=node.pk), training.named_file(request)
    if audit.evidence != sha256:
        audits.refuse_evidence(audit, size)
    return piece_size(size, max(pieces, 1))


SIGNED: dict[Callable[..., Any], Callable[..., int]] = {
    training.artifact: of_artifact, training.piece: of_piece,
    training.audit_evidence: of_evidence, training.evidence_piece: of_evidence_piece,
}  # fmt: skip
"""By the views of nodes' uploads: the most bytes that this one may have."""


async def admit(scope: dict[str, Any]) -> Upload | None:
    """As `body_limit.Admit`; a signed upload's node stays in the scope, for its view.

    Raises HyperGPUError `auth.required`, or what the view would: `request.*`, `signature.*`, `node.*`, `lease.*`, ...
    """
    try:
        found = resolve(scope["path"])
    except Resolver404:
        return None
    if found.func in SIGNED:
        find = partial(signed_upload, scope, found.func, found.kwargs)
    elif getattr(found.func, "cls", None) is DatasetsView:
        find = partial(dataset_upload, scope)
    else:
        return None
    async with ThreadSensitiveContext():  # a thread of its own, as Django gives each request: uploads do not wait for another's
        return await database_sync_to_async(find)()


def signed_upload(scope: dict[str, Any], view: Callable[..., Any], named: dict[str, Any]) -> Upload:
    request = ASGIRequest(scope, io.BytesIO())
    try:
        node = scope[NODE] = authenticated_node(request, streamed_body=True)
    except DisallowedHost as error:
        raise HyperGPUError("request.invalid", str(error)) from error
    return Upload(sender=f"node {node.pk}", limit=min(SIGNED[view](request, node, **named), settings.HYPERGPU.max_body_bytes))


def dataset_upload(scope: dict[str, Any]) -> Upload:
    request = ASGIRequest(scope, io.BytesIO())
    SessionMiddleware(lambda _: HttpResponse()).process_request(request)
    account = get_user(request)
    if not isinstance(account, Account):
        raise HyperGPUError("auth.required", "Sign in with your wallet before you upload a data set.")
    if store.free_bytes() < settings.HYPERGPU.least_free_bytes:
        raise HyperGPUError("disk.low", "The coordinator's disk is nearly full, and is kept for jobs that run: upload it later.")
    room, announced = jobs.room_for_data(requester=account.address), request.headers.get("Content-Length", "")
    if room <= 0 or (announced.isdecimal() and int(announced) > room):
        text = f"Your data sets that no funded job of yours names leave room for {max(room, 0)} bytes: fund one, or wait a day."
        raise HyperGPUError("dataset.too_many", text, room=max(room, 0))
    return Upload(sender=account.address, limit=min(room, settings.HYPERGPU.max_body_bytes))
