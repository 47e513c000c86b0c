"""The key that pays the gas of a settlement: from a keystore, or from the environment; never from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from trainer.protocol.errors import HyperGPUError

KEY_VARIABLE = "HYPERGPU_KEY"
MONAD_MAINNET = 143


def load_key(
    *,
    chain_id: int,
    keystore: Path | None,
    password_file: Path | None,
    environment: Mapping[str, str],
    ask: Callable[[str], str],
) -> LocalAccount:
    """The account of `keystore` (Web3 Secret Storage; the password from `password_file`, else `ask` is called), or of
    HYPERGPU_KEY where money is not real.

    Raises HyperGPUError `key.missing`, `key.plain`, `key.malformed` or `key.locked`.
    """
    if keystore is not None:
        return open_keystore(keystore, password_file, ask)
    key = environment.get(KEY_VARIABLE, "")
    if not key:
        raise HyperGPUError("key.missing", f"Say whose gas it is: --keystore FILE, or {KEY_VARIABLE} in the environment.")
    if chain_id == MONAD_MAINNET:
        raise HyperGPUError("key.plain", "On mainnet a key comes from an encrypted --keystore, never from the environment.")
    try:
        account: LocalAccount = Account.from_key(key)
    except (ValueError, TypeError):
        # Neither the message nor its cause may quote the key.
        raise HyperGPUError("key.malformed", f"{KEY_VARIABLE} is not 32 bytes of hex.") from None
    return account


def open_keystore(path: Path, password_file: Path | None, ask: Callable[[str], str]) -> LocalAccount:
    try:
        content = json.loads(path.read_text("utf-8"))
        password = password_file.read_text("utf-8").rstrip("\n") if password_file else ask(f"Password of {path}: ")
    except (OSError, ValueError) as error:
        raise HyperGPUError("key.malformed", f"{path} cannot be read as a keystore: {error}") from error
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(content, password))
    except (ValueError, KeyError, TypeError) as error:
        raise HyperGPUError("key.locked", f"The keystore {path} does not open: {error}") from error
    return account
