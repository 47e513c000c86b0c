"""Keys that sign transactions and messages. Everything about them is here.

Who          setting                    what it may do
senders      HYPERGPU_SENDER_KEYS       pay gas for the outbox; several, comma-separated; no authority over money
challenger   HYPERGPU_CHALLENGER_KEY    open cases at the court; holds the money of their bonds, and gas
attestor     HYPERGPU_ATTESTOR_KEY      in its own worker alone: sign what it finds, vote in committees (which takes gas)
coordinator  HYPERGPU_COORDINATOR_KEY   sign work orders and the consent to seats
admin        HYPERGPU_ADMIN_KEY         deploy, and propose changes to the timelock; on mainnet a multisig's owners do better

A key is given as
    0x...                          32 bytes of hex in the environment. Refused where money is real (profiles.real_money).
    keystore:/path                 Web3 Secret Storage v3, as geth and cast write it; its password is in /path.password.
A hardware or cloud key is one more class with the two members of `Signer`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from django.conf import settings
from eth_account import Account
from eth_account.signers.local import LocalAccount
from pydantic import SecretStr

from marketplace.chain.profiles import profile_of
from trainer.protocol.errors import HyperGPUError

KEYSTORE = "keystore:"
CHALLENGES = "challenges"
"""The row of intents that the challenger's account sends: who calls is whose bond it is."""


class Signer(Protocol):
    @property
    def address(self) -> str:
        """Checksummed address."""

    def sign_transaction(self, transaction: dict[str, Any]) -> bytes:
        """The signed transaction as it goes on the wire (EIP-2718)."""


class KeySigner:
    """A private key in memory, from 0x-hex or from `keystore:/path` (Web3 Secret Storage v3, password in /path.password).

    Raises HyperGPUError `chain.no_key`, `chain.bad_key`, and `chain.plain_key` for a plain key where money is real.
    """

    def __init__(self, secret: SecretStr, *, chain_id: int) -> None:
        self.account = load_account(secret.get_secret_value(), chain_id)

    @property
    def address(self) -> str:
        return str(self.account.address)

    def sign_transaction(self, transaction: dict[str, Any]) -> bytes:
        return bytes(self.account.sign_transaction(transaction).raw_transaction)


@lru_cache(maxsize=16)  # opening a keystore takes a second by design
def load_account(secret: str, chain_id: int) -> LocalAccount:
    if not secret:
        raise HyperGPUError(
            "chain.no_key",
            "No key is set; set HYPERGPU_SENDER_KEYS, or the HYPERGPU_..._KEY of whoever signs.",
        )
    if secret.startswith(KEYSTORE):
        return open_keystore(Path(secret.removeprefix(KEYSTORE)))
    if real_money(chain_id):
        raise HyperGPUError("chain.plain_key", "Where money is real a key is given as keystore:/path, never as plain text.")
    try:
        return account_of(secret)
    except (ValueError, TypeError):
        # Neither the message nor its cause may quote the key.
        raise HyperGPUError("chain.bad_key", "The key is not 32 bytes of hex.") from None


def open_keystore(path: Path) -> LocalAccount:
    try:
        password = path.with_name(path.name + ".password").read_text("utf-8").rstrip("\n")
        return account_of(Account.decrypt(json.loads(path.read_text("utf-8")), password))
    except (OSError, ValueError) as error:
        raise HyperGPUError("chain.bad_key", f"The keystore {path} does not open: {error}") from error


def account_of(key: str | bytes) -> LocalAccount:
    account: LocalAccount = Account.from_key(key)
    return account


def private_key(secret: SecretStr) -> str:
    """0x-hex of a key that signs messages, to be held no longer than they take. Raises as `KeySigner`."""
    return "0x" + bytes(load_account(secret.get_secret_value(), settings.HYPERGPU.chain_id).key).hex()


def real_money(chain_id: int) -> bool:
    env = settings.HYPERGPU
    return bool((env.chain if chain_id == env.chain_id else profile_of(chain_id)).real_money)


def sender_signers() -> list[KeySigner]:
    """The accounts that pay the gas of the outbox, in the order of the settings. Raises as `KeySigner`."""
    keys = settings.HYPERGPU.sender_keys or [SecretStr("")]
    return [KeySigner(key, chain_id=settings.HYPERGPU.chain_id) for key in keys]


def challenger_signers() -> list[KeySigner]:
    """The one account that opens cases; none where no key is set."""
    key = settings.HYPERGPU.challenger_key
    return [KeySigner(key, chain_id=settings.HYPERGPU.chain_id)] if key.get_secret_value() else []


def outbox_signers() -> list[KeySigner]:
    """All accounts that the outbox sends from. Raises as `KeySigner`."""
    return [*sender_signers(), *challenger_signers()]


def signer_for(turn: str) -> KeySigner:
    """The account of a row of intents that go one after the other (their group): always the same, and rows spread."""
    signers = (turn == CHALLENGES and challenger_signers()) or sender_signers()
    return signers[crc32(turn.encode()) % len(signers)]
