"""A coordinator that plays the agent API from memory, checks every signature, and can be told to misbehave or to be down."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from eth_account import Account

from trainer.network.erasure import rebuild
from trainer.network.transfers import piece_size
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.eip712 import Domain, recover
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import Origin, WorkOrder, order_seed, sign_order
from trainer.protocol.requests import HEADER_BODY, HEADER_KEY, HEADER_NONCE, verify_request
from trainer.protocol.spec import JobSpec
from trainer.protocol.types import Receipt

DOMAIN = Domain(chain_id=31337, contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
OPERATOR = Account.from_key("0x" + "11" * 32).address
NODE_ID = 7
COORDINATOR_KEY = "0x" + "22" * 32
STATUS = {"lease": 409, "node": 401, "request": 401, "signature": 401, "assignment": 404}


@dataclass(frozen=True)
class Version:
    """A model version and how to get there: see WorkOrder."""

    base: str
    checkpoint: str
    parent: str | None = None
    delta: str | None = None


class Slot:
    """One assignment as the coordinator sees it. `cancel` and `stale` (from now, or from a verb on) change its answers; a slot
    that is `carried_into` another has missed its round's close."""

    def __init__(
        self, number: int, spec: JobSpec, version: Version, *, round: int, job_id: int = 1, key: str = COORDINATOR_KEY,
        missed: Sequence[dict[str, Any]] = (),
    ) -> None:  # fmt: skip
        self.id, self.spec, self.version, self.round, self.job_id, self.key = number, spec, version, round, job_id, key
        self.fence = 0
        self.is_over = self.cancel = self.stale = False
        self.stale_at: str | None = None
        self.heartbeats: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.committed: dict[str, Any] | None = None
        self.artifact: bytes | None = None
        self.pieces: dict[int, bytes] = {}
        self.numbers: list[int] = []
        self.queries: list[str] = []
        self.receipt: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None
        self.origin: Origin | None = None
        self.missed = list(missed)
        self.carried_into: Slot | None = None

    @property
    def step(self) -> int:
        return self.heartbeats[-1]["step"] if self.heartbeats else 0

    def lease(self) -> dict[str, Any]:
        self.fence += 1
        began = self.origin.round if self.origin else self.round
        order = WorkOrder(
            job_id=self.job_id, round=self.round, node_id=NODE_ID, fence=self.fence, deadline=int(time.time()) + 60, shard=0,
            shards=4, seed=order_seed(self.spec, began, 0), steps=self.spec.inner.steps, origin=self.origin,
            encoding=self.spec.encoding, spec=self.spec, **asdict(self.version),
        )  # fmt: skip
        signed = sign_order(DOMAIN, order, self.key).as_json()
        missed = {"steps": self.missed} if self.missed else {}
        return {"assignment_id": self.id, "fence": self.fence, "lease_seconds": 10, **signed, **missed}


