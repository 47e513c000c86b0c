"""What real providers do to us. After each fault the chain itself is read: nothing is lost, nothing is done twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings
from eth_account import Account

from marketplace.chain import broadcasting, projections, rpc
from marketplace.chain.follower import pass_once
from marketplace.chain.indexer import index_once
from marketplace.chain.models import Alarm, Attempt, ChainLog, Intent, SenderAccount
from marketplace.chain.projections import LogEntry
from marketplace.chain.sender import assign_nonces, broadcast_due, track_receipts
from marketplace.chain.signer import signer_for
from marketplace.chain.wallet import send
from marketplace.chain.watch import watch_balances
from tests.chain.conftest import Chain, all_in, balance, events_on_chain, promise_mint
from tests.chain.test_crashes import child_environment
from tests.support.anvil import chain_settings, deployed, start_anvil, wait_until
from tests.support.faulty_rpc import FAULTS, FaultyRpc, faulty_rpc
from trainer.protocol.errors import HyperGPUError

pytestmark = pytest.mark.chain
SPEC = "0x" + "5e" * 32


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody waits long: what takes seconds in the product takes none here."""
    monkeypatch.setattr(rpc, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(broadcasting, "REBROADCAST_AFTER", broadcasting.REBROADCAST_AFTER * 0)
    rpc.connect.cache_clear()
    yield
    rpc.connect.cache_clear()


@pytest.fixture
def faulty(chain: Chain, impatient: None) -> Iterator[FaultyRpc]:
    """The provider that the product talks to; what it says is checked against the node behind it."""
    with faulty_rpc(chain.anvil.url) as node:
        yield node


def through(chain: Chain, *urls: str) -> override_settings:
    return override_settings(
        HYPERGPU=chain_settings(chain.anvil, chain.folder, rpc_urls=list(urls), sender_keys=chain.env.sender_keys)
    )


@pytest.fixture
def money(chain: Chain) -> str:
    """A wallet whose jobs make events."""
    key = chain.anvil.new_wallet()
    owner = Account.from_key(key).address
    with mined(chain):
        send(key, "mint", [owner, 1_000], contract="token", wait_final=False)
        send(key, "approve", [chain.env.market_address, 1_000], contract="token", wait_final=False)
    return key


class mined:
    """Inside, each transaction makes its own block."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def __enter__(self) -> None:
        self.chain.anvil.ask("evm_setAutomine", True)

    def __exit__(self, *_: object) -> None:
        self.chain.anvil.ask("evm_setAutomine", False)


def passes(chain: Chain, count: int) -> None:
    """Of the follower, each with a block; the provider's faults are waited out."""
    for _ in range(count):
        with suppress(HyperGPUError):
            pass_once()
        chain.anvil.mine()


def catch_up() -> None:
    """Read to the newest final block; where a gap shows, again."""
    for _ in range(2):
        with suppress(HyperGPUError):
            while index_once():
                pass


def send_what_can_be_sent() -> None:
    assign_nonces()
    broadcast_due()


STAGES = {"before anything is sent": lambda: None, "while transactions are on their way": send_what_can_be_sent}


@pytest.mark.django_db
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_provider_costs_nobody_anything(chain: Chain, faulty: FaultyRpc, money: str, fault: str, stage: str) -> None:
    told: list[int] = []
    projections.register("JobCreated", lambda entry: told.append(entry.args["job_id"]))
    with through(chain, faulty.url):
        while index_once():
            pass
        known = len(told)
        promises = [promise_mint(f"mint:{n}", group=f"g:{n % 2}") for n in range(4)]
        STAGES[stage]()
        faulty.fault = fault
        with through(chain, chain.anvil.url), mined(chain):
            jobs = [send(money, "createJob", [SPEC, 10, 3], wait_final=False).event("JobCreated")["job_id"] for _ in range(2)]
        passes(chain, 2 if fault == "slow" else 5)
        assert faulty.seen, "the provider was asked"
        faulty.fault = ""
        with through(chain, chain.anvil.url), mined(chain):
            jobs.append(send(money, "createJob", [SPEC, 10, 3], wait_final=False).event("JobCreated")["job_id"])
        while not all_in("final", *(intent for intent, _ in promises))():
            passes(chain, 1)
        chain.anvil.mine(3)  # the last job's block is final too
        catch_up()
    assert [balance(to) for _, to in promises] == [1] * 4
    assert chain.sent_transactions() == 4
    assert told[known:] == jobs, "each event told once and in order"
    assert list(ChainLog.objects.values_list("block", "log_index")) == events_on_chain(chain)


@pytest.mark.django_db
@pytest.mark.parametrize("fault", ["down", "slow", "old head", "drops transactions", "refuses transactions"])
def test_with_a_second_provider_nobody_notices_the_first(chain: Chain, faulty: FaultyRpc, fault: str) -> None:
    promises = [promise_mint(f"mint:{n}") for n in range(3)]
    faulty.fault = fault
    with through(chain, faulty.url, chain.anvil.url):
        passes(chain, 8)
        assert all_in("final", *(intent for intent, _ in promises))(), list(Intent.objects.values("state", "reason"))
    assert [balance(to) for _, to in promises] == [1, 1, 1]
    assert (chain.sent_transactions(), Attempt.objects.count()) == (3, 3)


@pytest.mark.django_db
def test_each_provider_gets_the_same_bytes(chain: Chain, faulty: FaultyRpc) -> None:
    with faulty_rpc(chain.anvil.url) as second, through(chain, faulty.url, second.url):
        intent, to = promise_mint("mint:1")
        chain.drive(all_in("final", intent))
        assert "eth_sendRawTransaction" in faulty.seen and "eth_sendRawTransaction" in second.seen
    assert (balance(to), chain.sent_transactions()) == (1, 1)


@pytest.mark.django_db
def test_an_event_that_one_provider_keeps_back_is_found_out_by_another(chain: Chain, faulty: FaultyRpc, money: str) -> None:
    seen: list[LogEntry] = []
    projections.register("JobCreated", seen.append)
    with through(chain, faulty.url, chain.anvil.url):
        while index_once():
            pass
        told, logs = len(seen), ChainLog.objects.count()
        with through(chain, chain.anvil.url), mined(chain):
            send(money, "createJob", [SPEC, 10, 3], wait_final=False)
        chain.anvil.mine(4)
        faulty.fault = "short logs"
        for _ in range(3):
            with pytest.raises(HyperGPUError) as differ:
                index_once()
            assert differ.value.code == "chain.providers_differ"
        assert (len(seen), ChainLog.objects.count()) == (told, logs)
        faulty.fault = ""
        while index_once():
            pass
    assert len(seen) == told + 1


@pytest.mark.django_db
def test_a_reorganisation_of_included_blocks_repeats_nothing(chain: Chain, impatient: None) -> None:
    """Two intents, each in a block of its own, neither final; both blocks go, and one transaction comes back by itself."""
    promises = [promise_mint(f"mint:{n}", group="g") for n in range(3)]
    chain.anvil.mine(3)
    for _ in range(2):
        assign_nonces()
        broadcast_due()
        chain.anvil.mine()
        track_receipts()
    assert all_in("included", *(intent for intent, _ in promises[:2]))()
    first = Attempt.objects.get(intent=promises[0][0])
    chain.anvil.ask("anvil_reorg", 2, [[first.raw, 1]])
    assert chain.sent_transactions() == 1
    chain.drive(all_in("final", *(intent for intent, _ in promises)))
    assert [balance(to) for _, to in promises] == [1, 1, 1]
    assert chain.sent_transactions() == Attempt.objects.count() == 3


@pytest.mark.django_db
def test_groups_spread_over_the_accounts_and_each_keeps_to_its_own(chain: Chain) -> None:
    keys = [*chain.env.sender_keys, *(type(chain.env.sender_keys[0])(chain.anvil.new_wallet()) for _ in range(3))]
    with override_settings(HYPERGPU=chain_settings(chain.anvil, chain.folder, sender_keys=keys)):
        promises = [promise_mint(f"mint:{n}", group=f"job:{n % 12}") for n in range(24)]
        chain.drive(all_in("final", *(intent for intent, _ in promises)))
        accounts = {
            group: set(Intent.objects.filter(group=group).values_list("sender__address", flat=True))
            for group in Intent.objects.values_list("group", flat=True)
        }
        assert accounts == {group: {signer_for(group).address} for group in accounts}
    used = {address for addresses in accounts.values() for address in addresses}
    assert len(used) == 4, "twelve jobs on four accounts"
    assert sum(chain.anvil.transactions_of(address) for address in used) == 24
    assert [balance(to) for _, to in promises] == [1] * 24


@pytest.mark.django_db
def test_a_hole_among_the_nonces_is_filled(chain: Chain, impatient: None) -> None:
    """Somebody else's transaction used nonce 0, ours follow, and its block is reorganised away: nobody will use 0 again."""
    key = chain.env.sender_keys[0].get_secret_value()
    foreign = {"type": 2, "chainId": 31337, "nonce": 0, "to": chain.sender, "value": 0, "gas": 21_000, "data": "0x"}
    fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
    chain.anvil.mine(3)
    chain.anvil.ask("eth_sendRawTransaction", "0x" + bytes(Account.sign_transaction(foreign | fees, key).raw_transaction).hex())
    chain.anvil.mine()
    promises = [promise_mint(f"mint:{n}") for n in range(3)]
    assign_nonces()
    assert set(Intent.objects.values_list("nonce", flat=True)) == {1, 2, 3}
    chain.anvil.ask("anvil_reorg", 1, [])
    assert chain.sent_transactions() == 0
    chain.drive(all_in("final", *(intent for intent, _ in promises)))
    fill = Intent.objects.get(kind="fill")
    assert (fill.nonce, fill.state, fill.to) == (0, "final", chain.sender)
    assert chain.sent_transactions() == 4 and [balance(to) for _, to in promises] == [1, 1, 1]
    assert SenderAccount.objects.get().next_nonce == 4


@pytest.mark.django_db
def test_a_sender_that_runs_out_of_gas_money_alarms_until_it_has_some(chain: Chain) -> None:
    watch_balances()
    assert not Alarm.objects.exists()
    chain.anvil.fund(chain.sender, 0)
    watch_balances()
    watch_balances()
    alarm = Alarm.objects.get()
    assert (alarm.code, alarm.subject) == ("chain.low_balance", chain.sender) and "0.0000 ETH" in alarm.message
    chain.anvil.fund(chain.sender)
    watch_balances()
    assert not Alarm.objects.exists()


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_two_followers_by_mistake_and_a_database_that_restarts_under_them(tmp_path: Path) -> None:
    """Two real processes on one database and one account; meanwhile the database drops every connection, twice.

    On SQLite, which has no server, the processes are restarted instead.
    """
    with start_anvil(block_seconds=0.2) as anvil:
        env = deployed(anvil, tmp_path)
        chain = Chain(anvil, tmp_path, env)
        with override_settings(HYPERGPU=env):
            promises = [promise_mint(f"mint:{n}", group=f"g:{n % 5}") for n in range(20)]
            followers = [follower(chain) for _ in range(2)]
            try:
                for sent in (4, 12):
                    wait_until(partial(were_sent, sent), what="followers to send")
                    followers = restart_database(chain, followers)
                wait_until(all_in("final", *(intent for intent, _ in promises)), what="every promise to be final")
            finally:
                for process in followers:
                    process.terminate()
                ended = [process.wait(20) for process in followers]
            assert ended == [0, 0], "no follower died of it"
            assert [balance(to) for _, to in promises] == [1] * 20
            assert chain.sent_transactions() == 20
            assert list(ChainLog.objects.values_list("block", "log_index")) == events_on_chain(chain)


def were_sent(count: int) -> bool:
    return Intent.objects.exclude(sent_at=None).count() >= count


def follower(chain: Chain) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "manage.py", "follow_chain"], env=child_environment(chain))


def restart_database(chain: Chain, followers: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """What a client sees of it: every connection is gone, whatever it was doing."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return followers
    for process in followers:
        process.kill()
        process.wait(10)
    return [follower(chain) for _ in followers]
