"""What a wallet shows before it signs (contracts/clear-signing, ERC-7730 v2) against what the contracts and messages are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from eth_utils.abi import abi_to_signature

from scripts.clear_signing import FOLDER, TARGETS, bind, read
from trainer.protocol.types import Acceptance, Bid, Delegation, Seating, Withdrawal

ABI = FOLDER.parent / "abi"
SCHEMA = json.loads(Path(__file__).with_name("erc7730.schema.json").read_text("utf-8"))
CONTRACTS = ("ComputeMarket", "AttestorRegistry", "DisputeCourt")
NOT_FOR_WALLETS = {
    # Called by the other contracts, by the deployer once, or through the timelock, whose own call is what is signed.
    "ComputeMarket": {
        "beginEpoch", "penalize", "award", "holdRecord", "dropRecord", "holdCredit", "freeCredit", "connect",
        "setPeriphery", "setCoordinator", "setTerms", "setGuardian", "transferOwnership", "renounceOwnership",
    },
    "AttestorRegistry": {
        "admit", "slash", "addInsurance", "payInsurance", "transferOwnership", "acceptOwnership", "renounceOwnership",
    },
    "DisputeCourt": set(),
}  # fmt: skip
RECEIVE = "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"


def formats(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(name)["display"]["formats"]
    return found


def functions(contract: str) -> dict[str, list[dict[str, Any]]]:
    """Inputs of each function that changes state, by its name and types."""
    abi = json.loads((ABI / f"{contract}.json").read_text("utf-8"))["abi"]
    changing = [e for e in abi if e["type"] == "function" and e["stateMutability"] not in ("view", "pure")]
    return {abi_to_signature(e): e["inputs"] for e in changing}


def parsed(key: str) -> dict[str, Any]:
    """The function that a key of `formats` describes, as an ABI has it."""
    return {"type": "function", "name": key[: key.index("(")], "inputs": fields_of(key[key.index("(") + 1 : -1])}


def fields_of(text: str) -> list[dict[str, Any]]:
    """`uint32 nodeId,(address to,...) withdrawal`: what stands between the brackets of a key."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [field_of(part) for part in parts if part]


def field_of(part: str) -> dict[str, Any]:
    kind, _, name = part.rpartition(" ")
    if not kind.startswith("("):
        return {"type": kind, "name": name}
    end = kind.rindex(")")
    return {"type": "tuple" + kind[end + 1 :], "name": name, "components": fields_of(kind[1:end])}


def misnamed(described: list[dict[str, Any]], actual: list[dict[str, Any]]) -> list[str]:
    """Fields that the ABI names otherwise; it may leave a parameter without a name."""
    wrong = []
    for ours, theirs in zip(described, actual, strict=True):
        wrong += [ours["name"]] if theirs["name"] not in ("", ours["name"]) else []
        wrong += misnamed(ours.get("components", []), theirs.get("components", []))
    return wrong


def leaves(inputs: list[dict[str, Any]], prefix: str = "") -> set[str]:
    """Paths of all plain values; `[]` stands for every element."""
    paths: set[str] = set()
    for item in inputs:
        path = prefix + item["name"] + (".[]" if item["type"].endswith("[]") else "")
        paths |= leaves(item["components"], path + ".") if item["type"].startswith("tuple") else {path}
    return paths


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_descriptors_are_of_the_standard_form(path: Path):
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_text("utf-8")))


def test_every_descriptor_is_bound_to_a_contract():
    assert {path.stem for path in FOLDER.glob("*.json")} == {*TARGETS, "common-hypergpu"}


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_call_that_a_wallet_may_sign_is_described_as_it_is(contract: str):
    calls = functions(contract)
    described = {abi_to_signature(parsed(key)): (parsed(key)["inputs"], shown) for key, shown in
                 formats(f"calldata-{contract}").items()}  # fmt: skip
    assert {c.split("(")[0] for c in calls} >= NOT_FOR_WALLETS[contract]
    assert set(described) == {c for c in calls if c.split("(")[0] not in NOT_FOR_WALLETS[contract]}
    for call, (inputs, shown) in described.items():
        assert misnamed(inputs, calls[call]) == []
        assert {field["path"] for field in shown["fields"]} == leaves(inputs), call


def test_every_message_that_a_wallet_signs_is_described_as_it_is():
    signed = [f"{m.__name__}({','.join(f'{kind} {name}' for name, kind in m.FIELDS.items())})"
              for m in (Acceptance, Bid, Delegation, Seating, Withdrawal)]  # fmt: skip
    assert sorted(formats("eip712-ComputeMarket")) == signed
    assert list(formats("eip712-ReceiveWithAuthorization")) == [RECEIVE]
    for name in ("eip712-ComputeMarket", "eip712-ReceiveWithAuthorization"):
        for key, shown in formats(name).items():
            assert {field["path"] for field in shown["fields"]} == leaves(parsed(key)["inputs"])


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_sentence_names_only_fields_that_are_always_shown(name: str):
    definitions = read(name)["display"]["definitions"]
    for shown in formats(name).values():
        always = {field["path"] for field in shown["fields"] if field.get("visible", "always") == "always"}
        assert set(re.findall(r"{(.*?)}", shown.get("interpolatedIntent", ""))) <= always
        assert {field["$ref"].split(".")[-1] for field in shown["fields"] if "$ref" in field} <= set(definitions)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_money_is_shown_as_money(name: str):
    money = re.compile(r"\b(amount|fee|escrow|maxRate|rate|bond|stakeAmount|spent|value)$")
    for shown in formats(name).values():
        for field in shown["fields"]:
            if money.search(field["path"]):
                assert field.get("$ref", field.get("format")) in ("$.display.definitions.tokenAmount", "tokenAmount")


def test_a_bound_descriptor_names_its_deployment_and_token():
    market, token = "0x" + "11" * 20, "0x" + "22" * 20
    bound = bind(read("calldata-ComputeMarket"), chain_id=31337, address=market, token=token)
    jsonschema.Draft202012Validator(SCHEMA).validate(bound)
    assert bound["context"]["contract"]["deployments"] == [{"chainId": 31337, "address": market}]
    assert bound["metadata"]["maps"]["token"]["values"] == {"31337": token}
    assert bound["metadata"]["owner"] == "HyperGPU"
    assert read("calldata-ComputeMarket")["context"]["contract"]["deployments"] == []
