#!/usr/bin/env python3
"""Compiles the contracts and writes what the other languages and block explorers read of them.

    scripts/compile_contracts.py           write contracts/{abi,metadata}/*.json and frontend/src/chain/abi.ts
    scripts/compile_contracts.py --check   exit 1 when the committed files differ

The compiler is npm's `solc` (contracts/bin/solc), driven by py-solc-x, so nothing is downloaded. The settings
are those of contracts/foundry.toml: forge tests the same bytecode that these files deploy. contracts/metadata holds
what the compiler was given for each contract (its standard JSON input), which is what a source verifier asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import solcx

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
DEPLOYABLES = {
    "AttestorRegistry": "src/AttestorRegistry.sol",
    "ComputeMarket": "src/ComputeMarket.sol",
    "DisputeCourt": "src/DisputeCourt.sol",
    "TestUSD": "src/TestUSD.sol",
    "TimelockController": "node_modules/@openzeppelin/contracts/governance/TimelockController.sol",
}
"""What `deploy_contracts` puts on a chain, by source unit."""
CODE_OF = {"ComputeMarket": ("src/MarketAccounts.sol", "MarketAccounts")}
"""Contracts that run the code of another on their own storage: both ABIs are theirs, and both storages must be alike."""
PAGE = {"ComputeMarket": "computeMarketAbi", "TestUSD": "testUsdAbi"}
"""What the page calls, by the name of its constant."""
IMPORT = re.compile(r'^import\s+(?:[^"]*\bfrom\s+)?"([^"]+)";', re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    arguments = parser.parse_args()
    if not (CONTRACTS / "node_modules" / "solc").is_dir():
        print("The compiler is missing: run `npm ci --ignore-scripts` in contracts/.", file=sys.stderr)
        return 2
    mirrors = render_mirrors(compile_contracts())
    stale = [path for path, text in mirrors.items() if not path.exists() or path.read_text("utf-8") != text]
    if arguments.check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/compile_contracts.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(mirrors[path], "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def compile_contracts() -> dict[str, dict[str, Any]]:
    """`{"abi": [...], "bytecode": "0x...", "input": {...}}` of each deployable contract, each compiled from its own input
    alone: whoever gives `input` to the same solc gets the same bytecode. Raises SolcError when one does not compile."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(DEPLOYABLES, pool.map(compile_contract, DEPLOYABLES), strict=True))


def compile_contract(name: str) -> dict[str, Any]:
    source = standard_input([name])
    output = solcx.compile_standard(source, solc_binary=CONTRACTS / "bin" / "solc")
    contract = output["contracts"][DEPLOYABLES[name]][name]
    abi = contract["abi"]
    if name in CODE_OF:
        unit, other = CODE_OF[name]
        abi = merge_abi(contract, output["contracts"][unit][other])
    return {"abi": abi, "bytecode": "0x" + contract["evm"]["bytecode"]["object"], "input": source}


def merge_abi(contract: dict[str, Any], code: dict[str, Any]) -> list[dict[str, Any]]:
    """The ABI of `contract` and what `code`, which it runs, adds. Raises ValueError when their storages differ."""
    slots, others = ([(item["slot"], item["offset"], item["label"]) for item in each["storageLayout"]["storage"]]
                     for each in (contract, code))  # fmt: skip
    if slots != others:
        raise ValueError("Both contracts must declare the same storage, in the same order.")
    own = [item for item in contract["abi"] if item["type"] != "fallback"]
    return own + [item for item in code["abi"] if item not in own and item["type"] != "constructor"]


def standard_input(names: Iterable[str]) -> dict[str, Any]:
    """Standard JSON input that compiles these contracts, and what they import, as they are deployed."""
    profile = read_profile()
    sources = collect_sources([DEPLOYABLES[name] for name in names], profile["remappings"])
    return {"language": "Solidity", "sources": sources, "settings": compiler_settings(profile)}


def read_profile() -> dict[str, Any]:
    """The profile of contracts/foundry.toml with which forge compiles what is deployed."""
    profile: dict[str, Any] = tomllib.loads((CONTRACTS / "foundry.toml").read_text("utf-8"))["profile"]["default"]
    return profile


def compiler_settings(profile: dict[str, Any]) -> dict[str, Any]:
    """Standard-JSON settings as forge makes them of foundry.toml."""
    return {
        "remappings": profile["remappings"],
        "optimizer": {"enabled": profile["optimizer"], "runs": profile["optimizer_runs"]},
        "metadata": {"bytecodeHash": profile["bytecode_hash"], "appendCBOR": profile["cbor_metadata"]},
        "evmVersion": profile["evm_version"],
        "viaIR": profile["via_ir"],
        "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "storageLayout"]}},
    }


def collect_sources(units: list[str], remappings: list[str]) -> dict[str, dict[str, str]]:
    """These source units and all that they import, by name, which is the path from contracts/."""
    waiting = list(units)
    sources: dict[str, dict[str, str]] = {}
    while waiting:
        unit = waiting.pop()
        if unit in sources:
            continue
        content = (CONTRACTS / unit).read_text("utf-8")
        sources[unit] = {"content": content}
        waiting += [resolve_import(unit, target, remappings) for target in IMPORT.findall(content)]
    return dict(sorted(sources.items()))


def resolve_import(unit: str, target: str, remappings: list[str]) -> str:
    if target.startswith("."):
        return ((CONTRACTS / unit).parent / target).resolve().relative_to(CONTRACTS).as_posix()
    for remapping in remappings:
        prefix, path = remapping.split("=")
        if target.startswith(prefix):
            return path + target.removeprefix(prefix)
    raise FileNotFoundError(f"{unit} imports {target}, which no remapping in foundry.toml covers")


def render_mirrors(contracts: dict[str, dict[str, Any]]) -> dict[Path, str]:
    """The text of each generated file."""
    mirrors = {}
    for name, contract in contracts.items():
        deployed = {"abi": contract["abi"], "bytecode": contract["bytecode"]}
        mirrors[CONTRACTS / "abi" / f"{name}.json"] = json.dumps(deployed, indent=2) + "\n"
        mirrors[CONTRACTS / "metadata" / f"{name}.json"] = json.dumps(contract["input"], indent=2) + "\n"
    constants = [
        f"export const {constant} = {json.dumps(contracts[name]['abi'], indent=2)} as const;\n" for name, constant in PAGE.items()
    ]
    header = "// Generated by scripts/compile_contracts.py from contracts/src. Do not edit.\n"
    mirrors[ROOT / "frontend" / "src" / "chain" / "abi.ts"] = header + "\n" + "\n".join(constants)
    return mirrors


if __name__ == "__main__":
    sys.exit(main())
