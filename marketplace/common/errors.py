"""From the product's error family to HTTP."""

from __future__ import annotations

import logging
from typing import Any

from django.http import JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_handler

from trainer.protocol.errors import HyperGPUError

log = logging.getLogger(__name__)

STATUS_BY_CODE = {
    "artifact.too_large": 413,
    "auth.required": 401,
    "chain.unreachable": 503,
    "node.unknown_key": 401,
    "node.retired": 401,
    "node.key_expired": 401,
    "assignment.not_yours": 403,
    "audit.not_yours": 403,
    "audit.answered": 409,
    "audit.expired": 409,
    "dataset.too_many": 429,
    "disk.low": 503,
    "job.not_yours": 403,
    "job.too_many_drafts": 429,
    "order.late": 409,
    "plan.busy": 503,
    "receipt.replayed": 409,
    "upload.too_many": 429,
}
STATUS_BY_PREFIX = {"request": 401, "signature": 401, "auth": 401, "lease": 409}


def http_status(code: str) -> int:
    """HTTP status of a refusal; 422 unless its code says otherwise."""
    if code.endswith(".unknown"):
        return 404
    return STATUS_BY_CODE.get(code) or STATUS_BY_PREFIX.get(code.split(".")[0], 422)


def error_response(error: HyperGPUError) -> JsonResponse:
    """For views outside DRF (streams, long polls)."""
    return JsonResponse(error.as_json(), status=http_status(error.code))


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Every refusal leaves the API as {code, message, data}."""
    if isinstance(error, HyperGPUError):
        return Response(error.as_json(), status=http_status(error.code))
    response = drf_handler(error, context)
    if response is not None:
        code = {401: "auth.required", 403: "auth.forbidden", 404: "request.not_found", 405: "request.method"}.get(
            response.status_code, "request.invalid"
        )
        if isinstance(error, exceptions.NotAuthenticated):
            code = "auth.required"
        detail = response.data.get("detail") if isinstance(response.data, dict) else None
        message = str(detail) if detail else "The request is not valid; see data."
        response.data = {"code": code, "message": message, "data": {} if detail else response.data}
    return response
