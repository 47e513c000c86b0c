"""A verification that passes on the true chain, and on no other: one unit, one byte or one event changed, and it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ledger_tools import Change, Recorder, read
from typer.testing import CliRunner

from tests.support.market import LocalMarket, account, busy_job
from trainer.cli import app
from trainer.ledger.abi import OF_CASES, OF_JOBS, OF_SIGNERS, VIEW, unhex
from trainer.ledger.batches import Attestation, Batch, batches_of_calldata
from trainer.ledger.rpc import Rpc
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.chain
TOPICS = {event.name: topic for topic, event in (OF_JOBS | OF_CASES | OF_SIGNERS).items()}
PAID = [(0, 1, 1804), (0, 2, 2563), (0, 3, 154), (1, 1, 24), (1, 2, 64), (2, 1, 899), (2, 2, 1202), (2, 3, 1507)]
"""units * rate * lower median / 10,000 by hand: 640 * 3 * 0.94, 641 * 4 * 0.9999, 77 * 5 * 0.4, ..."""


def test_given_the_true_chain_then_every_payment_is_proven_to_the_unit(recorded: Recorder) -> None:
    report = recorded.verified()
    assert report.findings == ()
    assert [(row.round, row.amount) for row in report.rows] == [(round, amount) for round, _, amount in PAID]
    assert [row.node_id - report.rows[0].node_id + 1 for row in report.rows] == [node for _, node, _ in PAID]
    assert report.sums == {"credited": 8217, "awarded": 84, "restored": 650, "refunded": 150_000 - 7651}
    assert (report.rounds, report.batches, report.escrow, report.spent, report.closed) == (4, 5, 150_000, 7651, True)


def test_given_a_job_in_the_middle_of_a_round_then_it_is_proven_as_far_as_it_is(market: LocalMarket) -> None:
    job = market.post_job(escrow=10_000)
    nodes = [market.register(f"half {index}") for index in range(2)]
    for node in nodes:
        market.take_seat(job, node, rate=2)
    market.record(job, 0, nodes[1], 500)
    market.settle(market.batch(job, {nodes[0]: 100}, [[10_000]] * 3, last=False))
    market.anvil.mine(3)
    report = read(Rpc(market.anvil.url), market.address, job)
    assert report.findings == ()
    assert (report.spent, report.reserved, report.rounds, report.batches) == (200, 1_000, 0, 1)


# What an event, a view or a transaction says, changed.


def event(name: str, change: Callable[[dict[str, Any]], None], *, nth: int = 0) -> Change:
    """Changes the nth log of an event in place."""

    def changed(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getLogs":
            for log in [log for log in answer if log["topics"][0] == TOPICS[name]][nth : nth + 1]:
                change(log)
        return answer

    return changed


def word(index: int, by: int = 1) -> Callable[[dict[str, Any]], None]:
    """Adds to the index-th word of a log's data."""

    def change(log: dict[str, Any]) -> None:
        data = bytearray(unhex(log["data"]))
        at = slice(32 * index, 32 * index + 32)
        data[at] = (int.from_bytes(data[at], "big") + by).to_bytes(32, "big")
        log["data"] = "0x" + data.hex()

    return change


def topic(index: int, value: int) -> Callable[[dict[str, Any]], None]:
    def change(log: dict[str, Any]) -> None:
        log["topics"][index] = "0x" + value.to_bytes(32, "big").hex()

    return change


