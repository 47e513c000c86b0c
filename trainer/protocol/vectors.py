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
from trainer.protocol.eip712 import REGISTRY, Domain, digest, primary_type, seating, sign, signable
from trainer.protocol.orders import WorkOrder, envelope
from trainer.protocol.packing import (
    PackedReceipt,
    commitment,
    commitments_hash,
    median_quality,
    pack_receipts,
    pack_scores,
    receipts_hash,
    reward,
)
from trainer.protocol.spec import JobSpec
from trainer.protocol.types import (
    Acceptance,
    AttestorKey,
    Bid,
    Delegation,
    JobClosure,
    Message,
    Receipt,
    RoundAttestation,
    Withdrawal,
)

PATH = Path(__file__).parents[2] / "tests" / "vectors" / "protocol.json"
DOMAIN = Domain(chain_id=31337, contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
REGISTRY_DOMAIN = Domain(chain_id=31337, contract="0xCf7Ed3AccA5a467e9e704C703E8D87F634fB0Fc9", name=REGISTRY)
ATTESTORS = ("attestor", "attestor2", "attestor3")
"""The attestor set: member 0, 1 and 2."""
SCORES = {"attestor": [10_000, 8_317], "attestor2": [9_950, 8_400], "attestor3": [0, 8_317]}
"""What each found for the batch's two receipts."""
EPOCH = 5
KEYS = {
    name: "0x" + keccak(text=f"hypergpu test key: {name}").hex() for name in ("wallet", "hot", "hot2", *ATTESTORS, "coordinator")
}


def bytes32(text: str) -> str:
    return "0x" + keccak(text=text).hex()


def messages() -> dict[str, tuple[Message, str]]:
    """Each message type once, with the name of its signer."""
    wallet, hot = Account.from_key(KEYS["wallet"]).address, Account.from_key(KEYS["hot"]).address
    base = bytes32("base")
    order = WorkOrder(
        job_id=7, round=3, node_id=12, fence=2, deadline=1_800_000_000, base=base[2:], checkpoint=bytes32("checkpoint")[2:],
        parent=bytes32("parent")[2:], delta=bytes32("delta")[2:], shard=1, shards=4, seed=99, steps=40,
        encoding=JobSpec().encoding, spec=JobSpec(),
    )  # fmt: skip
    receipt = Receipt(job_id=7, round=3, node_id=12, units=1280, base=base, artifact=bytes32("artifact"))
    return {
        "delegation": (Delegation(operator=wallet, hot_key=hot, expires_at=1_800_000_000, nonce=0), "wallet"),
        "work_order": (envelope(order), "coordinator"),
        "receipt": (receipt, "hot"),
        "attestation": (
            RoundAttestation(
                job_id=7,
                round=3,
                batch=0,
                last=True,
                epoch=EPOCH,
                base=base,
                receipts=receipts_hash(packed()),
                evidence=bytes32("evidence"),
                commitments=commitments_hash(commitments()),
            ),
            "attestor",
        ),
        "closure": (JobClosure(job_id=7, rounds=12, spent=6_000_000, epoch=EPOCH), "attestor"),
        "acceptance": (Acceptance(job_id=7, round=3, digest=bytes32("digest")[:54] + "00" * 6), "wallet"),
        "withdrawal": (
            Withdrawal(node_id=12, to=hot, amount=5_000_000, fee=20_000, nonce=0, deadline=1_800_000_000),
            "wallet",
        ),
        "bid": (bids()[0], "wallet"),
        "seating": (seating(job_id=7, max_units=1280, bids=bids()), "coordinator"),
    }


def bids() -> list[Bid]:
    """Two offers that the seating takes together; the first stands for any job."""
    return [
        Bid(job_id=job_id, node_id=node_id, rate=5, capacity=100_000, expires_at=1_800_000_000, nonce=0)
        for job_id, node_id in ((0, 12), (7, 13))
    ]


def batch() -> list[PackedReceipt]:
    """Two nodes' receipts of one round, as one batch."""
    base = bytes32("base")
    lines = []
    for node_id, key, units in ((12, "hot", 1280), (13, "hot2", 960)):
        artifact = bytes32("artifact" if key == "hot" else "artifact two")
        receipt = Receipt(job_id=7, round=3, node_id=node_id, units=units, base=base, artifact=artifact)
        signature = sign(DOMAIN, receipt, KEYS[key])
        lines.append(PackedReceipt(node_id=node_id, units=units, artifact=artifact, signature=signature))
    return lines


def packed() -> bytes:
    return pack_receipts(batch())


def salt(attestor: str) -> str:
    return bytes32(f"salt of {attestor}")


def commitments() -> dict[int, str]:
    """Each member's commitment to its scores."""
    return {
        member: commitment(
            attestor=Account.from_key(KEYS[name]).address, salt=bytes.fromhex(salt(name)[2:]), scores=pack_scores(SCORES[name])
        )
        for member, name in enumerate(ATTESTORS)
    }


def opened() -> list[dict[str, Any]]:
    """The attestations of `batch` as `settleRound` takes them, with what led to each."""
    message, _ = messages()["attestation"]
    return [
        {
            "member": member, "attestor": Account.from_key(KEYS[name]).address, "salt": salt(name), "scores": SCORES[name],
            "packedScores": "0x" + pack_scores(SCORES[name]).hex(), "commitment": commitments()[member],
            "signature": sign(DOMAIN, message, KEYS[name]),
        }
        for member, name in enumerate(ATTESTORS)
    ]  # fmt: skip


def entry(domain: Domain, message: Message, signer: str) -> dict[str, Any]:
    return {
        "primaryType": primary_type(message),
        "types": [{"name": field, "type": kind} for field, kind in type(message).FIELDS.items()],
        "message": dict(zip(type(message).FIELDS, message.as_dict().values(), strict=True)),
        "signer": Account.from_key(KEYS[signer]).address,
        "digest": "0x" + digest(domain, message).hex(),
        "signature": sign(domain, message, KEYS[signer]),
    }


def attestor_key() -> AttestorKey:
    """Signed in the registry's domain, not the market's."""
    wallet, attestor = (Account.from_key(KEYS[name]).address for name in ("wallet", "attestor"))
    return AttestorKey(owner=wallet, signer=attestor)


def vectors() -> dict[str, Any]:
    qualities = [median_quality(scores) for scores in zip(*SCORES.values(), strict=True)]
    canonical = {"b": [1, 2.5, True, None, "é\n"], "a": {"z": 1e-7, "y": "text"}}
    return {
        "domain": DOMAIN.as_typed(),
        "domainSeparator": "0x" + signable(DOMAIN, messages()["receipt"][0]).header.hex(),
        "keys": KEYS,
        "messages": {name: entry(DOMAIN, message, signer) for name, (message, signer) in messages().items()},
        "registry": {
            "domain": REGISTRY_DOMAIN.as_typed(),
            "domainSeparator": "0x" + signable(REGISTRY_DOMAIN, attestor_key()).header.hex(),
            "attestorKey": entry(REGISTRY_DOMAIN, attestor_key(), "attestor"),
        },
        "seated": [dict(zip(Bid.FIELDS, bid.as_dict().values(), strict=True)) for bid in bids()],
        "batch": {
            "receipts": [
                {"nodeId": r.node_id, "units": r.units, "artifact": r.artifact, "signature": r.signature} for r in batch()
            ],
            "signers": [Account.from_key(KEYS[key]).address for key in ("hot", "hot2")],
            "packed": "0x" + packed().hex(),
            "hash": receipts_hash(packed()),
            "epoch": EPOCH,
            "attestations": opened(),
            "commitments": commitments_hash(commitments()),
            "qualities": qualities,
            "packedQualities": "0x" + pack_scores(qualities).hex(),
        },
        "medians": [
            {"scores": scores, "median": median_quality(scores)}
            for scores in ([7], [9, 3], [10_000, 0, 5_000], [4, 4, 1, 9], [10_000] * 8 + [0] * 8, [5, 1, 4, 2, 3])
        ],
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
