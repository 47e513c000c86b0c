"""A chain node that misbehaves as real ones do, before one that does not.

with faulty_rpc(anvil.url) as node:
    node.fault = "down"                        # from now on; "" makes it well again
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.anvil import HTTP

FAULTS = {
    "down": "closes the connection without a word",
    "slow": "answers later than anyone waits",
    "short logs": "has the blocks, and leaves out the last event of each eth_getLogs",
    "old head": "lags some blocks behind, and answers silently with what it has",
    "drops transactions": "accepts them, and forgets them",
    "refuses transactions": "has a full pool",
    "duplicates": "passes each transaction on twice, and repeats each event",
}
LAG = 4
HEADS = ("latest", "pending", "safe", "finalized")


class FaultyRpc:
    """`fault` is a key of FAULTS or empty; `seen` are the methods that were asked."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault, self.seen = "", list[str]()
        self.url, self.wake = "", threading.Event()

    def ask(self, method: str, *params: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer: dict[str, Any] = HTTP.post(self.upstream, json=body).json()
        return answer

    def height(self, tag: str) -> int:
        return max(int(self.ask("eth_getBlockByNumber", tag, False)["result"]["number"], 16) - LAG, 0)

    def answers(self, body: Any) -> Any:
        """Of one request, or a batch."""
        requests = body if isinstance(body, list) else [body]
        self.seen += [request["method"] for request in requests]
        if not self.fault:
            return HTTP.post(self.upstream, json=body).json()
        answers = [{"jsonrpc": "2.0", "id": request["id"], **kept(self.answer(request))} for request in requests]
        return answers if isinstance(body, list) else answers[0]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request["params"]
        if method == "eth_sendRawTransaction" and self.fault == "drops transactions":
            return {"result": "0x" + "00" * 32}
        if method == "eth_sendRawTransaction" and self.fault == "refuses transactions":
            return {"error": {"code": -32000, "message": "Transaction pool is full"}}
        if self.fault == "old head":
            return self.old(method, params)
        answer = self.ask(method, *params)
        if method == "eth_sendRawTransaction" and self.fault == "duplicates":
            self.ask(method, *params)
        if method == "eth_getLogs" and self.fault in ("duplicates", "short logs"):
            logs = answer["result"]
            answer["result"] = logs + logs if self.fault == "duplicates" else logs[:-1]
        return answer

    def old(self, method: str, params: list[Any]) -> dict[str, Any]:
        """As a node would answer whose newest block is LAG blocks old."""
        head = self.height("latest")
        if method == "eth_blockNumber":
            return {"result": hex(head)}
        if method == "eth_getLogs":
            query = params[0]
            if int(query["fromBlock"], 16) > head:
                return {"result": []}
            return self.ask(method, {**query, "toBlock": hex(min(int(query["toBlock"], 16), head))})
        params = [hex(self.height(part)) if isinstance(part, str) and part in HEADS else part for part in params]
        if method == "eth_getBlockByNumber" and int(params[0], 16) > head:
            return {"result": None}
        answer = self.ask(method, *params)
        receipt = answer.get("result") if method == "eth_getTransactionReceipt" else None
        return {"result": None} if receipt and int(receipt["blockNumber"], 16) > head else answer


@contextmanager
def faulty_rpc(upstream: str) -> Iterator[FaultyRpc]:
    node = FaultyRpc(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if node.fault == "down":
                self.close_connection = True
                return
            if node.fault == "slow":
                node.wake.wait(1)
            data = json.dumps(node.answers(body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield node
    finally:
        node.wake.set()
        server.shutdown()
        server.server_close()


def kept(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("result", "error") if name in answer}
