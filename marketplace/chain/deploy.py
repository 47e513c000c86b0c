"""Puts the contracts on a chain, at addresses known beforehand, and writes down where they are.

Addresses are a function of bytecode and constructor arguments (CREATE2, EIP-1014, through the deployer contract that
nearly every chain has at the same address: github.com/Arachnid/deterministic-deployment-proxy). So a deployment that was
cut off is simply run again: what is there already is what would be deployed, and is not deployed again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings
from eth_utils.crypto import keccak

from marketplace.chain import abi
from marketplace.chain.rpc import FINALIZED, LATEST, Fault, rpc
from marketplace.chain.services import coordinator_address
from marketplace.chain.signer import KeySigner
from marketplace.chain.terms import Terms
from marketplace.chain.values import camel_keys, checksummed
from marketplace.chain.wallet import transact
from trainer.protocol.errors import HyperGPUError

CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
NOBODY = "0x" + "00" * 20
STANDARD_JSON = Path("contracts", "metadata")
"""Where each contract's compiler input is (standard JSON), by which explorers verify its source."""


@dataclass(frozen=True, slots=True)
class Part:
    """One contract of a deployment, before it exists."""

    contract: abi.Contract
    arguments: list[Any]
    salt: str

    @property
    def init_code(self) -> bytes:
        return bytes.fromhex(abi.encode_constructor(self.contract, self.arguments).removeprefix("0x"))

    @property
    def address(self) -> str:
        """keccak256(0xff || deployer || salt || keccak256(init code))[12:] (EIP-1014)."""
        parts = [b"\xff", hex_bytes(CREATE2_DEPLOYER), hex_bytes(self.salt), keccak(self.init_code)]
        return checksummed("0x" + keccak(b"".join(parts))[12:].hex())


def plan(terms: Terms, *, deployer: str, token: str, release: str) -> list[Part]:
    """Every contract, in the order of deployment, each with the addresses of those before it.

    `token` empty: the test token is one of them. `release` is part of the salts: another one gives other addresses.
    """
    parts: list[Part] = []

    def add(contract: abi.Contract, *arguments: Any) -> str:
        salt = "0x" + keccak(text=f"HyperGPU {abi.SOURCES[contract]} {release}").hex()
        parts.append(Part(contract, list(arguments), salt))
        return parts[-1].address

    token = token or add("token")
    timelock = add("timelock", terms.delay, [deployer], [NOBODY], NOBODY)
    market = add("market", token, asdict(terms.market), timelock, terms.guardian or deployer, deployer)
    registry = add("registry", market, timelock, asdict(terms.registry), list(terms.admitted))
    add("court", market, registry, terms.arbiter or deployer, asdict(terms.court))
    return parts


def deploy(*, terms: Terms, token: str = "", release: str = "1") -> tuple[dict[str, Any], bool]:
    """The deployment, and whether it is new. With a deployment file whose code is on the chain, nothing happens.

    The test token is deployed too unless `token` names one. The admin key of the settings pays, and is the timelock's
    proposer. Cut off anywhere, it goes on where it was. Returns when everything is final.
    Raises HyperGPUError `chain.deployment_lost`, `chain.other_contracts`, `chain.no_token`, `chain.no_coordinator`,
    `chain.no_code`, `chain.other_periphery`, and those of `wallet.transact`.
    """
    path = settings.HYPERGPU.deployment_path
    if path.exists():
        return existing_deployment(path), False
    if not token and settings.HYPERGPU.chain.real_money:
        raise HyperGPUError(
            "chain.no_token", "Where money is real name the token that pays (--token); the test token mints to anyone."
        )
    coordinator = checksummed(terms.coordinator or coordinator_address())
    signer = KeySigner(settings.HYPERGPU.admin_key, chain_id=settings.HYPERGPU.chain_id)
    for address in filter(None, (CREATE2_DEPLOYER, token)):
        require_code(address)
    parts = plan(terms, deployer=signer.address, token=token, release=release)
    log = DeploymentLog.open(path.with_suffix(".progress"))
    for part in parts:
        put(part, signer, log)
    addresses = {part.contract: part.address for part in parts}
    connect(addresses, coordinator, signer, log)
    for address in addresses.values():
        require_code(address, tag=FINALIZED)
    deployment = describe(
        parts, replace(terms, coordinator=coordinator), signer.address, token=token or addresses["token"], log=log
    )
    write(path, deployment)
    log.path.unlink()
    settings.HYPERGPU.__dict__.pop("deployment", None)  # it is read once, and may have been empty until now
    return deployment, True


@dataclass
class DeploymentLog:
    """What this deployment has sent, kept on disk beside it: block `begun` is before all of it."""

    path: Path
    begun: int
    blocks: dict[str, int]
    transactions: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> DeploymentLog:
        if path.exists():
            return cls(path, **json.loads(path.read_text("utf-8")))
        log = cls(path, begun=rpc().block(LATEST).number, blocks={}, transactions={})
        log.save()
        return log

    def save(self) -> None:
        write(self.path, {"begun": self.begun, "blocks": self.blocks, "transactions": self.transactions})

    def note(self, name: str, tx_hash: str, block: int) -> None:
        self.transactions[name], self.blocks[name] = tx_hash, block
        self.save()


