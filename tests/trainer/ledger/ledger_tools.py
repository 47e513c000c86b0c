"""A chain that was read once and can be told again, truly or with one thing changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.market import LocalMarket
from trainer.ledger.history import read_history
from trainer.ledger.report import Report
from trainer.ledger.rpc import Rpc
from trainer.ledger.verify import verify

Change = Callable[[str, list[Any], Any], Any]
"""Given the method, its parameters and the true answer: the answer to give."""


def truth(method: str, params: list[Any], answer: Any) -> Any:
    return answer


class Between(httpx.BaseTransport):
    """Stands between a reader and a node, and may change what the node says."""

    def __init__(self, answer: Callable[[str, list[Any]], Any], change: Change = truth) -> None:
        self.answer, self.change = answer, change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        replies = [self.reply(call) for call in asked]
        return httpx.Response(200, json=replies)

    def reply(self, call: dict[str, Any]) -> dict[str, Any]:
        method, params = call["method"], call["params"]
        return {"jsonrpc": "2.0", "id": call["id"], "result": self.change(method, params, self.answer(method, params))}


@dataclass
class Recorder:
    """The answers of one whole verification of `job_id`."""

    market: str
    job_id: int
    answers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, market: LocalMarket, job_id: int) -> Recorder:
        recorder = cls(market.address, job_id)

        def keep(method: str, params: list[Any]) -> Any:
            recorder.answers[json.dumps([method, params])] = answer = market.ask(method, *params)
            return answer

        read(Rpc("http://node", transport=Between(keep)), market.address, job_id)
        return recorder

    def verified(self, change: Change = truth) -> Report:
        """The report of a reader to whom the recorded chain is told with `change`."""
        told = Between(lambda method, params: copy.deepcopy(self.answers[json.dumps([method, params])]), change)
        return read(Rpc("http://node", transport=told), self.market, self.job_id)


def read(rpc: Rpc, market: str, job_id: int) -> Report:
    return verify(read_history(rpc, market, job_id, first=None, step=lambda name: lambda done, total: None))
