"""What the other apps ask of the chain. Light to import: only what asks a node loads web3, when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings

from marketplace.chain import abi
from marketplace.chain.models import Intent
from marketplace.chain.signer import KeySigner
from marketplace.chain.values import checksummed
from trainer.protocol.eip712 import Domain
from trainer.protocol.errors import HyperGPUError

if TYPE_CHECKING:
    from marketplace.chain.rpc import Rpc


def enqueue(*, key: str, function: str, args: list[Any], group: str = "", contract: abi.Contract = "market") -> Intent:
    """Promise a call, in the caller's transaction; the sender keeps the promise after commit.

    `key` is the call's natural identity: asking again with the same key answers the intent of the first time.
    Intents of one `group` ("job:7") are sent in the order of their ids, each after the one before is included; others,
    and those without a group, run in parallel.
    Raises HyperGPUError `chain.unknown_function`, `chain.bad_arguments`, `chain.not_deployed`.
    """
    data = abi.encode_call(contract, function, args)
    intent, _ = Intent.objects.get_or_create(
        key=key, defaults={"kind": function, "group": group, "to": contract_address(contract), "data": data}
    )
    return intent


def domain() -> Domain:
    """Where signatures count: this chain, this market. Raises HyperGPUError `chain.not_deployed`."""
    return Domain(chain_id=settings.HYPERGPU.chain_id, contract=contract_address("market"))


def coordinator_address() -> str:
    """Of the key that signs work orders, as agents pin it, and consents to seats. Raises HyperGPUError `chain.no_coordinator`."""
    key = settings.HYPERGPU.coordinator_key
    if not key.get_secret_value():
        raise HyperGPUError("chain.no_coordinator", "No coordinator is known; set HYPERGPU_COORDINATOR_KEY.")
    return KeySigner(key, chain_id=settings.HYPERGPU.chain_id).address


def contract_address(contract: abi.Contract) -> str:
    """Checksummed address of the deployment in use. Raises HyperGPUError `chain.not_deployed`."""
    address = settings.HYPERGPU.deployment.get(contract, "")
    if not address:
        raise HyperGPUError("chain.not_deployed", "No contracts are deployed here yet; run `manage.py deploy_contracts`.")
    return checksummed(address)


def watched() -> dict[str, abi.Contract]:
    """The contracts whose events are read, by checksummed address."""
    return {contract_address(contract): contract for contract in abi.WATCHED if contract in settings.HYPERGPU.deployment}


def finalized_block() -> int:
    """Number of the newest block that cannot be undone. Raises HyperGPUError `chain.unreachable`."""
    return node().block("finalized").number


def final_block_hash(wanted: int) -> str | None:
    """Hash (0x-hex) of a block that cannot be undone; None while it is not final. Raises HyperGPUError `chain.unreachable`."""
    from marketplace.chain.rpc import block_call, parse_block  # noqa: PLC0415

    final, found = (parse_block(answer) for answer in node().read(block_call("finalized"), block_call(wanted)))
    return found.hash if final and found and final.number >= wanted else None


def settled_evidence(job_id: int, number: int, *, block: int) -> str | None:
    """SHA-256 (64 hex digits) of the evidence of round `number`, as its RoundSettled in this block names it; None where the block
    has none, or is not final. Raises HyperGPUError `chain.unreachable`, `chain.refused`.
    """
    from marketplace.chain.rpc import block_call, parse_block  # noqa: PLC0415

    query = {"fromBlock": hex(block), "toBlock": hex(block), "address": contract_address("market")}
    head, logs = node().read(block_call("finalized"), ("eth_getLogs", [query]))
    final = parse_block(head)
    events = [event for log in logs if (event := abi.decode_log("market", log["topics"], log["data"]))]
    place = {"job_id": job_id, "round": number}
    found = {args["evidence"] for name, args in events if name == "RoundSettled" and place.items() <= args.items()}
    return str(found.pop()).removeprefix("0x") if len(found) == 1 and final and final.number >= block else None


def market_view(function: str, *args: Any, contract: abi.Contract = "market", block: str = "finalized") -> Any:
    """What a view of the market (or another contract) answers, as plain values: a struct is a dict with snake_case keys.

    `block` is "finalized", or "latest" for what may still be undone.
    Raises HyperGPUError `chain.reverted` with the contract's reason, `chain.unreachable`, `chain.not_deployed`.
    """
    call = {"to": contract_address(contract), "data": abi.encode_call(contract, function, list(args))}
    answer = node().answers([("eth_call", [call, block])])[0]
    if isinstance(answer, str):
        return abi.decode_result(contract, function, answer)
    reason = abi.decode_error(answer.data) if answer.data else answer.message
    raise HyperGPUError("chain.reverted" if answer.is_revert else "chain.refused", f"{function}: {reason}", reason=reason)


def node() -> Rpc:
    from marketplace.chain.rpc import rpc  # noqa: PLC0415  web3 takes a second to import; only who asks the chain pays it

    return rpc()