def put(part: Part, signer: KeySigner, log: DeploymentLog) -> None:
    """Deploy one contract, unless it is there."""
    if code_at(part.address) == "0x":
        try_constructor(part)
        sent = transact(signer, to=CREATE2_DEPLOYER, data=part.salt + part.init_code.hex(), wait_final=False)
        log.note(part.contract, sent.tx_hash, sent.block)
        require_code(part.address)


def try_constructor(part: Part) -> None:
    """The deployer contract swallows the reason of a constructor that refuses; a dry run without it tells."""
    create = {"from": CREATE2_DEPLOYER, "data": "0x" + part.init_code.hex()}
    answer = rpc().answers([("eth_call", [create, LATEST])])[0]
    if isinstance(answer, Fault):
        reason = abi.decode_error(answer.data) if answer.data else answer.message
        raise HyperGPUError("chain.reverted", f"{abi.SOURCES[part.contract]} refuses its arguments: {reason}", reason=reason)


def connect(addresses: dict[abi.Contract, str], coordinator: str, signer: KeySigner, log: DeploymentLog) -> None:
    """Tell the market once where registry and court are, and who consents to seats. It is the last transaction: final, it
    makes all final."""
    wanted = [addresses["registry"], addresses["court"], coordinator]
    known = [ask(addresses["market"], "market", name) for name in ("registry", "court", "coordinator")]
    if known == wanted:
        return
    if known != [NOBODY] * 3:
        raise HyperGPUError("chain.other_periphery", f"The market at {addresses['market']} is connected to {known} already.")
    sent = transact(signer, to=addresses["market"], data=abi.encode_call("market", "connect", wanted))
    log.note("connect", sent.tx_hash, sent.block)


def describe(parts: list[Part], terms: Terms, deployer: str, *, token: str, log: DeploymentLog) -> dict[str, Any]:
    """All that is needed to find the contracts, and to check that they are what they are said to be."""
    arguments = {part.contract: [camel_keys(argument) for argument in part.arguments] for part in parts}
    return {
        "chainId": settings.HYPERGPU.chain_id, **{part.contract: part.address for part in parts}, "token": token,
        # Whoever put the market there before us, its events are not older than what this deployment began at.
        "block": log.blocks.get("market", log.begun), "deployer": deployer,
        "coordinator": terms.coordinator, "transactions": log.transactions,
        "create2": {"deployer": CREATE2_DEPLOYER, "salts": {part.contract: part.salt for part in parts}},
        "constructor": arguments,
        "bytecodeHash": {part.contract: bytecode_hash(part.contract) for part in parts},
        "initCodeHash": {part.contract: "0x" + keccak(part.init_code).hex() for part in parts},
        "standardJson": {part.contract: digest for part in parts if (digest := standard_json_hash(part.contract))},
        "terms": camel_keys(asdict(terms)),
        "tokenInfo": {name: ask(token, "token", name) for name in ("name", "symbol", "decimals")},
    }  # fmt: skip


def standard_json_hash(contract: abi.Contract) -> str:
    """keccak256 of the compiler's input, as committed; empty when there is none."""
    path = Path(settings.BASE_DIR, STANDARD_JSON, f"{abi.SOURCES[contract]}.json")
    return "0x" + keccak(path.read_bytes()).hex() if path.exists() else ""


def existing_deployment(path: Path) -> dict[str, Any]:
    deployment: dict[str, Any] = json.loads(path.read_text("utf-8"))
    there = deployment["chainId"] == settings.HYPERGPU.chain_id
    if not there or code_at(deployment["market"]) == "0x":
        raise HyperGPUError(
            "chain.deployment_lost",
            f"{path} names a market at {deployment['market']} on chain {deployment['chainId']}, and this chain has none there. "
            "If the chain was reset, begin with an empty state folder and database; else correct HYPERGPU_RPC_URLS or "
            "HYPERGPU_DEPLOYMENT_FILE.",
        )
    ours = {contract: bytecode_hash(contract) for contract in deployment["constructor"]}
    if deployment.get("bytecodeHash") != ours:
        raise HyperGPUError(
            "chain.other_contracts",
            f"The contracts that {path} names are of another version than this program, which would not understand them. "
            "Run the version that deployed them, or begin anew with an empty state folder (scripts/demo --fresh).",
        )
    return deployment


def bytecode_hash(contract: abi.Contract) -> str:
    """keccak256 of the creation code without arguments: which version of the contract it is."""
    return "0x" + keccak(hexstr=abi.compiled(contract)["bytecode"]).hex()


def ask(address: str, contract: abi.Contract, function: str) -> Any:
    answer = rpc().ask("eth_call", {"to": address, "data": abi.encode_call(contract, function, [])}, LATEST)
    return abi.decode_result(contract, function, answer)


def code_at(address: str, *, tag: str = LATEST) -> str:
    return str(rpc().ask("eth_getCode", address, tag))


def require_code(address: str, *, tag: str = LATEST) -> None:
    if code_at(address, tag=tag) == "0x":
        raise HyperGPUError("chain.no_code", f"There is no contract at {address} (in the {tag} block).")


def hex_bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    partial.replace(path)