def without(name: str, *, nth: int = 0) -> Change:
    """One event kept back."""

    def changed(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getLogs":
            for log in [log for log in answer if log["topics"][0] == TOPICS[name]][nth : nth + 1]:
                answer.remove(log)
        return answer

    return changed


def twice(name: str) -> Change:
    """One event told twice."""

    def changed(method: str, params: list[Any], answer: Any) -> Any:
        found = [log for log in answer if log["topics"][0] == TOPICS[name]] if method == "eth_getLogs" else []
        return answer + found[:1] if found else answer

    return changed


def view(name: str, index: int, by: int = 1) -> Change:
    """Adds to the index-th word of a view's answer."""
    selector = VIEW[name].call(*[0] * len(VIEW[name].inputs))[:10]

    def changed(method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_call" or not params[0]["data"].startswith(selector):
            return answer
        log = {"data": answer}
        word(index, by)(log)
        return log["data"]

    return changed


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (event("ContributionSettled", word(0)), "units.differs"),
        (event("ContributionSettled", word(1)), "quality.differs"),
        (event("ContributionSettled", word(2)), "amount.differs"),
        (event("ContributionSettled", word(3)), "artifact.differs"),
        (event("ContributionSettled", topic(3, 99)), "nodes.differs"),
        (event("ContributionSettled", topic(2, 9)), "round.differs"),
        (event("RoundSettled", word(0)), "batch.unproven"),
        (event("RoundSettled", topic(2, 9)), "batch.unproven"),
        (event("RoundSettled", word(1)), "last.differs"),
        (event("RoundSettled", word(2)), "base.differs"),
        (event("RoundSettled", word(3)), "receipts.differs"),
        (event("RoundSettled", word(4)), "total.differs"),
        (event("RoundSettled", word(5)), "evidence.differs"),
        (event("RoundSettled", word(6)), "epoch.differs"),
        (event("RoundSettled", word(7)), "attestors.differs"),
        (event("JobCreated", word(0)), "escrow.differs"),
        (event("JobFunded", word(0)), "escrow.differs"),
        (event("BidTaken", word(0)), "amount.differs"),
        (event("BidTaken", word(1, by=-9_999)), "market.rule"),
        (event("JobClosed", word(0)), "rounds.differs"),
        (event("JobClosed", word(1)), "spent.differs"),
        (event("JobClosed", word(2)), "refund.differs"),
        (event("CreditAwarded", word(1)), "spent.differs"),
        (event("CreditAwarded", word(1, by=85)), "award.too_much"),
        (event("NodeSlashed", word(4)), "taken.differs"),
        (event("NodeSlashed", word(6, by=1)), "slash.split"),
        (event("NodeRegistered", topic(3, 7)), "receipt.signature"),
        (event("NodeRegistered", word(0, by=-(2**33) + 1)), "receipt.signature"),
        (event("HotKeyDelegated", topic(2, 7)), "receipt.signature"),
        (event("EpochBegun", word(3)), "attestor.signature"),
        (event("EpochBegun", word(1)), "attestors.quorum"),
        (without("ContributionSettled"), "nodes.differs"),
        (without("RoundSettled", nth=4), "round.differs"),
        (without("RoundSettled", nth=1), "market.rule"),
        (without("BidTaken"), "market.rule"),
        (without("JobFunded"), "escrow.differs"),
        (without("ContributionRecorded", nth=1), "market.rule"),
        (without("RecordLapsed"), "market.rule"),
        (without("NodeRegistered"), "receipt.signature"),
        (without("EpochBegun"), "epoch.not_good"),
        (without("NodeSlashed"), "spent.differs"),
        (without("CreditAwarded"), "spent.differs"),
        (without("RoundAccepted"), "accepted.differs"),
        (without("JobClosed"), "closed.differs"),
        (twice("ContributionSettled"), "paid.twice"),
        (twice("RoundSettled"), "market.rule"),
        (view("getJob", 2), "escrow.differs"),
        (view("getJob", 3), "spent.differs"),
        (view("getRound", 0, by=1 << 200), "digest.differs"),
        (view("getRound", 1), "settledAt.differs"),
    ],
)
def test_given_one_word_changed_then_it_is_found(recorded: Recorder, change: Change, code: str) -> None:
    report = recorded.verified(change)
    assert code in {finding.code for finding in report.findings}, report.findings