class FakeCoordinator:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.blobs: dict[str, bytes] = {}
        self.served: list[str] = []
        self.audits: list[dict[str, Any]] = []
        self.evidence: dict[int, bytes] = {}
        self.shown_pieces: dict[int, dict[int, bytes]] = {}
        self.slots: dict[int, Slot] = {}
        self.registered: dict[str, int] = {}
        self.measurements: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.hellos: list[dict[str, Any]] = []
        self.nonces: set[str] = set()
        self.numbers = itertools.count(1)
        self.server: Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.coordinator = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """As a killed web server: open connections break, new ones are refused."""
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.server.connections):
            connection.close()
        self.server = None

    def put(self, data: bytes) -> str:
        sha256 = sha256_hex(data)
        self.blobs[sha256] = data
        return sha256

    def offer(self, spec: JobSpec, version: Version, **options: Any) -> Slot:
        with self.changed:
            number = next(self.numbers)
            slot = self.slots[number] = Slot(number, spec, version, round=options.pop("round", number), **options)
            self.changed.notify_all()
        return slot

    def until(self, fact: Callable[[], Any], *, seconds: float = 120) -> Any:
        """Wait for a fact about what the agent did."""
        with self.changed:
            assert self.changed.wait_for(fact, timeout=seconds), "the agent did not do it in time"
            return fact()

    # The API. Each runs under the lock and returns (status, JSON or bytes).

    def hello(self, node: int, body: dict[str, Any]) -> tuple[int, Any]:
        self.hellos.append(body)
        domain = {"chain_id": DOMAIN.chain_id, "contract": DOMAIN.contract}
        return 200, {
            "node_id": node, "operator": OPERATOR, "coordinator": Account.from_key(COORDINATOR_KEY).address, "domain": domain,
            "server_time": int(time.time()), "heartbeat_seconds": 0.3, "max_artifact_bytes": 2**24,
        }  # fmt: skip

    def next_lease(self) -> tuple[int, Any]:
        def waiting() -> tuple[Slot | None, list[dict[str, Any]]]:
            audits = [audit for audit in self.audits if audit["audit_id"] not in self.evidence]
            return next((slot for slot in self.slots.values() if not slot.is_over), None), audits

        self.changed.wait_for(lambda: any(waiting()), timeout=2)
        slot, audits = waiting()
        if slot is None and not audits:
            return 204, None
        return 200, ({"audits": audits} if audits else {}) | (slot.lease() if slot else {})

    def heartbeat(self, slot: Slot, body: dict[str, Any]) -> tuple[int, Any]:
        slot.heartbeats.append(body)
        if slot.carried_into is not None:
            slot.is_over = True
            return 200, {"cancel": False, "lease_seconds": 10, "deadline_seconds": 60, "lease": slot.carried_into.lease()}
        if slot.cancel:
            slot.is_over = True
        reason = "the round is closed" if slot.cancel else None
        return 200, {"cancel": slot.cancel, "reason": reason, "lease_seconds": 10, "deadline_seconds": 60}

    def commit(self, slot: Slot, body: dict[str, Any]) -> tuple[int, Any]:
        slot.committed = body
        return 200, {"upload": f"/agent/v1/assignments/{slot.id}/artifact?fence={slot.fence}"}

    def piece(self, slot: Slot, count: int, number: int | None, body: bytes) -> tuple[int, Any]:
        """Any `count` of the pieces make the artifact."""
        assert slot.committed is not None
        if number is None:
            return 200, {"held": sorted(slot.pieces), "whole": slot.artifact is not None}
        size = slot.committed["size"]
        slot.pieces[number] = body
        slot.numbers.append(number)
        if len(slot.pieces) >= count and slot.artifact is None:
            each = piece_size(size, count)
            joined = b"".join(rebuild({key: data.ljust(each, b"\0") for key, data in slot.pieces.items()}, count))[:size]
            assert sha256_hex(joined) == slot.committed["sha256"]
            slot.artifact = joined
        return 200, {"whole": slot.artifact is not None}

    def shown(self, audit: int, path: list[str], query: str, body: bytes) -> tuple[int, Any]:
        """Evidence, in one request or in pieces."""
        if path[0] == "evidence":
            self.evidence[audit] = body
            return 200, {}
        held = self.shown_pieces.setdefault(audit, {})
        if path[2:]:
            held[int(path[2])] = body
        if whole := len(held) == int(path[1]):
            self.evidence[audit] = b"".join(held[number] for number in sorted(held))
            assert sha256_hex(self.evidence[audit]) == parse_qs(query)["sha256"][0]
        return 200, {"held": sorted(held), "whole": whole}

    def take_receipt(self, slot: Slot, body: dict[str, Any]) -> tuple[int, Any]:
        receipt = Receipt(**body["receipt"])
        if self.registered.get(recover(DOMAIN, receipt, body["signature"])) != receipt.node_id:
            raise HyperGPUError("receipt.wrong_signature", "Not signed by the node's hot key.")
        if slot.carried_into is not None:
            raise HyperGPUError("order.late", "The round has closed.")
        slot.receipt, slot.is_over = body, True
        return 200, {"contribution_id": slot.id, "state": "received"}

    def fail(self, slot: Slot, body: dict[str, Any]) -> tuple[int, Any]:
        slot.failure, slot.is_over = body, True
        return 200, {}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    coordinator: FakeCoordinator

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[Handler] = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self)

    def finish(self) -> None:
        self.server.connections.discard(self)
        super().finish()

    def close(self) -> None:
        self.connection.shutdown(2)

    def log_message(self, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    do_PUT = do_POST

    def answer(self, body: bytes) -> None:
        try:
            with self.server.coordinator.changed:
                status, value = self.route(body)
                self.server.coordinator.changed.notify_all()
        except HyperGPUError as error:
            status, value = STATUS.get(error.code.split(".")[0], 422), error.as_json()
        content = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        try:
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes 0-0/{self.total}")  # only the total is looked at
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def route(self, body: bytes) -> tuple[int, Any]:
        world = self.server.coordinator
        path, _, query = self.path.partition("?")
        if path.startswith("/api/v1/"):
            return self.public(path, query)
        if path == "/agent/v1/ping":
            return 204, None
        node = self.authenticated(path, query, body)
        parts = path.strip("/").split("/")[2:]
        if parts == ["hello"]:
            return world.hello(node, json.loads(body))
        if parts == ["leases"]:
            world.told.append(json.loads(body).get("link", {}))
            return world.next_lease()
        if parts[0] == "artifacts":
            world.served.append(parts[1])
            return self.blob(world.blobs[parts[1]])
        if parts[0] == "audits":
            return world.shown(int(parts[1]), parts[2:], query, body)
        slot, verb = world.slots[int(parts[1])], parts[2]
        body, _, artifact = body.partition(b"\n") if verb == "contribution" else (body, b"", b"")
        fence = int(parse_qs(query)["fence"][0]) if verb in ("artifact", "pieces") else json.loads(body)["fence"]
        slot.calls.append(verb)
        if verb in ("artifact", "pieces"):
            slot.queries.append(query)
        slot.stale = slot.stale or verb == slot.stale_at
        if slot.stale or fence != slot.fence:
            slot.is_over = slot.is_over or slot.stale
            raise HyperGPUError("lease.stale_fence", "Another lease took this slot; ask for work again.")
        if verb == "artifact":
            if slot.committed is None or sha256_hex(body) != slot.committed["sha256"]:
                raise HyperGPUError("artifact.hash_mismatch", "Not what was committed.")
            slot.artifact = body
            return 200, {"sha256": sha256_hex(body), "size": len(body)}
        if verb == "pieces":
            return world.piece(slot, int(parts[3]), int(parts[4]) if parts[4:] else None, body)
        if verb == "contribution":
            slot.committed, slot.artifact = {"sha256": sha256_hex(artifact), "size": len(artifact)}, artifact
            status, answer = world.take_receipt(slot, json.loads(body))
            return status, answer | {"seconds": 0.0}
        verbs = {"heartbeat": world.heartbeat, "commit": world.commit, "receipt": world.take_receipt, "fail": world.fail}
        return verbs[verb](slot, json.loads(body))

    def authenticated(self, path: str, query: str, body: bytes) -> int:
        world = self.server.coordinator
        signed = verify_request(
            method=self.command, path=path, query=query, audience=self.headers["Host"], headers=self.headers, now=int(time.time())
        )  # type: ignore[arg-type]
        if sha256_hex(body) != self.headers[HEADER_BODY] or signed.nonce in world.nonces:
            raise HyperGPUError("request.replayed", f"The body or the nonce {self.headers[HEADER_NONCE]} is not fresh.")
        world.nonces.add(signed.nonce)
        if self.headers[HEADER_KEY] not in world.registered:
            raise HyperGPUError("node.unknown_key", "No node is registered with this hot key yet.")
        return world.registered[self.headers[HEADER_KEY]]

    def blob(self, data: bytes) -> tuple[int, Any]:
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            self.total = len(data)
            return 206, data[int(first) : int(last) + 1 if last else None]
        return 200, data

    def public(self, path: str, query: str) -> tuple[int, Any]:
        world = self.server.coordinator
        if path == "/api/v1/network":
            coordinator = Account.from_key(COORDINATOR_KEY).address
            return 200, {"coordinator": coordinator, "chain": {"id": DOMAIN.chain_id}, "contracts": {"market": DOMAIN.contract}}
        if path.endswith("/measurements"):
            return 200, {"measurements": world.measurements}
        node = world.registered.get(parse_qs(query)["hot_key"][0])
        return 200, {"nodes": [] if node is None else [{"id": node, "operator": OPERATOR}]}
