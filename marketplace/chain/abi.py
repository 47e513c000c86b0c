"""The contracts' interface: arguments to calldata, and logs, results and errors back to plain values.

No web3 here, so that web processes may encode calls without loading it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.crypto import keccak

from marketplace.chain.values import plain, raw, snake, types
from trainer.protocol.errors import HyperGPUError

Contract = Literal["market", "token", "registry", "court", "timelock"]
SOURCES: dict[Contract, str] = {
    "market": "ComputeMarket", "token": "TestUSD", "registry": "AttestorRegistry", "court": "DisputeCourt",
    "timelock": "TimelockController",
}  # fmt: skip
WATCHED: tuple[Contract, ...] = ("market", "registry", "court")
"""Contracts whose events are read."""
PANICS = {0x01: "assertion", 0x11: "arithmetic overflow", 0x12: "division by zero", 0x32: "index out of range"}


@cache
def compiled(contract: Contract) -> dict[str, Any]:
    """`{"abi": [...], "bytecode": "0x..."}` as scripts/compile_contracts.py wrote it."""
    text = Path(settings.BASE_DIR, "contracts", "abi", f"{SOURCES[contract]}.json").read_text("utf-8")
    return dict(json.loads(text))


@cache
def entries(contract: Contract, kind: str) -> dict[str, dict[str, Any]]:
    """Functions, events or errors of a contract by name."""
    return {entry["name"]: entry for entry in compiled(contract)["abi"] if entry["type"] == kind}


def hash_of(entry: dict[str, Any]) -> bytes:
    """keccak256 of the signature: its first 4 bytes select a function or error, all 32 are an event's topic."""
    return keccak(text=f"{entry['name']}({','.join(types(entry['inputs']))})")


def encode_call(contract: Contract, function: str, args: list[Any]) -> str:
    """Calldata as 0x-hex. Structs may be lists or dicts, bytes 0x-hex.

    Raises HyperGPUError `chain.unknown_function` or `chain.bad_arguments`.
    """
    entry = function_entry(contract, function)
    return "0x" + (hash_of(entry)[:4] + encode_arguments(entry, args)).hex()


def encode_constructor(contract: Contract, args: list[Any]) -> str:
    """Creation code with its arguments."""
    entry = next(item for item in compiled(contract)["abi"] if item["type"] == "constructor")
    return str(compiled(contract)["bytecode"]) + encode_arguments({"name": "constructor", **entry}, args).hex()


def function_entry(contract: Contract, function: str) -> dict[str, Any]:
    entry = entries(contract, "function").get(function)
    if entry is None:
        raise HyperGPUError("chain.unknown_function", f"{SOURCES[contract]} has no function {function}.")
    return entry


def encode_arguments(entry: dict[str, Any], args: list[Any]) -> bytes:
    try:
        values = [raw(component, value) for component, value in zip(entry["inputs"], args, strict=True)]
        return encode(types(entry["inputs"]), values)
    except (EncodingError, ValueError, TypeError, KeyError) as error:
        raise HyperGPUError("chain.bad_arguments", f"The arguments do not fit {entry['name']}: {error}") from error


def decode_arguments(contract: Contract, function: str, data: str) -> tuple[Any, ...]:
    """The arguments of a call, as eth_abi decodes them: structs as tuples, bytes as bytes."""
    entry = function_entry(contract, function)
    return tuple(decode(types(entry["inputs"]), bytes.fromhex(data.removeprefix("0x"))[4:]))


def decode_result(contract: Contract, function: str, data: str) -> Any:
    """The plain value; a dict by name when the function returns several. Raises HyperGPUError `chain.bad_answer`."""
    outputs = function_entry(contract, function)["outputs"]
    try:
        values = decode(types(outputs), bytes.fromhex(data.removeprefix("0x")))
    except DecodingError as error:
        raise HyperGPUError(
            "chain.bad_answer", f"{function} answered otherwise than its interface; is the contract there?"
        ) from error
    results = [plain(component, value) for component, value in zip(outputs, values, strict=True)]
    return results[0] if len(results) == 1 else {snake(o["name"]): r for o, r in zip(outputs, results, strict=True)}


def event_name(contract: Contract, event: str) -> str:
    """ "JobCreated" of the market, "registry.EpochBegun" of another: two contracts may name an event alike."""
    return event if contract == "market" else f"{contract}.{event}"


@cache
def event_names() -> frozenset[str]:
    """Every name that `decode_log` may answer for a watched contract."""
    return frozenset(event_name(contract, event) for contract in WATCHED for event in entries(contract, "event"))


def decode_log(contract: Contract, topics: list[str], data: str) -> tuple[str, dict[str, Any]] | None:
    """(name, args) of an event of the contract; None for one that this version does not know."""
    entry = events_by_topic(contract).get(topics[0]) if topics else None
    if entry is None:
        return None
    indexed = iter(topics[1:])
    body = iter(decode(types([i for i in entry["inputs"] if not i["indexed"]]), bytes.fromhex(data.removeprefix("0x"))))
    values = {snake(item["name"]): event_value(item, indexed, body) for item in entry["inputs"]}
    return event_name(contract, entry["name"]), values


def event_value(component: dict[str, Any], indexed: Iterator[str], body: Iterator[Any]) -> Any:
    if not component["indexed"]:
        return plain(component, next(body))
    return plain(component, decode([component["type"]], bytes.fromhex(next(indexed)[2:]))[0])


@cache
def events_by_topic(contract: Contract) -> dict[str, dict[str, Any]]:
    return {"0x" + hash_of(entry).hex(): entry for entry in entries(contract, "event").values()}


@cache
def errors_by_selector() -> dict[str, dict[str, Any]]:
    return {hash_of(entry)[:4].hex(): entry for contract in SOURCES for entry in entries(contract, "error").values()}


def decode_error(data: str) -> str:
    """A revert in words: `UnexpectedBatch(job_id=7, ...)`, a revert string, or a panic (Solidity ABI)."""
    body = bytes.fromhex(data.removeprefix("0x"))
    selector, body = body[:4].hex(), body[4:]
    if not selector:
        return "reverted without a reason"
    entry = errors_by_selector().get(selector)
    try:
        if selector == "08c379a0":
            return str(decode(["string"], body)[0])
        if selector == "4e487b71":
            panic = decode(["uint256"], body)[0]
            return f"panic: {PANICS.get(panic, hex(panic))}"
        if entry is not None:
            values = zip(entry["inputs"], decode(types(entry["inputs"]), body), strict=True)
            details = ", ".join(f"{snake(item['name'])}={plain(item, value)}" for item, value in values)
            return f"{entry['name']}({details})"
    except DecodingError:
        return f"reverted with malformed data 0x{selector}"
    return f"reverted with unknown error 0x{selector}"
