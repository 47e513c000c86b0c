"""Agents' requests: only the node's hot key, only now, only once, only this body."""

from __future__ import annotations

import json
import time

import pytest
from django.test import Client

from marketplace.operators import services
from marketplace.operators.models import Node
from tests.marketplace.world import HOST, register, wallet
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.requests import HEADER_TIME, sign_request

pytestmark = pytest.mark.django_db
HELLO = {"device": "cpu", "software": {"python": "3.11"}}


def send(headers: dict, body: dict | None = None, path: str = "/agent/v1/hello"):  # type: ignore[no-untyped-def]
    return Client().generic("POST", path, json.dumps(body or HELLO), content_type="application/json", headers=headers)


def headers(key: str | bytes, **changes: str) -> dict[str, str]:
    fields = {
        "method": "POST",
        "path": "/agent/v1/hello",
        "query": "",
        "body_sha256": sha256_hex(json.dumps(HELLO).encode()),
        "audience": HOST,
    }
    return sign_request(**(fields | changes), private_key=key)


def test_a_registered_node_is_greeted() -> None:
    node = register(1, online=False)
    answer = node.call("POST", "/agent/v1/hello", HELLO)
    assert answer.status_code == 200
    assert answer.json()["node_id"] == 1
    assert answer.json()["operator"] == node.operator.address
    assert Node.objects.get(pk=1).device == "cpu"


def test_a_strangers_key_is_refused() -> None:
    answer = send(headers(wallet("stranger").key))
    assert (answer.status_code, answer.json()["code"]) == (401, "node.unknown_key")


def test_a_replayed_request_is_refused() -> None:
    node = register(1)
    same = headers(node.hot.key)
    assert send(same).status_code == 200
    assert send(same).json()["code"] == "request.replayed"


def test_a_changed_body_is_refused() -> None:
    node = register(1)
    assert send(headers(node.hot.key), {**HELLO, "device": "H100"}).json()["code"] == "request.body_changed"


@pytest.mark.parametrize(
    "changes", [{"path": "/agent/v1/leases"}, {"audience": "other.example"}, {"method": "PUT"}, {"query": "a=1"}]
)
def test_a_signature_for_another_request_is_refused(changes: dict) -> None:
    node = register(1)
    assert send(headers(node.hot.key, **changes)).json()["code"] == "request.wrong_key"


def test_an_old_clock_is_refused() -> None:
    node = register(1)
    old = headers(node.hot.key) | {HEADER_TIME: str(int(time.time()) - 600)}
    assert send(old).json()["code"] == "request.clock_skew"


def test_an_unsigned_request_is_refused() -> None:
    assert send({}).json()["code"] == "request.unsigned"


def test_a_retired_node_is_refused() -> None:
    node = register(1)
    services.record_retirement(node_id=1)
    assert send(headers(node.hot.key)).json()["code"] == "node.retired"


def test_an_expired_hot_key_is_refused() -> None:
    node = register(1)
    services.record_delegation(node_id=1, hot_key=node.hot.address, expires_at=int(time.time()) - 1)
    assert send(headers(node.hot.key)).json()["code"] == "node.key_expired"
