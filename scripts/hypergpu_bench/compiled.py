"""ABI and bytecode: of the product as committed, of the contracts that it is compared with as compiled by the same settings."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from typing import Any

import solcx

from scripts.compile_contracts import CONTRACTS, IMPORT, compiler_settings, resolve_import


def product(name: str) -> dict[str, Any]:
    """`abi` and `bytecode`; CI holds the committed files to the sources."""
    contract: dict[str, Any] = json.loads((CONTRACTS / "abi" / f"{name}.json").read_text("utf-8"))
    return contract


@cache
def comparison(name: str) -> dict[str, Any]:
    """As `product`, of contracts/bench. Raises SolcError when it does not compile."""
    profile = tomllib.loads((CONTRACTS / "foundry.toml").read_text("utf-8"))["profile"]["default"]
    unit = f"bench/{name}.sol"
    task = {"language": "Solidity", "sources": sources(unit, profile["remappings"]), "settings": compiler_settings(profile)}
    output = solcx.compile_standard(task, solc_binary=CONTRACTS / "bin" / "solc")
    contract = output["contracts"][unit][name]
    return {"abi": contract["abi"], "bytecode": "0x" + contract["evm"]["bytecode"]["object"]}


def sources(unit: str, remappings: list[str]) -> dict[str, dict[str, str]]:
    """The source unit and all that it imports."""
    waiting, found = [unit], {}
    while waiting:
        unit = waiting.pop()
        if unit not in found:
            content = (CONTRACTS / unit).read_text("utf-8")
            found[unit] = {"content": content}
            waiting += [resolve_import(unit, target, remappings) for target in IMPORT.findall(content)]
    return found
