"""Trust on first use: the coordinator and the chain that an agent met first are the ones it works for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.operator.config import write_json
from trainer.protocol.eip712 import Domain
from trainer.protocol.errors import HyperGPUError


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """Who signs this node's work orders, and the contract for which it signs receipts."""

    coordinator: str
    chain_id: int
    contract: str

    @property
    def domain(self) -> Domain:
        return Domain(chain_id=self.chain_id, contract=self.contract)


def pin_from_hello(answer: dict[str, Any]) -> Pin:
    domain = answer["domain"]
    return Pin(coordinator=answer["coordinator"], chain_id=domain["chain_id"], contract=domain["contract"])


def pin_from_network(answer: dict[str, Any]) -> Pin:
    return Pin(coordinator=answer["coordinator"], chain_id=answer["chain"]["id"], contract=answer["contracts"]["market"])


def read_pin(path: Path) -> Pin | None:
    return Pin(**json.loads(path.read_text())) if path.exists() else None


def hold_to_pin(path: Path, seen: Pin) -> Pin:
    """Keep the first; refuse another. Raises HyperGPUError `coordinator.changed`."""
    kept = read_pin(path)
    if kept is None:
        write_json(path, asdict(seen))
        return seen
    changed = [name for name, value in asdict(kept).items() if str(value).lower() != str(getattr(seen, name)).lower()]
    if changed:
        differences = "; ".join(f"{name} was {getattr(kept, name)}, now {getattr(seen, name)}" for name in changed)
        raise HyperGPUError(
            "coordinator.changed",
            f"This is not the coordinator that this agent met first: {differences}. "
            f"If you know why, delete {path} and start again.",
        )
    return kept
