"""Keys, pins, settings and delegations: what an agent trusts and is trusted with."""

from __future__ import annotations

import json
import stat

import pytest
from eth_account import Account
from fake_coordinator import COORDINATOR_KEY, DOMAIN, OPERATOR

from trainer.operator.config import Home, load_config
from trainer.operator.delegation import delegation_document, possession
from trainer.operator.identity import PASSWORD_VARIABLE, address_of, load_or_create_key
from trainer.operator.pinning import Pin, hold_to_pin, read_pin
from trainer.protocol.eip712 import recover
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import Delegation

PIN = Pin(coordinator=Account.from_key(COORDINATOR_KEY).address, chain_id=DOMAIN.chain_id, contract=DOMAIN.contract)


def refused(code: str, call) -> HyperGPUError:
    with pytest.raises(HyperGPUError) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def test_given_no_key_when_loaded_twice_then_it_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "hot.key"
    key = load_or_create_key(path, {})

    assert load_or_create_key(path, {}) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_given_a_password_then_the_key_on_disk_is_encrypted_and_opens_with_it_only(tmp_path):
    path = tmp_path / "hot.key"
    key = load_or_create_key(path, {PASSWORD_VARIABLE: "correct"})

    assert key.removeprefix("0x") not in path.read_text()
    assert load_or_create_key(path, {PASSWORD_VARIABLE: "correct"}) == key
    refused("key.locked", lambda: load_or_create_key(path, {PASSWORD_VARIABLE: "wrong"}))
    refused("key.locked", lambda: load_or_create_key(path, {}))


def test_given_a_key_that_others_may_read_or_that_is_none_then_it_is_refused(tmp_path):
    path = tmp_path / "hot.key"
    load_or_create_key(path, {})
    path.chmod(0o644)
    refused("key.open_to_others", lambda: load_or_create_key(path, {}))
    path.chmod(0o600)
    path.write_text("not a key")
    refused("key.malformed", lambda: load_or_create_key(path, {}))


def test_given_a_first_meeting_then_the_coordinator_is_pinned_and_another_is_refused(tmp_path):
    path = tmp_path / "coordinator.json"
    assert hold_to_pin(path, PIN) == PIN
    lower = Pin(coordinator=PIN.coordinator.lower(), chain_id=PIN.chain_id, contract=PIN.contract.lower())
    assert hold_to_pin(path, lower) == PIN

    for other in (
        Pin(coordinator=OPERATOR, chain_id=PIN.chain_id, contract=PIN.contract),
        Pin(coordinator=PIN.coordinator, chain_id=1, contract=PIN.contract),
        Pin(coordinator=PIN.coordinator, chain_id=PIN.chain_id, contract=OPERATOR),
    ):
        error = refused("coordinator.changed", lambda other=other: hold_to_pin(path, other))
        assert str(path) in error.message
    assert read_pin(path) == PIN


def test_given_a_coordinator_once_then_it_is_kept_until_another_is_given(tmp_path):
    home = Home.at(tmp_path)
    refused("config.no_coordinator", lambda: load_config(home))
    load_config(home, coordinator="https://market.example/", name="first")

    assert load_config(home).coordinator == "https://market.example"
    assert load_config(home).name == "first"
    assert load_config(home, coordinator="https://other.example").coordinator == "https://other.example"


@pytest.mark.parametrize("url", ["http://market.example", "http://10.0.0.1:8000", "ftp://localhost", "market.example"])
def test_given_an_address_that_is_not_https_nor_this_machine_then_it_is_refused(tmp_path, url):
    refused("config.insecure_url", lambda: load_config(Home.at(tmp_path), coordinator=url))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_given_http_on_this_machine_then_it_is_taken(tmp_path, url):
    assert load_config(Home.at(tmp_path), coordinator=url).coordinator == url


def test_given_a_home_too_deep_for_a_socket_then_it_is_refused_before_anything_is_made(tmp_path):
    deep = tmp_path / ("x" * 100)
    refused("config.home_too_long", lambda: Home.at(deep))
    assert not deep.exists()


def test_given_a_wallet_then_the_possession_proves_the_hot_keys_consent_to_exactly_that(tmp_path):
    key = load_or_create_key(tmp_path / "hot.key", {})
    proof = possession(DOMAIN, operator=OPERATOR, hot_key_private=key, expires_at=1_900_000_000, nonce=0)

    said = Delegation(operator=OPERATOR, hot_key=address_of(key), expires_at=1_900_000_000, nonce=0)
    assert recover(DOMAIN, said, proof) == address_of(key)
    document = delegation_document(
        PIN, url="https://market.example", operator=OPERATOR, hot_key_private=key, expires_at=1_900_000_000, nonce=0
    )
    assert document["registerNode"] == {"hotKey": address_of(key), "expiresAt": 1_900_000_000, "possession": proof}
    assert proof in str(document["link"])
    json.dumps(document)
