"""The shared vectors, as Python computes them; Solidity and TypeScript assert the same file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from eth_keys.constants import SECPK1_N
from hypothesis import given
from hypothesis import strategies as st

from trainer.protocol import eip712, vectors
from trainer.protocol.canonical import canonical_bytes, canonical_sha256
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import (
    PACKED_BYTES,
    PackedReceipt,
    commitment,
    commitments_hash,
    median_quality,
    pack_receipts,
    pack_scores,
    receipts_hash,
    reward,
    unpack_receipts,
    unpack_scores,
)
from trainer.protocol.spec import parse_spec
from trainer.protocol.types import QUALITY_ONE, JobClosure, Receipt

FILE: dict[str, Any] = json.loads(vectors.PATH.read_text())
DOMAIN = eip712.Domain(chain_id=FILE["domain"]["chainId"], contract=FILE["domain"]["verifyingContract"])


@pytest.mark.parametrize("name", FILE["messages"])
def test_digests_and_signers(name: str) -> None:
    message, _ = vectors.messages()[name]
    expected = FILE["messages"][name]
    assert "0x" + eip712.digest(DOMAIN, message).hex() == expected["digest"]
    assert eip712.recover(DOMAIN, message, expected["signature"]) == expected["signer"]


def test_the_packed_batch() -> None:
    packed = bytes.fromhex(FILE["batch"]["packed"][2:])
    receipts = unpack_receipts(packed)
    assert [receipt.node_id for receipt in receipts] == [row["nodeId"] for row in FILE["batch"]["receipts"]]
    assert pack_receipts(receipts) == packed
    assert receipts_hash(packed) == FILE["batch"]["hash"]
    assert len(packed) == PACKED_BYTES * len(receipts)


def test_commitments_and_what_they_open_to() -> None:
    batch = FILE["batch"]
    listed = {}
    for row in batch["attestations"]:
        scores = bytes.fromhex(row["packedScores"][2:])
        assert unpack_scores(scores) == row["scores"]
        assert pack_scores(row["scores"]) == scores
        listed[row["member"]] = commitment(attestor=row["attestor"], salt=bytes.fromhex(row["salt"][2:]), scores=scores)
        assert listed[row["member"]] == row["commitment"]
        assert eip712.recover(DOMAIN, vectors.messages()["attestation"][0], row["signature"]) == row["attestor"]
    assert commitments_hash(dict(reversed(listed.items()))) == batch["commitments"]
    assert FILE["messages"]["attestation"]["message"]["commitments"] == batch["commitments"]
    columns = zip(*(row["scores"] for row in batch["attestations"]), strict=True)
    assert [median_quality(column) for column in columns] == batch["qualities"]
    assert pack_scores(batch["qualities"]).hex() == batch["packedQualities"][2:]


@pytest.mark.parametrize("row", FILE["medians"])
def test_medians(row: dict[str, Any]) -> None:
    assert median_quality(row["scores"]) == row["median"]


def test_the_registrys_domain_is_its_own() -> None:
    row, message = FILE["registry"]["attestorKey"], vectors.attestor_key()
    assert eip712.recover(vectors.REGISTRY_DOMAIN, message, row["signature"]) == row["signer"] == message.signer
    assert eip712.recover(DOMAIN, message, row["signature"]) != message.signer


def test_rewards_canonical_json_and_the_spec() -> None:
    for row in FILE["rewards"]:
        units, rate, quality = (int(row[name]) for name in ("units", "rate", "quality"))
        assert reward(units=units, rate=rate, quality=quality) == int(row["amount"])
    assert canonical_bytes(FILE["canonical"]["value"]).decode() == FILE["canonical"]["bytes"]
    assert canonical_sha256(FILE["canonical"]["value"]) == FILE["canonical"]["sha256"]
    assert parse_spec(FILE["spec"]["value"]).sha256() == FILE["spec"]["sha256"]


HASH = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
RECEIPTS = st.builds(
    PackedReceipt,
    node_id=st.integers(0, 2**32 - 1),
    units=st.integers(0, 2**64 - 1),
    artifact=HASH,
    signature=st.binary(min_size=65, max_size=65).map(lambda raw: "0x" + raw.hex()),
)


@given(st.lists(RECEIPTS, max_size=5))
def test_packing_loses_nothing(receipts: list[PackedReceipt]) -> None:
    assert unpack_receipts(pack_receipts(receipts)) == receipts


@given(st.binary(max_size=300).filter(lambda raw: len(raw) % PACKED_BYTES))
def test_a_torn_batch_is_refused(packed: bytes) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        unpack_receipts(packed)
    assert refusal.value.code == "packing.bad_length"


@pytest.mark.parametrize("scores", [[-1], [QUALITY_ONE + 1], [0, 65_536]])
def test_a_score_out_of_range_is_never_packed(scores: list[int]) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        pack_scores(scores)
    assert refusal.value.code == "packing.out_of_range"


@given(scores=st.lists(st.integers(0, QUALITY_ONE), min_size=1, max_size=16))
def test_a_minority_cannot_move_the_median_past_the_majority(scores: list[int]) -> None:
    median = median_quality(scores)
    assert sum(score <= median for score in scores) * 2 >= len(scores)
    assert sum(score < median for score in scores) * 2 < len(scores)


@given(units=st.integers(0, 2**64 - 1), rate=st.integers(0, 2**128 - 1), quality=st.integers(0, QUALITY_ONE))
def test_a_reward_is_never_more_than_the_full_price(units: int, rate: int, quality: int) -> None:
    amount = reward(units=units, rate=rate, quality=quality)
    assert amount <= units * rate
    assert amount * QUALITY_ONE <= units * rate * quality < (amount + 1) * QUALITY_ONE


def test_a_malleated_signature_is_refused() -> None:
    row = FILE["messages"]["receipt"]
    raw = bytes.fromhex(row["signature"][2:])
    high_s = SECPK1_N - int.from_bytes(raw[32:64], "big")
    twin = raw[:32] + high_s.to_bytes(32, "big") + bytes([55 - raw[64]])
    with pytest.raises(HyperGPUError) as refusal:
        eip712.recover(DOMAIN, vectors.messages()["receipt"][0], "0x" + twin.hex())
    assert refusal.value.code == "signature.high_s"


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "00" * 64, "0x" + "11" * 64 + "05", "0x" + "00" * 64 + "1b", "zz" * 65])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        eip712.recover(DOMAIN, vectors.messages()["receipt"][0], signature)
    assert refusal.value.code == "signature.malformed"


@pytest.mark.parametrize(
    "message",
    [
        JobClosure(job_id=-1, rounds=0, spent=0, epoch=1),
        JobClosure(job_id=1, rounds=2**64, spent=0, epoch=1),
        JobClosure(job_id=1, rounds=0, spent=True, epoch=1),
        Receipt(job_id=1, round=0, node_id=1, units=1, base="0x12", artifact="0x" + "00" * 32),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_never_signed(message: Any) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        eip712.sign(DOMAIN, message, vectors.KEYS["hot"])
    assert refusal.value.code == "eip712.bad_field"
