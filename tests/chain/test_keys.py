"""Keys: where they may come from, and that nothing repeats them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account
from eth_typing import HexStr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from marketplace.chain.fees import Fee, bumped, first_fee
from marketplace.chain.signer import KeySigner
from trainer.protocol.errors import HyperGPUError

KEY = "0x" + "42" * 32
TRANSACTION = {
    "type": 2, "chainId": 143, "nonce": 0, "to": None, "data": "0x", "value": 0, "gas": 10**5,
    "maxFeePerGas": 10, "maxPriorityFeePerGas": 1,
}  # fmt: skip


def test_a_plain_key_signs_on_a_test_chain() -> None:
    signer = KeySigner(SecretStr(KEY), chain_id=31337)
    assert signer.address == Account.from_key(KEY).address


def test_a_plain_key_is_refused_on_mainnet() -> None:
    with pytest.raises(HyperGPUError) as refusal:
        KeySigner(SecretStr(KEY), chain_id=143)
    assert refusal.value.code == "chain.plain_key"


def test_a_keystore_with_its_password_signs_on_mainnet(tmp_path: Path) -> None:
    path = tmp_path / "sender.json"
    path.write_text(json.dumps(Account.encrypt(HexStr(KEY), "open sesame", iterations=2)))
    path.with_name("sender.json.password").write_text("open sesame\n")
    signer = KeySigner(SecretStr(f"keystore:{path}"), chain_id=143)
    raw = signer.sign_transaction({name: value for name, value in TRANSACTION.items() if name != "to"})
    assert Account.recover_transaction(raw) == signer.address == Account.from_key(KEY).address


def test_a_keystore_that_does_not_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        KeySigner(SecretStr(f"keystore:{tmp_path}/none.json"), chain_id=143)
    assert refusal.value.code == "chain.bad_key"


@pytest.mark.parametrize(
    ("secret", "code"), [("", "chain.no_key"), ("0x1234", "chain.bad_key"), ("secret words", "chain.bad_key")]
)
def test_what_is_no_key_is_refused_without_repeating_it(secret: str, code: str) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        KeySigner(SecretStr(secret), chain_id=31337)
    assert refusal.value.code == code
    assert not secret or secret not in str(refusal.value)
    assert refusal.value.__cause__ is None


@given(base=st.integers(0, 10**15), later=st.integers(0, 10**15), times=st.integers(1, 8))
def test_each_replacement_offers_a_tenth_more_and_enough_for_the_base_fee(base: int, later: int, times: int) -> None:
    fee = first_fee(base)
    for _ in range(times):
        more = bumped(fee, later)
        assert more.max_fee * 10 >= fee.max_fee * 11 and more.priority * 10 >= fee.priority * 11
        assert more.max_fee >= 2 * later and more.max_fee >= more.priority
        fee = Fee(more.max_fee, more.priority)
