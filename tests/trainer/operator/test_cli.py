"""The command line, as an operator types it."""

from __future__ import annotations

import json

import pytest
from eth_account import Account
from fake_coordinator import COORDINATOR_KEY, DOMAIN, NODE_ID, OPERATOR
from typer.testing import CliRunner

from trainer.cli import app
from trainer.operator.config import Home
from trainer.operator.pinning import read_pin
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.eip712 import recover
from trainer.protocol.types import Delegation


@pytest.fixture
def hypergpu(tmp_path, coordinator):
    def run(*arguments: str):
        return CliRunner().invoke(app, [*arguments, "--home", str(tmp_path)], env={"HYPERGPU_COORDINATOR": coordinator.url})

    return run


def test_given_no_key_then_key_makes_one_and_prints_the_same_address_from_then_on(hypergpu):
    first, second = hypergpu("agent", "key"), hypergpu("agent", "key")
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith("0x") and len(first.stdout.strip()) == 42


def test_given_a_wallet_then_delegate_prints_what_register_node_takes_and_pins_the_chain(hypergpu, tmp_path):
    result = hypergpu("agent", "delegate", "--operator", OPERATOR, "--days", "2")
    document = json.loads(result.stdout)

    said = Delegation(operator=OPERATOR, hot_key=document["hot_key"], expires_at=document["expires_at"], nonce=document["nonce"])
    assert recover(DOMAIN, said, document["registerNode"]["possession"]) == document["hot_key"]
    assert hypergpu("agent", "key").stdout.strip() == document["hot_key"]
    pin = read_pin(Home(tmp_path).pin)
    assert pin is not None and pin.coordinator == Account.from_key(COORDINATOR_KEY).address


def test_given_a_wallet_that_is_no_address_then_delegate_says_so(hypergpu):
    result = hypergpu("agent", "delegate", "--operator", "me")
    assert result.exit_code == 1
    assert "operator" in result.stderr and "Traceback" not in result.stderr


def test_given_an_unregistered_key_then_doctor_names_it_with_the_page_and_fails(hypergpu, coordinator):
    result = hypergpu("agent", "doctor")
    address = hypergpu("agent", "key").stdout.strip()

    assert result.exit_code == 1
    assert f"✘ key {address} is not registered: open {coordinator.url}/operate?hot_key={address}" in result.stdout
    assert "✔ torch" in result.stdout and "✔ clock" in result.stdout


def test_given_a_registered_key_then_doctor_passes(hypergpu, coordinator):
    coordinator.registered[hypergpu("agent", "key").stdout.strip()] = NODE_ID
    result = hypergpu("agent", "doctor", "--json")

    findings = {finding["name"]: finding["ok"] for finding in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert findings["registered"] and findings["coordinator"] and findings["disk"]


def test_given_measurements_then_doctor_says_them_with_source_and_age_and_times_the_way_itself(hypergpu, coordinator):
    coordinator.registered[hypergpu("agent", "key").stdout.strip()] = NODE_ID
    coordinator.measurements = [{
        "quantity": "up", "unit": "bytes/s", "of": "", "value": 125_000.0, "deviation": 3000.0, "at": "2026-01-01T00:00:00.000Z",
        "source": "transfer", "claimed": False, "samples": 4,
    }]  # fmt: skip
    said = hypergpu("agent", "doctor").stdout

    assert "up: 125 +- 3 kB/s, seen by the coordinator, transfer" in said
    assert "ms, in 10 probes just now" in said


def test_given_no_coordinator_then_run_is_the_default_command_and_says_what_is_missing(tmp_path):
    result = CliRunner().invoke(app, ["agent", "--home", str(tmp_path)], env={"HYPERGPU_COORDINATOR": None})
    assert result.exit_code == 1
    assert "--coordinator" in result.stdout


def test_given_data_files_then_preload_puts_them_where_the_worker_looks_and_prints_their_hashes(hypergpu, tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_bytes(b"to be, or not to be")
    result = hypergpu("agent", "preload", str(file))

    sha256 = sha256_hex(b"to be, or not to be")
    assert result.stdout == f"{sha256}  {file}\n"
    assert [path.name for path in Home(tmp_path).cache.iterdir()] == [sha256]
    assert (Home(tmp_path).cache / sha256).read_bytes() == file.read_bytes()
