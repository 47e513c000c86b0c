"""One anvil for the folder, with mining by hand: what a test sees depends on what it does, not on the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.test import override_settings
from eth_account import Account
from pydantic import SecretStr

from marketplace.chain import projections
from marketplace.chain.follower import pass_once
from marketplace.chain.models import Intent
from marketplace.chain.services import enqueue, market_view
from marketplace.config.env import Settings
from tests.support.anvil import Anvil, chain_settings, deployed, start_anvil


@dataclass
class Chain:
    """A deployed market on a node that mines when told, with a sender account of the test's own."""

    anvil: Anvil
    folder: Path
    env: Settings

    @property
    def sender(self) -> str:
        return str(Account.from_key(self.env.sender_keys[0].get_secret_value()).address)

    def drive(self, until: Callable[[], bool], *, limit: int = 40) -> None:
        """Passes of the follower, each with a block, until the fact is there."""
        for _ in range(limit):
            pass_once()
            if until():
                return
            self.anvil.mine()
        raise AssertionError(f"not reached: {list(Intent.objects.values('key', 'state', 'reason'))}")

    def sent_transactions(self) -> int:
        return self.anvil.transactions_of(self.sender)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Anvil, Path]]:
    folder = tmp_path_factory.mktemp("deployment")
    with start_anvil(block_seconds=0.1) as anvil:
        deployed(anvil, folder)
        anvil.pause_mining()
        yield anvil, folder


@pytest.fixture
def chain(market: tuple[Anvil, Path]) -> Iterator[Chain]:
    anvil, folder = market
    sender = SecretStr(anvil.new_wallet())
    env = chain_settings(anvil, folder, sender_keys=[sender])
    with override_settings(HYPERGPU=env):
        yield Chain(anvil, folder, env)


@pytest.fixture(autouse=True)
def own_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's projections stay out: these tests are about the layer below them."""
    monkeypatch.setattr(projections, "_handlers", {})


def promise_mint(key: str, *, to: str = "", amount: int = 1, group: str = "") -> tuple[Intent, str]:
    """An intent whose effect counts: twice sent would be twice the balance."""
    to = to or Account.create().address
    return enqueue(key=key, function="mint", args=[to, amount], group=group, contract="token"), to


def balance(address: str) -> int:
    return int(market_view("balanceOf", address, contract="token", block="latest"))


def all_in(state: str, *intents: Intent) -> Callable[[], bool]:
    keys = {intent.pk for intent in intents}
    return lambda: Intent.objects.filter(pk__in=keys, state=state).count() == len(keys)


def events_on_chain(chain: Chain) -> list[tuple[int, int]]:
    """Of every contract, up to the newest final block: read past the product and its provider."""
    addresses = [chain.env.deployment[name] for name in ("market", "registry", "court")]
    query = {"fromBlock": hex(chain.env.deployment["block"]), "toBlock": "finalized", "address": addresses}
    return [(int(log["blockNumber"], 16), int(log["logIndex"], 16)) for log in chain.anvil.ask("eth_getLogs", query)]
