"""A stranger settles a round: from the public bundle alone, checked before any gas is paid."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from eth_account import Account
from typer.testing import CliRunner

from tests.support.market import LocalMarket, LocalNode
from trainer.cli import app
from trainer.ledger.abi import hexed, unhex
from trainer.ledger.batches import Batch
from trainer.ledger.keys import KEY_VARIABLE, load_key
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.chain


@pytest.fixture
def stranger(market: LocalMarket) -> str:
    """Key of somebody with gas and nothing else."""
    return market.anvil.new_wallet()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.ledger.sending.POLL_SECONDS", 0.02)


@pytest.fixture
def job(market: LocalMarket) -> tuple[int, list[LocalNode]]:
    job_id = market.post_job(escrow=10_000)
    nodes = [market.register(f"node {index} for a stranger in job {job_id}") for index in range(2)]
    for node in nodes:
        market.take_seat(job_id, node, rate=2)
    return job_id, nodes


def two_batches(market: LocalMarket, job: tuple[int, list[LocalNode]]) -> list[Batch]:
    job_id, [one, two] = job
    return [
        market.batch(job_id, {one: 100}, [[9_000], [9_500], [10_000]], last=False),
        market.batch(job_id, {two: 200}, [[5_000], [6_000], None], batch=1),
    ]


def published(market: LocalMarket, batches: list[Batch]) -> dict[str, Any]:
    """What the coordinator gives out at /api/v1/jobs/<id>/rounds/<n>/settlement."""
    head = batches[0].header
    names = {"jobId": "job_id", "round": "round", "batch": "batch", "last": "last", "epoch": "epoch", "base": "base"}
    return {
        "chain_id": market.domain.chain_id, "market": market.address, "job_id": head.job_id, "round": head.round,
        "batches": [
            {
                "header": {name: getattr(batch.header, ours) for name, ours in (names | {"evidence": "evidence"}).items()},
                "receipts": hexed(batch.receipts),
                "attestations": [
                    {
                        "member": part.member, "salt": hexed(part.salt), "scores": hexed(part.scores),
                        "signature": hexed(part.signature),
                    }
                    for part in batch.attestations
                ],
            }
            for batch in batches
        ],
    }  # fmt: skip


@pytest.fixture
def settle(market: LocalMarket, stranger: str, tmp_path: Path) -> Callable[..., Any]:
    """`hypergpu settle` with the bundle in a file; the stranger's key in the environment."""

    def run(job_id: int, round: int, bundle: dict[str, Any], *more: str) -> Any:
        file = tmp_path / "bundle.json"
        file.write_text(json.dumps(bundle))
        at = ("--rpc", market.anvil.url, "--contract", market.address, "--bundle", str(file))
        with market.blocks_going_on():
            return CliRunner().invoke(app, ["settle", str(job_id), str(round), *at, *more], env={KEY_VARIABLE: stranger})

    return run


def test_given_attested_batches_then_a_stranger_settles_them_and_again_is_no_harm(market, job, settle) -> None:
    bundle = published(market, two_batches(market, job))
    result = settle(job[0], 0, bundle)
    assert result.exit_code == 0, result.output
    assert f"node {job[1][0].id}: 100 units at quality 0.9500, 190 base units" in result.stdout
    assert f"node {job[1][1].id}: 200 units at quality 0.5000, 200 base units" in result.stdout
    stored = market.view("getJob", job[0])
    assert (stored["round"], stored["spent"]) == (1, 390)
    again = settle(job[0], 0, bundle)
    assert again.exit_code == 0 and "settled already" in again.stdout
    assert market.view("getJob", job[0])["spent"] == 390


def test_given_a_half_settled_round_then_only_what_is_left_is_sent(market, job, settle) -> None:
    batches = two_batches(market, job)
    market.settle(batches[0])
    result = settle(job[0], 0, published(market, batches))
    assert result.exit_code == 0, result.output
    assert "Batch 0" not in result.stdout and "Batch 1 is final" in result.stdout
    assert market.view("getJob", job[0])["round"] == 1


def test_given_a_dry_run_then_nothing_is_sent(market, job, settle, stranger) -> None:
    result = settle(job[0], 0, published(market, two_batches(market, job)), "--dry-run")
    assert result.exit_code == 0 and "It would settle" in result.stdout, result.output
    assert market.view("getJob", job[0])["batch"] == 0
    assert market.anvil.transactions_of(Account.from_key(stranger).address) == 0


def flipped(text: str, at: int) -> str:
    raw = bytearray(unhex(text))
    raw[at] ^= 1
    return hexed(bytes(raw))


