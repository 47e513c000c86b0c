"""The keys of everybody in a demo, made once per state folder. They are worth nothing outside its local test chain."""

from __future__ import annotations

import json
import os
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

SERVICES = ("coordinator", "sender", "challenger", "admin")
ATTESTORS = ("attestor-1", "attestor-2", "attestor-3")


class Keys:
    """Wallets by name: the services, `requester`, `operator-1` and so on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def key(self, name: str) -> str:
        """0x-hex; made, and kept with mode 0600, when asked for the first time."""
        if name not in self.known:
            self.known[name] = "0x" + bytes(Account.create().key).hex()
            temporary = self.path.with_suffix(".new")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self.known, file, indent=1)
            os.replace(temporary, self.path)
        return self.known[name]

    def wallet(self, name: str) -> LocalAccount:
        return Account.from_key(self.key(name))

    def address(self, name: str) -> str:
        return str(self.wallet(name).address)
