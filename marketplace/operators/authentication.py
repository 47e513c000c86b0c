"""Requests of agents are signed by the node's hot key."""

from __future__ import annotations

import time
from typing import cast

from django.http import HttpRequest
from django.utils import timezone
from eth_utils import to_checksum_address

from marketplace.operators import services
from marketplace.operators.models import Node
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import HEADER_BODY, HEADER_KEY, verify_request

NODE = "hypergpu.node"
"""In the ASGI scope of an upload: who signed it, found before its body was received (config/admission.py)."""


def authenticated_node(request: HttpRequest, *, streamed_body: bool = False) -> Node:
    """The node that signed `request`. With `streamed_body` the caller compares the body's hash while it reads it.

    Raises HyperGPUError `request.*`, `signature.*`, `node.unknown_key`, `node.retired` or `node.key_expired`.
    """
    if streamed_body and (admitted := getattr(request, "scope", {}).get(NODE)) is not None:
        return cast(Node, admitted)
    signed = verify_request(
        method=request.method or "", path=request.path, query=request.META.get("QUERY_STRING", ""),
        audience=request.get_host(), headers=request.headers, now=int(time.time()),
    )  # fmt: skip
    if not streamed_body and sha256_hex(request.body) != request.headers[HEADER_BODY]:
        raise HyperGPUError("request.body_changed", "The body is not the one that was signed.")
    node = Node.objects.select_related("operator").filter(hot_key=to_checksum_address(request.headers[HEADER_KEY])).first()
    if node is None:
        raise HyperGPUError(
            "node.unknown_key", "No node is registered with this hot key yet; register it on chain, then try again."
        )
    if node.retired:
        raise HyperGPUError("node.retired", f"Node {node.pk} is retired.")
    if node.key_expires_at <= timezone.now():
        raise HyperGPUError("node.key_expired", f"The hot key of node {node.pk} has expired; delegate a new one.")
    services.spend_request_nonce(hot_key=node.hot_key, nonce=signed.nonce)
    return node
