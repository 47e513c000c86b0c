"""ABI and bytecode: of the product as committed, of the contracts that it is compared with as compiled by the same settings."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import solcx

from scripts.compile_contracts import CONTRACTS, collect_sources, compiler_settings, read_profile


def product(name: str) -> dict[str, Any]:
    """`abi` and `bytecode`; CI holds the committed files to the sources."""
    contract: dict[str, Any] = json.loads((CONTRACTS / "abi" / f"{name}.json").read_text("utf-8"))
    return contract


@cache
def comparison(name: str) -> dict[str, Any]:
    """As `product`, of contracts/bench. Raises SolcError when it does not compile."""
    profile, unit = read_profile(), f"bench/{name}.sol"
    sources = collect_sources([unit], profile["remappings"])
    task = {"language": "Solidity", "sources": sources, "settings": compiler_settings(profile)}
    contract = solcx.compile_standard(task, solc_binary=CONTRACTS / "bin" / "solc")["contracts"][unit][name]
    return {"abi": contract["abi"], "bytecode": "0x" + contract["evm"]["bytecode"]["object"]}
