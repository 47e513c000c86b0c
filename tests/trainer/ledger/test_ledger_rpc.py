"""Reading a chain through nodes as they are: they refuse wide windows, lag, forget, and stumble."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode
from ledger_tools import Between, read

from marketplace.chain import abi
from tests.support.market import LocalMarket, account, busy_job
from trainer.ledger.abi import hexed
from trainer.ledger.batches import MULTICALL_SELECTOR, Batch, Header, batches_of_calldata
from trainer.ledger.rpc import TRIES, Rpc
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.chain
ZERO = "0x" + "00" * 32


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.ledger.rpc.FIRST_PAUSE_SECONDS", 0)


@pytest.fixture(scope="module")
def job(market: LocalMarket) -> int:
    return busy_job(market)


def node(market: LocalMarket, refuse: Callable[[str, list[Any]], str | None] = lambda method, params: None) -> Rpc:
    """The real node behind one that refuses what `refuse` names a reason for."""

    class Refusing(Between):
        def reply(self, call: dict[str, Any]) -> dict[str, Any]:
            reason = refuse(call["method"], call["params"])
            if reason is None:
                return super().reply(call)
            return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32602, "message": reason}}

    return Rpc("http://node", transport=Refusing(lambda method, params: market.ask(method, *params)))


def blocks(params: list[Any]) -> int:
    return int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1


@pytest.mark.parametrize("most", [1, 7, 30])
def test_given_a_provider_with_a_limit_then_the_window_narrows_and_nothing_is_lost(market, job, most) -> None:
    asked: list[int] = []

    def refuse(method: str, params: list[Any]) -> str | None:
        if method != "eth_getLogs":
            return None
        asked.append(blocks(params))
        return f"block range greater than {most} max" if asked[-1] > most else None

    report = read(node(market, refuse), market.address, job)
    assert report.ok and len(report.rows) == 8
    assert any(width > most for width in asked), "the limit was never met"


def test_given_a_generous_provider_then_the_window_widens(market, job, monkeypatch) -> None:
    widths: list[int] = []
    monkeypatch.setattr("trainer.ledger.rpc.FIRST_WINDOW", 4)
    monkeypatch.setattr("trainer.ledger.rpc.WIDEST_WINDOW", 16)

    def watch(method: str, params: list[Any]) -> None:
        if method == "eth_getLogs":
            widths.append(blocks(params))

    assert read(node(market, watch), market.address, job).ok
    assert widths[0] == 4 and max(widths) == 16


def test_given_a_provider_that_gives_no_logs_at_all_then_its_reason_is_told(market, job) -> None:
    refuse = lambda method, params: "archive nodes only" if method == "eth_getLogs" else None  # noqa: E731
    with pytest.raises(HyperGPUError) as refusal:
        read(node(market, refuse), market.address, job)
    assert refusal.value.code == "rpc.refused" and "archive nodes only" in refusal.value.message


def test_given_a_node_without_old_states_then_reading_begins_at_block_0(market, job) -> None:
    refuse = lambda method, params: "missing trie node" if method == "eth_getCode" and params[1] < "0x3" else None  # noqa: E731
    assert node(market).first_block_of(market.address, head=market_head(market)) > 0
    assert node(market, refuse).first_block_of(market.address, head=market_head(market)) == 0


def market_head(market: LocalMarket) -> int:
    return int(market.ask("eth_blockNumber"), 16)


def test_given_the_deployment_then_bisection_finds_its_block(market) -> None:
    first = node(market).first_block_of(market.address, head=market_head(market))
    assert market.ask("eth_getCode", market.address, hex(first)) != "0x"
    assert market.ask("eth_getCode", market.address, hex(first - 1)) == "0x"


def test_given_a_node_that_lags_behind_the_one_before_then_its_short_answer_is_not_taken(market, job) -> None:
    """A load balancer: the head comes from one node, the logs from another that does not have the blocks yet."""
    told = [0]

    def lag(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "finalized":
            told[0] += 1
            if told[0] > 1:
                return {**answer, "number": hex(int(answer["number"], 16) - 1)}
        return answer

    lagging = Rpc("http://node", transport=Between(lambda method, params: market.ask(method, *params), lag))
    with pytest.raises(HyperGPUError) as refusal:
        read(lagging, market.address, job)
    assert refusal.value.code == "rpc.behind"


@pytest.mark.parametrize("stumble", [httpx.Response(429), httpx.Response(503), httpx.Response(200, text="<html>")])
def test_given_a_node_that_stumbles_then_it_is_asked_again(market, stumble) -> None:
    good = Between(lambda method, params: market.ask(method, *params))
    answers = [stumble] * (TRIES - 1)
    transport = httpx.MockTransport(lambda request: answers.pop() if answers else good.handle_request(request))
    assert Rpc("http://node", transport=transport).chain_id() == 31337


def test_given_a_node_that_answers_half_a_batch_then_that_is_no_answer(market) -> None:
    half = httpx.MockTransport(lambda request: httpx.Response(200, json=json.loads(request.content)[:-1]))
    with pytest.raises(HyperGPUError) as refusal:
        Rpc("https://user:secret@node.example/key", transport=half).read(("eth_chainId", []), ("eth_blockNumber", []))
    assert refusal.value.code == "rpc.unreachable"
    assert "node.example" in refusal.value.message and "secret" not in refusal.value.message


# Batches that do not come as a plain call of the market.


def forwarder(market: LocalMarket) -> str:
    """A contract that passes its calldata on to the market: copy, call, and revert if the call did."""
    runtime = bytes.fromhex(
        f"366000600037600060003660006000 73{market.address[2:]} 5af1 15 602d 57 00 5b 60006000fd".replace(" ", "")
    )
    runtime = runtime.replace(bytes.fromhex("602d57"), bytes([0x60, runtime.index(0x5B, 36), 0x57]))
    create = bytes([0x60, len(runtime), 0x80, 0x60, 0x0B, 0x60, 0x00, 0x39, 0x60, 0x00, 0xF3])
    return str(market.send({"from": account("anyone"), "data": hexed(create + runtime)})["contractAddress"])


@pytest.fixture
def seated(market):
    job_id = market.post_job(escrow=10_000)
    worker = market.register(f"worker of job {job_id}")
    market.take_seat(job_id, worker, rate=2)
    return job_id, worker


def test_given_a_batch_settled_through_another_contract_then_a_tracing_node_proves_it(market, seated) -> None:
    job_id, worker = seated
    market.settle(market.batch(job_id, {worker: 100}, [[9_000]] * 3), to=forwarder(market))
    market.anvil.mine(3)
    assert read(node(market), market.address, job_id).ok

    refuse = lambda method, params: "method not found" if method == "debug_traceTransaction" else None  # noqa: E731
    report = read(node(market, refuse), market.address, job_id)
    assert [finding.code for finding in report.findings] == ["batch.unproven"]
    assert [row.problems for row in report.rows] == [("batch.unproven",)]


def test_given_two_batches_in_a_multicall_of_multicalls_then_both_are_proven(market, seated) -> None:
    job_id, worker = seated
    batches = [market.batch(job_id, {worker: 100}, [[9_000]] * 3, round=round) for round in range(2)]
    calls = [hexed(batch.calldata()) for batch in batches]
    for _ in range(8):
        calls = [abi.encode_call("market", "multicall", [calls])]
    market.call("multicall", calls, sender=account("anyone"))
    market.anvil.mine(3)
    report = read(node(market), market.address, job_id)
    assert report.ok and report.batches == 2 and report.spent == 360


def test_given_a_call_nested_deeper_than_python_goes_then_it_is_read_all_the_same() -> None:
    batch = Batch(
        header=Header(job_id=1, round=0, batch=0, last=True, epoch=1, base=ZERO, evidence=ZERO), receipts=b"", attestations=()
    )
    calldata = batch.calldata()
    for _ in range(1_200):
        calldata = MULTICALL_SELECTOR + encode(["bytes[]"], [[calldata]])
    assert batches_of_calldata(calldata) == [batch]
