"""Keys that sign transactions. A hardware or cloud key is one more class with these two members."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from eth_account import Account
from eth_account.signers.local import LocalAccount
from pydantic import SecretStr

from trainer.protocol.errors import HyperGPUError

MONAD_MAINNET = 143
KEYSTORE = "keystore:"


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
        raise HyperGPUError("chain.no_key", "No key is set; set HYPERGPU_SENDER_KEY (HYPERGPU_ADMIN_KEY to deploy).")
    if secret.startswith(KEYSTORE):
        return open_keystore(Path(secret.removeprefix(KEYSTORE)))
    if chain_id == MONAD_MAINNET:
        raise HyperGPUError("chain.plain_key", "On mainnet a key is given as keystore:/path, never as plain text.")
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


def sender_signer() -> KeySigner:
    """The account that pays the gas of the outbox."""
    return KeySigner(settings.HYPERGPU.sender_key, chain_id=settings.HYPERGPU.chain_id)
