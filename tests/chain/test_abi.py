"""Calldata and its way back, against web3's own coder and against what the contract answers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st
from web3 import Web3

from marketplace.chain import abi
from marketplace.chain.values import plain, raw, snake, types
from trainer.protocol.errors import HyperGPUError

# The first call of each coder is slow, and the machine may be busy: time says nothing here.
unhurried = settings(deadline=None, max_examples=50)
REFERENCE = Web3().eth.contract(abi=abi.compiled("market")["abi"])

bytes32 = st.binary(min_size=32, max_size=32)
address = st.binary(min_size=20, max_size=20).map(lambda body: to_checksum_address(body))
BID_FIELDS = ("jobId", "nodeId", "rate", "capacity", "expiresAt", "nonce")
bids = st.tuples(
    st.integers(0, 2**256 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1),
    *[st.integers(0, 2**64 - 1)] * 3,
)  # fmt: skip


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


@unhurried
@given(
    job=st.integers(0, 2**256 - 1),
    offers=st.lists(bids, max_size=4),
    signatures=st.lists(st.binary(max_size=70), max_size=4),
    most=st.integers(0, 2**48 - 1),
    consent=st.binary(max_size=70),
)
def test_structs_encode_as_web3_does_whether_lists_or_dicts(
    job: int, offers: list[Any], signatures: list[bytes], most: int, consent: bytes
) -> None:
    expected = REFERENCE.encode_abi("takeBids", [job, offers, signatures, most, consent])
    named = [dict(zip(BID_FIELDS, offer, strict=True)) for offer in offers]
    snaked = [{snake(name): value for name, value in offer.items()} for offer in named]
    for form in ([list(offer) for offer in offers], named, snaked):
        given_as_hex = [job, form, [hexed(s) for s in signatures], most, hexed(consent)]
        assert abi.encode_call("market", "takeBids", given_as_hex) == expected


@unhurried
@given(
    job=st.integers(0, 2**64),
    base=bytes32,
    receipts=st.binary(max_size=300),
    last=st.booleans(),
    signature=st.binary(max_size=65),
)
def test_a_settlement_encodes_as_web3_does(job: int, base: bytes, receipts: bytes, last: bool, signature: bytes) -> None:
    header, attestation = [job, 3, 0, last, 1, base, base], [2, base, receipts, signature]
    expected = REFERENCE.encode_abi("settleRound", [header, receipts, [attestation]])
    hexadecimal = [[hexed(part) if isinstance(part, bytes) else part for part in struct] for struct in (header, attestation)]
    assert abi.encode_call("market", "settleRound", [hexadecimal[0], hexed(receipts), [hexadecimal[1]]]) == expected


COMPONENT = {
    "name": "x", "type": "tuple[]", "components": [
        {"name": "nodeId", "type": "uint32"}, {"name": "hotKey", "type": "address"}, {"name": "spec", "type": "bytes32"},
        {"name": "parts", "type": "bytes[]"}, {"name": "isOn", "type": "bool"},
    ],
}  # fmt: skip
value = st.fixed_dictionaries(
    {
        "node_id": st.integers(0, 2**32 - 1), "hot_key": address, "spec": bytes32.map(hexed),
        "parts": st.lists(st.binary(max_size=9).map(hexed), max_size=3), "is_on": st.booleans(),
    }
)  # fmt: skip


@unhurried
@given(st.lists(value, max_size=3))
def test_plain_values_come_back_as_they_went(values: list[Any]) -> None:
    encoded = encode(types([COMPONENT]), [raw(COMPONENT, values)])
    assert plain(COMPONENT, decode(types([COMPONENT]), encoded)[0]) == values


@pytest.mark.parametrize("short", ["0x", "0x12", "0x" + "12" * 31, "0x" + "12" * 33])
def test_a_hash_of_the_wrong_length_is_refused_instead_of_padded(short: str) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        abi.encode_call("market", "createJob", [short, 1, 1])
    assert refusal.value.code == "chain.bad_arguments"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("0x", "reverted without a reason"),
        ("0x08c379a0" + encode(["string"], ["paused"]).hex(), "paused"),
        ("0x4e487b71" + encode(["uint256"], [0x11]).hex(), "panic: arithmetic overflow"),
        ("0xdeadbeef00", "reverted with unknown error 0xdeadbeef"),
        ("0x08c379a000", "reverted with malformed data 0x08c379a0"),
    ],
)
def test_reverts_are_told_in_words(data: str, words: str) -> None:
    assert abi.decode_error(data) == words


def zero(kind: str) -> Any:
    if kind.startswith("bytes"):
        return bytes(int(kind[5:] or 0))
    return {"string": "", "address": "0x" + "00" * 20}.get(kind, 0)


@pytest.mark.parametrize("contract", ["market", "token", "registry", "court", "timelock"])
def test_each_custom_error_is_told_by_its_name(contract: abi.Contract) -> None:
    for name, entry in abi.entries(contract, "error").items():
        kinds = types(entry["inputs"])
        zeros = [zero(kind) for kind in kinds]
        told = abi.decode_error("0x" + (abi.hash_of(entry)[:4] + encode(kinds, zeros)).hex())
        assert told.startswith(f"{name}(")


@pytest.mark.parametrize(
    ("name", "expected"), [("jobId", "job_id"), ("minStake_", "min_stake"), ("r", "r"), ("hotKey", "hot_key")]
)
def test_names_become_snake_case(name: str, expected: str) -> None:
    assert snake(name) == expected


def test_web_processes_encode_calls_without_loading_web3() -> None:
    """It takes a second to import, and each of the web's processes would pay it."""
    code = (
        "import sys, django; django.setup(); import marketplace.config.urls; from marketplace.chain import services, abi;"
        "abi.encode_call('market', 'retireNode', [1]); sys.exit('web3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
