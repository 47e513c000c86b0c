"""Solidity values as plain ones, and back.

Plain values are ints, bools, strings, 0x-hex for bytes, checksummed addresses, lists, and dicts with snake_case keys
for structs: what JSON holds and people read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eth_utils.abi import collapse_if_tuple
from eth_utils.address import is_address, to_checksum_address


def types(components: Sequence[Mapping[str, Any]]) -> list[str]:
    """Canonical types, with structs as tuples: what eth_abi and signatures are made of."""
    return [collapse_if_tuple(dict(component)) for component in components]


def raw(component: Mapping[str, Any], value: Any) -> Any:
    """A plain value as eth_abi takes it. Stricter than eth_abi, which pads short bytes. Raises ValueError, KeyError."""
    kind: str = component["type"]
    if kind.endswith("]"):
        return [raw({**component, "type": kind[: kind.rindex("[")]}, item) for item in value]
    if kind == "tuple":
        return raw_tuple(component["components"], value)
    if kind.startswith("bytes"):
        body = value if isinstance(value, bytes) else bytes.fromhex(value.removeprefix("0x"))
        if kind != "bytes" and len(body) != int(kind[5:]):
            raise ValueError(f"{component['name']} is {len(body)} bytes long, not {kind[5:]}")
        return body
    if kind == "address" and not is_address(value):
        raise ValueError(f"{component['name']} is not an address: {value!r}")
    return value


def raw_tuple(components: list[dict[str, Any]], value: Any) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        value = [value[item["name"]] if item["name"] in value else value[snake(item["name"])] for item in components]
    return tuple(raw(item, part) for item, part in zip(components, value, strict=True))


def plain(component: Mapping[str, Any], value: Any) -> Any:
    kind: str = component["type"]
    if kind.endswith("]"):
        return [plain({**component, "type": kind[: kind.rindex("[")]}, item) for item in value]
    if kind == "tuple":
        return {snake(item["name"]): plain(item, part) for item, part in zip(component["components"], value, strict=True)}
    if kind.startswith("bytes"):
        return "0x" + value.hex()
    return to_checksum_address(value) if kind == "address" else value


def checksummed(address: str) -> str:
    return str(to_checksum_address(address))


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower().strip("_")


def camel_keys(value: Any) -> Any:
    """The same with camelCase keys, as in Solidity."""
    if isinstance(value, Mapping):
        return {camel(key): camel_keys(item) for key, item in value.items()}
    return [camel_keys(item) for item in value] if isinstance(value, list | tuple) else value


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
