"""Writes tests/vectors/protocol.json: fixed inputs with the bytes, digests and signatures that Python, Solidity and
TypeScript must all compute. Run `python -m trainer.protocol.vectors` after a change to the wire types, and review the diff."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_utils import keccak

from trainer.protocol.canonical import canonical_bytes, canonical_sha256
from trainer.protocol.eip712 import Domain, digest, primary_type, sign, signable
from trainer.protocol.orders import WorkOrder, envelope
from trainer.protocol.packing import SettledReceipt, pack_receipts, receipts_hash, reward
from trainer.protocol.spec import JobSpec
from trainer.protocol.types import Bid, Delegation, JobClosure, Message, Receipt, RoundAttestation

PATH = Path(__file__).parents[2] / "tests" / "vectors" / "protocol.json"
DOMAIN = Domain(chain_id=31337, contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
KEYS = {
    name: "0x" + keccak(text=f"hypergpu test key: {name}").hex() for name in ("wallet", "hot", "hot2", "attestor", "coordinator")
}


def bytes32(text: str) -> str:
    return "0x" + keccak(text=text).hex()


def messages() -> dict[str, tuple[Message, str]]:
    """Each message type once, with the name of its signer."""
    wallet, hot = Account.from_key(KEYS["wallet"]).address, Account.from_key(KEYS["hot"]).address
    base = bytes32("base")
    order = WorkOrder(
        job_id=7, round=3, node_id=12, fence=2, deadline=1_800_000_000, base=base[2:], shard=1, shards=4, seed=99, spec=JobSpec()
    )
    receipt = Receipt(job_id=7, round=3, node_id=12, units=1280, base=base, artifact=bytes32("artifact"))
    return {
        "delegation": (Delegation(operator=wallet, hot_key=hot, expires_at=1_800_000_000, nonce=0), "wallet"),
        "work_order": (envelope(order), "coordinator"),
        "receipt": (receipt, "hot"),
        "attestation": (
            RoundAttestation(
                job_id=7, round=3, batch=0, last=True, base=base, receipts=receipts_hash(packed()), evidence=bytes32("evidence")
            ),
            "attestor",
        ),
        "closure": (JobClosure(job_id=7, rounds=12, spent=6_000_000), "attestor"),
        "bid": (Bid(job_id=0, node_id=12, rate=5, capacity=100_000, expires_at=1_800_000_000, nonce=0), "wallet"),
    }


def settled() -> list[SettledReceipt]:
    """Two nodes' receipts of one round, as one batch."""
    base = bytes32("base")
    lines = []
    for node_id, key, units, quality in ((12, "hot", 1280, 10_000), (13, "hot2", 960, 8_317)):
        artifact = bytes32("artifact" if key == "hot" else "artifact two")
        receipt = Receipt(job_id=7, round=3, node_id=node_id, units=units, base=base, artifact=artifact)
        lines.append(
            SettledReceipt(
                node_id=node_id, units=units, quality=quality, artifact=artifact, signature=sign(DOMAIN, receipt, KEYS[key])
            )
        )
    return lines


def packed() -> bytes:
    return pack_receipts(settled())


def vectors() -> dict[str, Any]:
    entries = {}
    for name, (message, signer) in messages().items():
        entries[name] = {
            "primaryType": primary_type(message),
            "types": [{"name": field, "type": kind} for field, kind in type(message).FIELDS.items()],
            "message": dict(zip(type(message).FIELDS, message.as_dict().values(), strict=True)),
            "signer": Account.from_key(KEYS[signer]).address,
            "digest": "0x" + digest(DOMAIN, message).hex(),
            "signature": sign(DOMAIN, message, KEYS[signer]),
        }
    canonical = {"b": [1, 2.5, True, None, "é\n"], "a": {"z": 1e-7, "y": "text"}}
    return {
        "domain": DOMAIN.as_typed(),
        "domainSeparator": "0x" + signable(DOMAIN, messages()["receipt"][0]).header.hex(),
        "keys": KEYS,
        "messages": entries,
        "batch": {
            "receipts": [
                {"nodeId": r.node_id, "units": r.units, "quality": r.quality, "artifact": r.artifact, "signature": r.signature}
                for r in settled()
            ],
            "signers": [Account.from_key(KEYS[key]).address for key in ("hot", "hot2")],
            "packed": "0x" + packed().hex(),
            "hash": receipts_hash(packed()),
        },
        "rewards": [
            {"units": u, "rate": r, "quality": q, "amount": reward(units=u, rate=r, quality=q)}
            for u, r, q in ((1280, 5, 10_000), (960, 7, 8_317), (1, 1, 9_999), (0, 5, 10_000), (2**63, 2**40, 10_000))
        ],
        "canonical": {"value": canonical, "bytes": canonical_bytes(canonical).decode(), "sha256": canonical_sha256(canonical)},
        "spec": {"value": JobSpec().model_dump(mode="json"), "sha256": JobSpec().sha256()},
    }


def render() -> str:
    """The file's text; integers beyond 2**53 travel as strings so that JavaScript keeps them."""
    return json.dumps(stringify_large(vectors()), indent=2, ensure_ascii=False) + "\n"


def stringify_large(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: stringify_large(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stringify_large(item) for item in value]
    return str(value) if type(value) is int and value >= 2**53 else value


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PATH.read_text() == render() else f"{PATH.name} is out of date: run python -m trainer.protocol.vectors")
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(render())
