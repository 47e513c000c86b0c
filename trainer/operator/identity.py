"""The node's hot key, made here and never leaving; the operator's wallet key never comes here."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account import Account

from trainer.protocol.errors import HyperGPUError

PASSWORD_VARIABLE = "HYPERGPU_KEY_PASSWORD"


def load_or_create_key(path: Path, environment: Mapping[str, str] = os.environ) -> str:
    """The hot key as 0x-hex. A new one is written with mode 0600, as an encrypted keystore (Web3 Secret Storage) when
    HYPERGPU_KEY_PASSWORD is set.

    Raises HyperGPUError `key.locked` (no or a wrong password), `key.open_to_others` or `key.malformed`.
    """
    password = environment.get(PASSWORD_VARIABLE)
    if not path.exists():
        create_key(path, password)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise HyperGPUError("key.open_to_others", f"Others may read the hot key; run: chmod 600 {path}")
    content = path.read_text().strip()
    try:
        key = unlock(json.loads(content), password) if content.startswith("{") else content
        Account.from_key(key)
    except ValueError as error:
        raise HyperGPUError("key.malformed", f"{path} holds no key: {error}. Move it away to make a new one.") from error
    return key


def create_key(path: Path, password: str | None) -> None:
    account = Account.create()
    content = json.dumps(Account.encrypt(account.key, password)) if password else "0x" + bytes(account.key).hex()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # unlike a rename, never takes the place of a key that another process made meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def unlock(keystore: dict[str, Any], password: str | None) -> str:
    if not password:
        raise HyperGPUError("key.locked", f"The hot key is encrypted; set {PASSWORD_VARIABLE}.")
    try:
        return "0x" + bytes(Account.decrypt(keystore, password)).hex()
    except ValueError as error:
        raise HyperGPUError("key.locked", f"{PASSWORD_VARIABLE} does not open the hot key: {error}") from error


def address_of(private_key: str) -> str:
    return str(Account.from_key(private_key).address)