def calldata(tx: str, change: Callable[[bytearray], None]) -> Change:
    def changed(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getTransactionByHash" and params == [tx]:
            data = bytearray(unhex(answer["input"]))
            change(data)
            answer["input"] = "0x" + data.hex()
        return answer

    return changed


def settling(recorded: Recorder) -> dict[str, bytes]:
    """Calldata by hash of the transactions that settled the job."""
    asked = {key: answer for key, answer in recorded.answers.items() if json.loads(key)[0] == "eth_getTransactionByHash"}
    return {answer["hash"]: unhex(answer["input"]) for answer in asked.values()}


def test_given_any_byte_of_the_calldata_changed_then_it_is_found(recorded: Recorder) -> None:
    """Every 61st byte of every batch: selector, header, receipts, signatures, salts, scores, lengths and padding. But for
    what means the same to the contract, as an offset that leads to another empty list."""
    unnoticed, tried = [], 0
    for tx, data in settling(recorded).items():
        for at in range(0, len(data), 61):

            def flip(changed: bytearray, at: int = at) -> None:
                changed[at] ^= 1

            same = batches_of_calldata(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == batches_of_calldata(data)
            tried += not same
            if recorded.verified(calldata(tx, flip)).ok != same:
                unnoticed.append((tx, at))
    assert unnoticed == [] and tried > 90


def rewritten(recorded: Recorder, change: Callable[[Batch], Batch]) -> Change:
    """The first batch encoded anew, with a change that decodes well."""
    tx, data = next(iter(settling(recorded).items()))
    [batch] = batches_of_calldata(data)

    def write(content: bytearray) -> None:
        content[:] = change(batch).calldata()

    return calldata(tx, write)


def test_given_fewer_opened_attestors_than_signed_for_then_the_digest_tells(recorded: Recorder) -> None:
    def close_one(batch: Batch) -> Batch:
        first, *others = batch.attestations
        closed = Attestation(member=first.member, salt=first.salt, scores=b"", signature=b"")
        return Batch(header=batch.header, receipts=batch.receipts, attestations=(closed, *others))

    codes = {finding.code for finding in recorded.verified(rewritten(recorded, close_one)).findings}
    assert {"attestors.differs", "digest.differs", "attestor.signature"} <= codes


def test_given_receipts_in_another_order_then_the_market_would_have_refused(recorded: Recorder) -> None:
    def swap(batch: Batch) -> Batch:
        receipts = batch.receipts[109:] + batch.receipts[:109]
        return Batch(header=batch.header, receipts=receipts, attestations=batch.attestations)

    findings = recorded.verified(rewritten(recorded, swap)).findings
    assert "market.rule" in {finding.code for finding in findings}


def test_given_logs_of_another_block_then_the_node_is_not_believed(recorded: Recorder) -> None:
    def move(log: dict[str, Any]) -> None:
        log["blockHash"] = "0x" + "11" * 32

    with pytest.raises(HyperGPUError) as refusal:
        recorded.verified(event("BidTaken", move))
    assert refusal.value.code == "ledger.bad_answer"


# The command, as a stranger types it.


def hypergpu(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_given_a_true_chain_then_the_command_prints_a_table_and_exits_0(market: LocalMarket) -> None:
    job = busy_job(market)
    result = hypergpu("verify", str(job), "--rpc", market.anvil.url, "--contract", market.address)
    assert result.exit_code == 0, result.output
    assert "8 payments in 4 rounds" in result.stdout and "✔ Every payment" in result.stdout
    as_json = hypergpu("verify", str(job), "--rpc", market.anvil.url, "--contract", market.address, "--json")
    report = json.loads(as_json.stdout)
    assert report["ok"] and report["spent"] == "7651"
    assert (report["registry"], report["court"]) == (market.registry, market.court)
    assert [payment["amount"] for payment in report["payments"]] == [str(amount) for _, _, amount in PAID]


def test_given_wrong_names_then_the_command_says_which_and_exits_2(market: LocalMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.ledger.rpc.FIRST_PAUSE_SECONDS", 0)
    at, job = ("--rpc", market.anvil.url, "--contract"), str(market.post_job(escrow=1))
    market.anvil.mine(3)
    for arguments, words in (
        (("verify", job, *at, account("nobody")), "no contract"),
        (("verify", job, *at, "me"), "not an address"),
        (("verify", job, *at, market.token), "Is it a market?"),
        (("verify", "999", *at, market.address), "no job 999"),
        (("verify", job, "--rpc", "http://127.0.0.1:9", "--contract", market.address), "gives no answer"),
        (("verify", job, *at, market.address, "--from-block", str(market.now())), "earlier --from-block"),
    ):
        result = hypergpu(*arguments)
        assert result.exit_code == 2 and words in result.stderr, result.output
