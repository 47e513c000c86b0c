"""Sign-in messages (ERC-4361): parsed strictly, by rendering what was read and comparing it with what was signed.

The `siwe` package is not used: it loads web3 into every web process, and its grammar no longer loads with current `abnf`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from eth_account.messages import SignableMessage, encode_defunct
from eth_utils import is_checksum_address

from trainer.protocol.eip712 import recover_payload
from trainer.protocol.errors import HyperGPUError

PATTERN = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<domain>[^\s/?#]+) wants you to sign in with your Ethereum account:\n"
    r"(?P<address>0x[0-9a-fA-F]{40})\n\n"
    r"(?:(?P<statement>[^\n]+)\n)?\n"
    r"URI: (?P<uri>[^\s]+)\n"
    r"Version: 1\n"
    r"Chain ID: (?P<chain_id>[0-9]{1,18})\n"
    r"Nonce: (?P<nonce>[a-zA-Z0-9]{8,64})\n"
    r"Issued At: (?P<issued_at>[^\n]+)"
    r"(?:\nExpiration Time: (?P<expiration_time>[^\n]+))?"
    r"(?:\nNot Before: (?P<not_before>[^\n]+))?"
    r"(?:\nRequest ID: [^\n]*)?"
    r"(?:\nResources:(?:\n- [^\n]+)*)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignInMessage:
    text: str
    domain: str
    address: str
    uri: str
    chain_id: int
    nonce: str
    issued_at: datetime
    expiration_time: datetime | None
    not_before: datetime | None

    def payload(self) -> SignableMessage:
        """The text as wallets sign it (EIP-191 personal message)."""
        return encode_defunct(text=self.text)

    def signer(self, signature: str) -> str:
        """Checksummed address; raises HyperGPUError `signature.*`."""
        return recover_payload(self.payload(), signature)


def parse(text: str) -> SignInMessage:
    """Raises HyperGPUError `auth.malformed` for anything but a well-formed message with a checksummed address."""
    match = PATTERN.fullmatch(text)
    if match is None or not is_checksum_address(match["address"]):
        raise HyperGPUError("auth.malformed", "This is not a sign-in message (ERC-4361).")
    return SignInMessage(
        text=text, domain=match["domain"], address=match["address"], uri=match["uri"], chain_id=int(match["chain_id"]),
        nonce=match["nonce"], issued_at=moment(match["issued_at"]),
        expiration_time=moment(match["expiration_time"]) if match["expiration_time"] else None,
        not_before=moment(match["not_before"]) if match["not_before"] else None,
    )  # fmt: skip


def moment(text: str) -> datetime:
    """An RFC 3339 time with its zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise HyperGPUError("auth.malformed", f"{text!r} is not a time (RFC 3339).") from error
    if value.tzinfo is None:
        raise HyperGPUError("auth.malformed", f"{text!r} names no time zone.")
    return value
