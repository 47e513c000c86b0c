"""Typed-data digests, signatures and recovery (EIP-712; low-s as in EIP-2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_keys.constants import SECPK1_N
from eth_utils import keccak, to_checksum_address

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import Bid, Message, OrderEnvelope, Seating

PRIMARY_TYPES: dict[type[Message], str] = {OrderEnvelope: "WorkOrder"}
"""Messages whose EIP-712 name is not their class name."""
MARKET, REGISTRY = "HyperGPU", "HyperGPU Attestors"
"""Names of the contracts' EIP-712 domains."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature counts: one chain and one contract, the ComputeMarket unless `name` says otherwise (EIP-712)."""

    chain_id: int
    contract: str
    name: str = MARKET

    def as_typed(self) -> dict[str, Any]:
        return {"name": self.name, "version": "1", "chainId": self.chain_id, "verifyingContract": self.contract}


def primary_type(message: Message) -> str:
    return PRIMARY_TYPES.get(type(message), type(message).__name__)


def typed_fields(message: Message) -> dict[str, Any]:
    """The message's values under their EIP-712 names; hashes as bytes."""
    values = message.as_dict().values()
    return {
        name: bytes.fromhex(value.removeprefix("0x")) if kind == "bytes32" else value
        for (name, kind), value in zip(type(message).FIELDS.items(), values, strict=True)
    }


def signable(domain: Domain, message: Message) -> SignableMessage:
    """The EIP-712 payload of `message`. Raises HyperGPUError `eip712.bad_field` when a value does not fit its type."""
    name = primary_type(message)
    fields = [{"name": field, "type": kind} for field, kind in type(message).FIELDS.items()]
    check_fields(message)
    return encode_typed_data(domain.as_typed(), {name: fields}, typed_fields(message))


def check_fields(message: Message) -> None:
    """Refuse what `encode_typed_data` would silently coerce: short hashes, numbers out of range, wrong Python types."""
    for (field, kind), value in zip(type(message).FIELDS.items(), message.as_dict().values(), strict=True):
        if kind.startswith("uint"):
            fits = type(value) is int and 0 <= value < 1 << int(kind[4:])
        elif kind == "bool":
            fits = type(value) is bool
        else:
            digits = 40 if kind == "address" else 64
            fits = isinstance(value, str) and value.startswith("0x") and is_hex(value[2:], digits)
        if not fits:
            raise HyperGPUError("eip712.bad_field", f"{primary_type(message)}.{field} is not a {kind}: {value!r}", field=field)


def is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(c in "0123456789abcdefABCDEF" for c in text)


def digest(domain: Domain, message: Message) -> bytes:
    """The 32 bytes that are signed: keccak256(0x1901 || domain separator || struct hash)."""
    payload = signable(domain, message)
    return keccak(b"\x19" + payload.version + payload.header + payload.body)


def seating(*, job_id: int, max_units: int, bids: Sequence[Bid]) -> Seating:
    """The consent that `takeBids` asks for: an array of structs is hashed as EIP-712 has it, in the order of the call."""
    nowhere = Domain(chain_id=0, contract="0x" + "00" * 20)  # a struct's hash is the same in every domain
    hashes = b"".join(signable(nowhere, bid).body for bid in bids)
    return Seating(job_id=job_id, max_units=max_units, bids="0x" + keccak(hashes).hex())


def sign(domain: Domain, message: Message, private_key: str | bytes) -> str:
    """65-byte signature r || s || v as 0x-hex, with v 27 or 28 and low s."""
    signature = Account.sign_message(signable(domain, message), private_key).signature
    return "0x" + bytes(signature).hex()


def recover(domain: Domain, message: Message, signature: str) -> str:
    """Checksummed address that signed `message`.

    Raises HyperGPUError `signature.malformed` (not 65 bytes, bad v) or `signature.high_s` (malleable, EIP-2).
    """
    return recover_payload(signable(domain, message), signature)


def recover_payload(payload: SignableMessage, signature: str) -> str:
    """As `recover`, for any signable payload (EIP-191 requests share the same strictness)."""
    if not (signature.startswith("0x") and is_hex(signature[2:], 130)):
        raise HyperGPUError("signature.malformed", "A signature is 65 bytes of 0x-hex: r, s, v.")
    raw = bytes.fromhex(signature[2:])
    if raw[64] not in (27, 28):
        raise HyperGPUError("signature.malformed", "The last byte of a signature (v) is 27 or 28.")
    if int.from_bytes(raw[32:64], "big") > SECPK1_N // 2:
        raise HyperGPUError("signature.high_s", "The signature's s is in the upper half; sign with low s (EIP-2).")
    try:
        return to_checksum_address(Account.recover_message(payload, signature=raw))
    except Exception as error:  # eth-account raises several unrelated types for points off the curve
        raise HyperGPUError("signature.malformed", f"No key can have made this signature: {error}") from error
