"""Ethereum JSON-RPC, as much of it as starting a chain takes; everything else goes through web3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx


def batch(url: str, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
    """Results in the order of `calls`. Raises RuntimeError with the first error."""
    body = [{"jsonrpc": "2.0", "id": number, "method": name, "params": params} for number, (name, params) in enumerate(calls)]
    answers = sorted(httpx.post(url, json=body, timeout=10).raise_for_status().json(), key=lambda answer: answer["id"])
    for answer in answers:
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
    return [answer["result"] for answer in answers]


def answers(url: str) -> bool:
    try:
        return bool(batch(url, [("eth_chainId", [])]))
    except (httpx.HTTPError, RuntimeError):
        return False
