"""No byte of an upload is received of who may not send it, and no more than what it may be."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from pytest_django.fixtures import Settings

from marketplace.accounts.models import Account
from marketplace.artifacts import store
from marketplace.config import body_limit
from marketplace.config.asgi import application
from marketplace.jobs.models import Job
from marketplace.jobs.services import MOST_UNUSED
from marketplace.training.models import Assignment
from marketplace.training.services import rounds
from tests.marketplace.training.work import commit, lease, path, started, train
from tests.marketplace.world import HOST, TestNode, fund, register, wallet
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.requests import HEADER_KEY, sign_request

pytestmark = pytest.mark.django_db(transaction=True)
UPLOADS = [
    "assignments/1/artifact?fence=1", "assignments/1/pieces/2/0?fence=1", "audits/1/evidence",
    "audits/1/pieces/2/0?size=9&sha256=" + 64 * "a",
]  # fmt: skip


class Sender:
    """One request at the server's door; `taken` counts the bytes of its body that were received."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes, *, chunk: int = 2**20) -> None:
        bare, _, query = target.partition("?")
        self.scope = {
            "type": "http", "http_version": "1.1", "scheme": "http",
            "method": method, "path": bare, "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in ({"Host": HOST} | headers).items()],
            "client": ("203.0.113.9", 1), "server": (HOST, 80),
        }  # fmt: skip
        self.chunks = [body[at : at + chunk] for at in range(0, len(body), chunk)]
        self.taken, self.sent = 0, list[dict[str, Any]]()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def receive(self) -> dict[str, Any]:
        if not self.chunks:
            await asyncio.sleep(3600)
        chunk = self.chunks.pop(0)
        self.taken += len(chunk)
        if not self.chunks:
            await self.may_end.wait()
        return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks)}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def answer(self) -> tuple[int, dict[str, Any]]:
        await application(self.scope, self.receive, self.send)
        body = b"".join(message.get("body", b"") for message in self.sent)
        return self.sent[0]["status"], json.loads(body)


def signed(target: str, body: bytes, key: bytes) -> dict[str, str]:
    bare, _, query = target.partition("?")
    return sign_request(method="PUT", path=bare, query=query, body_sha256=sha256_hex(body), audience=HOST, private_key=key)


def put(target: str, body: bytes, key: bytes) -> Sender:
    return Sender("PUT", target, signed(target, body, key) | {"Content-Length": str(len(body))}, body)


@pytest.fixture
def node() -> TestNode:
    with transaction.atomic():
        found = register(1)
        found.bid()
    return found


@pytest.fixture
def work(node: TestNode, settings: Settings) -> tuple[TestNode, str, bytes]:
    """A node whose trained work is committed, and where to upload it. Its lease outlives a busy machine's pauses."""
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"lease_seconds": 600, "offline_seconds": 600})
    with transaction.atomic():
        rounds.open_round(job_id=started(fund(spec={"rounds": {"rounds": 1, "nodes": 1, "quorum": 1}})).pk)
    leased = lease(node)
    data = train(leased)
    assert commit(node, leased, data).status_code == 200
    return node, path(leased, f"artifact?fence={leased['fence']}"), data


@pytest.mark.parametrize("target", UPLOADS)
@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("nobody", "request.unsigned"), ("a stranger", "node.unknown_key"), ("a forger", "request.wrong_key"),
        ("a node without work", ".unknown"), ("a node elsewhere", "request.invalid"),
    ],
)  # fmt: skip
def test_a_strangers_body_is_not_received(node: TestNode, target: str, who: str, code: str) -> None:
    target, body = "/agent/v1/" + target, bytes(3 * 2**20)
    own, others = signed(target, body, node.hot.key), signed(target, body, wallet("stranger").key)
    headers = {
        "nobody": {}, "a stranger": others, "a forger": others | {HEADER_KEY: node.hot.address}, "a node without work": own,
        "a node elsewhere": own | {"Host": "elsewhere.example"},
    }[who]  # fmt: skip
    sender = Sender("PUT", target, headers, body)
    status, error = asyncio.run(sender.answer())
    assert status in (401, 404)
    assert error["code"].endswith(code)
    assert sender.taken == 0


def test_a_data_set_of_nobody_is_not_received() -> None:
    sender = Sender("POST", "/api/v1/datasets", {}, bytes(3 * 2**20))
    status, error = asyncio.run(sender.answer())
    assert (status, error["code"], sender.taken) == (401, "auth.required", 0)


