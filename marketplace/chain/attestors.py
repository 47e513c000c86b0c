"""Attestors of the demo and of tests join the registry. Those of strangers do it with their own wallets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from pydantic import SecretStr

from marketplace.chain.services import contract_address, market_view
from marketplace.chain.signer import KeySigner, private_key
from marketplace.chain.wallet import send
from trainer.protocol import eip712
from trainer.protocol.types import AttestorKey


def join_attestors(keys: Sequence[SecretStr]) -> dict[str, Any]:
    """Bond for each key with the admin's wallet (in test money where there is such), register it, and begin the first epoch.

    What was done already is passed over. Returns the current epoch as the market sees it: epoch, members, quorum.
    Raises HyperGPUError `chain.reverted` when the registry refuses, and those of `wallet.send` and `signer.KeySigner`.
    """
    admin = settings.HYPERGPU.admin_key.get_secret_value()
    chain_id = settings.HYPERGPU.chain_id
    owner = KeySigner(settings.HYPERGPU.admin_key, chain_id=chain_id).address
    addresses = [KeySigner(key, chain_id=chain_id).address for key in keys]
    waiting = [
        (key, address) for key, address in zip(keys, addresses, strict=True)
        if not market_view("attestorOf", address, contract="registry", block="latest")
    ]  # fmt: skip
    bond = int(settings.HYPERGPU.deployment["terms"]["registry"]["minBond"])
    if waiting:
        if "token" in settings.HYPERGPU.deployment["create2"]["salts"]:  # the test token
            send(admin, "mint", [owner, bond * len(waiting)], contract="token", wait_final=False)
        send(admin, "approve", [contract_address("registry"), bond * len(waiting)], contract="token", wait_final=False)
    for key, signer in waiting:
        possession = eip712.sign(registry_domain(), AttestorKey(owner=owner, signer=signer), private_key(key))
        send(admin, "join", [signer, bond, possession], contract="registry", wait_final=False)
    # With more of them than a set takes, the first call names the block that draws, and a later one draws.
    while not (attestors := market_view("getAttestors", block="latest"))["epoch"]:
        send(admin, "beginEpoch", [], contract="registry")
    return dict(attestors)


def registry_domain() -> eip712.Domain:
    """Where an attestor's word to the registry counts."""
    return eip712.Domain(chain_id=settings.HYPERGPU.chain_id, contract=contract_address("registry"), name=eip712.REGISTRY)