def of_batch(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda bundle: change(bundle["batches"][0])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_batch(lambda b: b.update(receipts=flipped(b["receipts"], 11))), "receipt is signed by"),
        (of_batch(lambda b: b.update(receipts=b["receipts"][:-2])), "not whole receipts"),
        (of_batch(lambda b: b["header"].update(evidence="0x" + "00" * 32)), "did not sign these scores"),
        (of_batch(lambda b: b["header"].update(last=True)), "did not sign these scores"),
        (of_batch(lambda b: b["header"].update(epoch=99)), "Epoch 99"),
        (of_batch(lambda b: b["attestations"][0].update(scores="0x2710")), "did not sign these scores"),
        (of_batch(lambda b: b.update(attestations=b["attestations"][:1])), "1 attestors opened, 2 are needed"),
        (of_batch(lambda b: b["attestations"].reverse()), "not increasing members"),
        (lambda bundle: bundle["batches"].reverse(), "is next, not"),
        (lambda bundle: bundle.update(chain_id=1), "not for"),
        (lambda bundle: bundle.update(round=1), "another job or round"),
        (lambda bundle: bundle.pop("market"), "no settlement bundle"),
    ],
)
def test_given_a_bundle_that_is_not_good_then_it_is_refused_before_gas_is_paid(market, job, settle, stranger, spoil, words):
    bundle = copy.deepcopy(published(market, two_batches(market, job)))
    spoil(bundle)
    result = settle(job[0], 0, bundle)
    assert result.exit_code == 1 and words in result.stderr, result.output
    assert market.anvil.transactions_of(Account.from_key(stranger).address) == 0


def test_given_another_round_or_job_than_asked_then_the_bundle_is_not_used(market, job, settle) -> None:
    bundle = published(market, two_batches(market, job))
    assert "not of round 3" in settle(job[0], 3, bundle).stderr
    assert f"not of round 0 of job {job[0] + 1}" in settle(job[0] + 1, 0, bundle).stderr


def test_given_the_round_before_is_open_then_it_comes_first(market, job, settle) -> None:
    later = market.batch(job[0], {job[1][0]: 1}, [[1], [1], [1]], round=1)
    assert "settle round 0 first" in settle(job[0], 1, published(market, [later])).stderr


def test_given_a_replaced_key_then_its_receipts_settle_for_a_day_and_no_longer(market, job, settle) -> None:
    bundle = published(market, two_batches(market, job))
    market.replace_key(job[1][0], f"new key in job {job[0]}")
    assert settle(job[0], 0, bundle, "--dry-run").exit_code == 0
    market.pass_time(86_401)
    assert "not by a hot key that was good" in settle(job[0], 0, bundle, "--dry-run").stderr


class Coordinator(BaseHTTPRequestHandler):
    """Gives out one bundle at the coordinator's address of it."""

    def do_GET(self) -> None:
        found = self.path == "/api/v1/jobs/77/rounds/0/settlement"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.bundle if found else {"message": "There is no such round."}).encode())  # type: ignore[attr-defined]

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def coordinator(market, job) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Coordinator)
    server.bundle = published(market, two_batches(market, job))  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_given_a_coordinator_then_its_job_number_is_enough(market, job, coordinator, stranger) -> None:
    at = ["--rpc", market.anvil.url, "--contract", market.address, "--coordinator", coordinator]
    with market.blocks_going_on():
        result = CliRunner().invoke(app, ["settle", "77", "0", *at], env={KEY_VARIABLE: stranger})
    assert result.exit_code == 0 and f"Round 0 of job {job[0]} is settled" in result.stdout, result.output
    unknown = CliRunner().invoke(app, ["settle", "78", "0", *at], env={KEY_VARIABLE: stranger})
    assert unknown.exit_code == 1 and "no attested batches of job 78, round 0: There is no such round." in unknown.stderr


def key_of(**changes: Any) -> Any:
    arguments = {"chain_id": 31337, "keystore": None, "password_file": None, "environment": {}, "ask": lambda prompt: "secret"}
    return load_key(**(arguments | changes))


def test_a_key_comes_from_a_keystore_or_where_no_money_is_real_from_the_environment(tmp_path: Path) -> None:
    account = Account.create()
    keystore, password = tmp_path / "key.json", tmp_path / "password"
    keystore.write_text(json.dumps(Account.encrypt(account.key, "secret", kdf="pbkdf2", iterations=2)))
    password.write_text("secret\n")
    environment = {KEY_VARIABLE: "0x" + bytes(account.key).hex()}
    assert key_of(keystore=keystore).address == account.address
    assert key_of(keystore=keystore, password_file=password, chain_id=143).address == account.address
    assert key_of(environment=environment).address == account.address
    for changes, code in (
        ({}, "key.missing"),
        ({"environment": environment, "chain_id": 143}, "key.plain"),
        ({"environment": {KEY_VARIABLE: "0x12"}}, "key.malformed"),
        ({"keystore": password}, "key.malformed"),
        ({"keystore": keystore, "ask": lambda prompt: "wrong"}, "key.locked"),
    ):
        with pytest.raises(HyperGPUError) as refusal:
            key_of(**changes)
        assert refusal.value.code == code
        assert environment[KEY_VARIABLE] not in str(refusal.value)
