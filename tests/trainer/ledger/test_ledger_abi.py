"""The interface as the verification has it is the contract's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from trainer.ledger.abi import ERROR, OF_CASES, OF_JOBS, OF_SIGNERS, VIEW, Parameter
from trainer.ledger.batches import SETTLE_ROUND, SETTLE_ROUND_SELECTOR

ABI = json.loads((Path(__file__).parents[3] / "contracts" / "abi" / "ComputeMarket.json").read_text("utf-8"))["abi"]
EVENTS = OF_JOBS | OF_CASES | OF_SIGNERS


def entry(kind: str, name: str) -> dict[str, Any]:
    return next(item for item in ABI if item["type"] == kind and item["name"] == name)


def kind_of(item: dict[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    return f"({','.join(map(kind_of, item['components']))}){item['type'].removeprefix('tuple')}"


def as_declared(items: list[dict[str, Any]]) -> list[Parameter]:
    return [Parameter(kind_of(item), item["name"], item.get("indexed", False)) for item in items]


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.name)
def test_events(event: Any) -> None:
    assert list(event.parameters) == as_declared(entry("event", event.name)["inputs"])


@pytest.mark.parametrize("error", ERROR.values(), ids=lambda error: error.name)
def test_errors(error: Any) -> None:
    assert list(error.parameters) == as_declared(entry("error", error.name)["inputs"])


@pytest.mark.parametrize("view", VIEW.values(), ids=lambda view: view.name)
def test_views(view: Any) -> None:
    declared = entry("function", view.name)
    [first, *others] = outputs = declared["outputs"]
    flat = first["components"] if first["type"] == "tuple" and not others else outputs
    assert [kind_of(item) for item in declared["inputs"]] == [parameter.kind for parameter in view.inputs]
    assert [kind_of(item) for item in flat] == [parameter.kind for parameter in view.outputs]
    named = [(item["name"], parameter.name) for item, parameter in zip(flat, view.outputs, strict=True) if item["name"]]
    assert all(theirs == ours for theirs, ours in named)


def test_the_call_of_a_batch() -> None:
    inputs = [kind_of(item) for item in entry("function", "settleRound")["inputs"]]
    assert inputs == SETTLE_ROUND
    assert keccak(text=f"settleRound({','.join(inputs)})")[:4] == SETTLE_ROUND_SELECTOR


def test_every_event_of_a_jobs_money_is_read() -> None:
    """An event of the market with a job, and an amount or a payment in it, that the verification does not know would be
    money that it does not see."""
    with_job = {item["name"] for item in ABI if item["type"] == "event" and any(i["name"] == "jobId" for i in item["inputs"])}
    moves_no_money = {"JobExitRequested", "RecordHeld", "CreditReleased"}
    assert with_job - moves_no_money == {event.name for event in (OF_JOBS | OF_CASES).values()}