def data_set(body: bytes, *, announced: int | None = None) -> Sender:
    """Of a wallet that is signed in."""
    client, token = Client(), "a" * 32
    client.force_login(Account.objects.get_or_create(address=wallet("requester").address)[0])
    headers = {"Cookie": f"sessionid={client.cookies['sessionid'].value}; csrftoken={token}", "X-CSRFToken": token}
    length = {} if announced is None else {"Content-Length": str(announced)}
    return Sender("POST", "/api/v1/datasets", headers | length, body)


def test_a_data_set_of_who_is_signed_in_is_stored() -> None:
    body = bytes(3 * 2**20)
    sender = data_set(body)
    assert asyncio.run(sender.answer()) == (201, {"sha256": sha256_hex(body), "size": len(body)})
    assert sender.taken == len(body)


def test_data_sets_that_no_job_pays_for_are_bounded(settings: Settings) -> None:
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"max_body_bytes": 1000})
    for name in range(MOST_UNUSED):
        body = bytes([name]) * 900
        assert asyncio.run(data_set(body).answer()) == (201, {"sha256": sha256_hex(body), "size": 900})
    status, error = asyncio.run(data_set(bytes(900), announced=900).answer())
    assert (status, error["code"], error["data"]["room"]) == (429, "dataset.too_many", 100 * MOST_UNUSED)
    more = data_set(bytes(900))
    status, error = asyncio.run(more.answer())
    assert (status, error["code"]) == (413, "artifact.too_large")
    files = {"text": sha256_hex(bytes([1]) * 900)}
    Job.objects.create(
        requester=wallet("requester").address, spec={"data": {"files": files}}, state=Job.State.FUNDED, escrow=1, max_rate=1
    )
    assert asyncio.run(data_set(b"x" * 900, announced=900).answer())[0] == 201


def test_the_last_of_the_disk_is_for_jobs(settings: Settings) -> None:
    settings.HYPERGPU = settings.HYPERGPU.model_copy(update={"least_free_bytes": 2**62})
    sender = data_set(bytes(900))
    status, error = asyncio.run(sender.answer())
    assert (status, error["code"], sender.taken) == (503, "disk.low", 0)


def test_committed_work_is_received_once_and_no_more_than_was_committed(work: tuple[TestNode, str, bytes]) -> None:
    node, target, data = work
    more = put(target, data + b"!", node.hot.key)
    status, error = asyncio.run(more.answer())
    assert (status, error["code"], more.taken) == (413, "artifact.too_large", 0)
    sender = put(target, data, node.hot.key)
    assert asyncio.run(sender.answer()) == (200, {"sha256": sha256_hex(data), "size": len(data)})
    assert store.read(sha256_hex(data)) == data
    again = Sender("PUT", target, {}, data)
    again.scope["headers"] = sender.scope["headers"]
    status, error = asyncio.run(again.answer())
    assert (status, error["code"], again.taken) == (401, "request.replayed", 0)


def test_what_nobody_takes_any_more_is_not_received(work: tuple[TestNode, str, bytes]) -> None:
    node, target, data = work
    Assignment.objects.update(state=Assignment.State.EXPIRED)
    sender = put(target, data, node.hot.key)
    status, error = asyncio.run(sender.answer())
    assert (status, error["code"], sender.taken) == (409, "lease.expired", 0)


def test_who_has_many_uploads_under_way_waits(work: tuple[TestNode, str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a place until its body has come."""
    monkeypatch.setattr(body_limit, "MOST_AT_ONCE", 2)
    node, target, data = work

    async def three() -> None:
        slow = [put(target, data, node.hot.key) for _ in range(2)]
        for sender in slow:
            sender.may_end.clear()
        under_way = [asyncio.create_task(sender.answer()) for sender in slow]
        while not all(sender.taken for sender in slow):
            await asyncio.sleep(0)
        third = put(target, data, node.hot.key)
        status, error = await third.answer()
        assert (status, error["code"], third.taken) == (429, "upload.too_many", 0)
        for sender in slow:
            sender.may_end.set()
        assert {status for status, _ in await asyncio.gather(*under_way)} == {200}
        assert (await put(target, data, node.hot.key).answer())[0] == 200

    asyncio.run(three())
