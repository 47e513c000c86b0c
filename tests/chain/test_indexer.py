"""Every finalized event once and in order, whatever dies, lags or lies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.test import override_settings
from eth_account import Account
from eth_utils.address import to_checksum_address

from marketplace.chain import abi, indexer, projections, windows
from marketplace.chain.indexer import index_once
from marketplace.chain.models import ChainLog, Cursor
from marketplace.chain.pace import paced
from marketplace.chain.projections import LogEntry
from marketplace.chain.rpc import Call, Node, rpc
from marketplace.chain.sequences import COUNTED, follows
from marketplace.chain.services import watched
from marketplace.chain.values import snake
from marketplace.chain.wallet import send
from tests.chain.conftest import Chain
from tests.support.anvil import chain_settings
from trainer.protocol.errors import HyperGPUError

pytestmark = [pytest.mark.chain, pytest.mark.django_db]
REAL_ANSWERS = Node.answers
SPEC = "0x" + "5e" * 32


@pytest.fixture
def jobs(chain: Chain) -> Callable[[int], list[int]]:
    """Posts so many jobs with money in escrow; their ids on chain."""
    key = chain.anvil.new_wallet()

    def post(count: int) -> list[int]:
        chain.anvil.ask("evm_setAutomine", True)
        try:
            owner = Account.from_key(key).address
            send(key, "mint", [owner, 10 * count], contract="token", wait_final=False)
            send(key, "approve", [chain.env.market_address, 10 * count], contract="token", wait_final=False)
            sent = [send(key, "createJob", [SPEC, 10, 3], wait_final=False) for _ in range(count)]
        finally:
            chain.anvil.ask("evm_setAutomine", False)
        chain.anvil.mine(3)
        return [one.event("JobCreated")["job_id"] for one in sent]

    return post


@pytest.fixture
def seen() -> list[LogEntry]:
    """What the projection of new jobs was told."""
    entries: list[LogEntry] = []
    projections.register("JobCreated", entries.append)
    return entries


def catch_up() -> None:
    while index_once():
        pass


def lie(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[str], list[Any]], list[Any]]) -> None:
    def answers(node: Node, calls: Sequence[Call]) -> list[Any]:
        return change([method for method, _ in calls], REAL_ANSWERS(node, calls))

    monkeypatch.setattr(Node, "answers", answers)


def refused(code: str) -> None:
    def state() -> tuple[list[Any], list[Any]]:
        return list(Cursor.objects.values_list("block", "block_hash")), list(ChainLog.objects.values())

    before = state()
    with pytest.raises(HyperGPUError) as refusal:
        index_once()
    assert refusal.value.code == code
    assert state() == before


def test_finalized_events_arrive_in_order_with_plain_values(
    chain: Chain, jobs: Callable[[int], list[int]], seen: list[LogEntry]
) -> None:
    first, second = jobs(2)
    catch_up()
    assert [entry.args["job_id"] for entry in seen][-2:] == [first, second]
    entry = seen[-1]
    assert entry.args["spec"] == SPEC and entry.args["escrow"] == 10 and entry.args["max_rate"] == 3
    sender = chain.anvil.ask("eth_getTransactionByHash", entry.tx_hash)["from"]
    assert entry.args["requester"] == to_checksum_address(sender)
    header = chain.anvil.ask("eth_getBlockByNumber", hex(entry.block), False)
    assert (entry.block_hash, entry.timestamp) == (header["hash"], int(header["timestamp"], 16))
    row = ChainLog.objects.get(tx_hash=entry.tx_hash, name="JobCreated")
    assert row.args == entry.args


def test_what_is_not_final_is_not_read(chain: Chain, jobs: Callable[[int], list[int]], seen: list[LogEntry]) -> None:
    catch_up()
    count, finalized = len(seen), int(chain.anvil.ask("eth_getBlockByNumber", "finalized", False)["number"], 16)
    assert Cursor.objects.get().block == finalized < int(chain.anvil.ask("eth_blockNumber"), 16)
    assert index_once() == 0
    jobs(1)
    catch_up()
    assert len(seen) == count + 1


def test_a_projection_that_dies_leaves_neither_rows_nor_cursor_and_is_told_again(
    chain: Chain, jobs: Callable[[int], list[int]], seen: list[LogEntry]
) -> None:
    catch_up()
    told = len(seen)
    before = Cursor.objects.get().block, ChainLog.objects.count()
    posted = jobs(3)

    def die(entry: LogEntry) -> None:
        if entry.args["job_id"] == posted[1]:
            raise RuntimeError("killed between rows and cursor")

    projections.register("JobCreated", die)
    with pytest.raises(HyperGPUError, match="JobCreated of block") as choked:
        catch_up()
    assert choked.value.code == "chain.projection_failed"
    assert (Cursor.objects.get().block, ChainLog.objects.count()) == before
    projections._handlers["JobCreated"].remove(die)
    del seen[told:]  # what it was told before it died was rolled back with it
    catch_up()
    assert [entry.args["job_id"] for entry in seen[told:]] == posted
    assert index_once() == 0


def test_two_indexers_apply_a_window_once(chain: Chain, jobs: Callable[[int], list[int]], seen: list[LogEntry]) -> None:
    jobs(1)
    catch_up()
    jobs(1)
    node, cursor = rpc(), Cursor.objects.get()
    window = windows.read_window(node, cursor, watched())
    assert window is not None
    told = len(seen)
    assert indexer.apply(window, cursor) is True
    assert indexer.apply(window, cursor) is False
    assert len(seen) == told + 1


def test_a_long_way_is_read_in_windows(chain: Chain, jobs: Callable[[int], list[int]], seen: list[LogEntry]) -> None:
    posted = jobs(2)
    chain.anvil.mine(30)
    moves = []
    narrow = chain_settings(chain.anvil, chain.folder, sender_keys=chain.env.sender_keys, chain_log_range=7)
    with override_settings(HYPERGPU=narrow):
        while moved := index_once():
            moves.append(moved)
    assert max(moves) == 7 and len(moves) > 4
    assert [entry.args["job_id"] for entry in seen][-2:] == posted
    assert Cursor.objects.get().block == int(chain.anvil.ask("eth_getBlockByNumber", "finalized", False)["number"], 16)


def test_a_node_that_is_behind_the_cursor_is_refused(chain: Chain, jobs: Callable[[int], list[int]]) -> None:
    catch_up()
    Cursor.objects.update(block=10**6)
    refused("chain.node_behind")


def test_short_logs_of_a_node_without_the_blocks_are_refused(
    chain: Chain, jobs: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch, seen: list[LogEntry]
) -> None:
    """The finalized head came from one node; the logs come from another that silently answers with what it has."""
    catch_up()
    told = len(seen)
    jobs(1)

    def lagging(methods: list[str], answers: list[Any]) -> list[Any]:
        return [answers[0], answers[1], None, []] if "eth_getLogs" in methods else answers

    with monkeypatch.context() as patch:
        lie(patch, lagging)
        refused("chain.node_behind")
    catch_up()
    assert len(seen) == told + 1


def test_a_node_whose_own_finality_is_older_is_refused(
    chain: Chain, jobs: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up()
    jobs(1)

    def lagging(methods: list[str], answers: list[Any]) -> list[Any]:
        return [answers[1], *answers[1:]] if "eth_getLogs" in methods else answers

    lie(monkeypatch, lagging)
    refused("chain.node_behind")


def test_logs_of_blocks_that_are_not_canonical_are_refused(
    chain: Chain, jobs: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up()
    jobs(1)

    def other_fork(methods: list[str], answers: list[Any]) -> list[Any]:
        if "eth_getLogs" in methods:
            answers[3] = [{**log, "blockHash": "0x" + "11" * 32} for log in answers[3]]
        return answers

    lie(monkeypatch, other_fork)
    refused("chain.bad_answer")


def test_an_event_that_was_kept_from_us_shows_and_is_found(
    chain: Chain, jobs: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch, seen: list[LogEntry]
) -> None:
    catch_up()
    told = len(seen)
    first, second = jobs(1)[0], 0

    def forgetful(methods: list[str], answers: list[Any]) -> list[Any]:
        return [*answers[:3], []] if "eth_getLogs" in methods else answers

    with monkeypatch.context() as patch:
        lie(patch, forgetful)
        catch_up()
    assert len(seen) == told  # lost, and nothing says so yet
    second = jobs(1)[0]
    with pytest.raises(HyperGPUError) as gap:
        catch_up()
    assert gap.value.code == "chain.gap"
    catch_up()
    assert [entry.args["job_id"] for entry in seen[told:]] == [first, second]
    assert ChainLog.objects.filter(name="JobCreated", args__job_id=first).count() == 1


def undo(chain: Chain, *, blocks: int) -> None:
    """Put other, empty blocks in the place of the newest ones: another miner's, lest they be the same."""
    chain.anvil.ask("anvil_setCoinbase", Account.create().address)
    chain.anvil.ask("anvil_reorg", blocks, [])


def test_final_blocks_that_told_nothing_may_be_undone(
    chain: Chain, jobs: Callable[[int], list[int]], seen: list[LogEntry]
) -> None:
    """A node called blocks final that were not. Nothing was read in them, so they are read again."""
    posted = jobs(1)
    chain.anvil.mine(6)
    catch_up()
    told = list(seen)
    undo(chain, blocks=5)
    posted += jobs(1)
    with pytest.raises(HyperGPUError) as undone:
        catch_up()
    assert undone.value.code == "chain.rewound"
    assert Cursor.objects.get().block == told[-1].block
    catch_up()
    assert [entry.args["job_id"] for entry in seen[len(told) - 1 :]] == posted
    assert ChainLog.objects.filter(name="JobCreated").count() == len(seen)


def test_final_blocks_whose_events_were_applied_cannot_be_undone(chain: Chain, jobs: Callable[[int], list[int]]) -> None:
    jobs(1)
    catch_up()
    before = Cursor.objects.get()
    undo(chain, blocks=6)
    refused("chain.history_changed")
    chain.anvil.mine(6)
    refused("chain.history_changed")
    assert Cursor.objects.get().block == before.block


def test_the_window_halves_on_trouble_and_grows_while_it_is_quick(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor = Cursor.objects.create(name="market:x", block=0, span=100)
    log_range = chain.env.chain.log_range

    def read(*, seconds: float, fails: bool = False) -> int:
        times = iter([0.0, seconds])
        with contextlib.suppress(TimeoutError), paced(cursor, clock=lambda: next(times)):
            if fails:
                raise TimeoutError
        assert Cursor.objects.get().span == cursor.span
        return cursor.span

    assert [read(seconds=9), read(seconds=0, fails=True), read(seconds=2), read(seconds=0.1)] == [50, 25, 25, 35]
    for _ in range(8):
        read(seconds=0, fails=True)
    assert cursor.span == 1
    for _ in range(log_range):
        read(seconds=0)
    assert cursor.span == log_range


def test_another_chain_is_refused(chain: Chain) -> None:
    with override_settings(HYPERGPU=chain.env.model_copy(update={"chain_id": 10143})):
        refused("chain.wrong_chain")


def test_an_address_without_a_contract_is_refused(chain: Chain) -> None:
    env = chain.env.model_copy()
    env.__dict__["deployment"] = {**chain.env.deployment, "market": Account.create().address}
    with override_settings(HYPERGPU=env):
        refused("chain.not_deployed")


def test_a_projection_of_an_event_that_never_comes_is_refused() -> None:
    with pytest.raises(HyperGPUError) as refusal:
        projections.register("NodeRegisterd", print)
    assert refusal.value.code == "chain.unknown_event"


def numbered(name: str, **args: Any) -> LogEntry:
    return LogEntry(name, args, 1, "0x", "0x", 0, 0)


@pytest.mark.parametrize(
    ("before", "args", "fits"),
    [
        (None, {"round": 0, "batch": 0, "last": True}, True),
        (None, {"round": 1, "batch": 0, "last": True}, False),
        ({"round": 0, "batch": 0, "last": False}, {"round": 0, "batch": 1}, True),
        ({"round": 0, "batch": 0, "last": True}, {"round": 1, "batch": 0}, True),
        ({"round": 0, "batch": 0, "last": True}, {"round": 2, "batch": 0}, False),
        ({"round": 0, "batch": 0, "last": False}, {"round": 1, "batch": 0}, False),
    ],
)
def test_settled_rounds_count_without_gaps(before: dict[str, Any] | None, args: dict[str, Any], fits: bool) -> None:
    last = ChainLog(name="RoundSettled", args=before) if before else None
    assert follows(numbered("RoundSettled", **args), last) is fits


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_numbered_counts_without_gaps(name: str) -> None:
    number = COUNTED[name][1]
    first = ChainLog(name=name, args={number: 1})
    assert follows(numbered(name, **{number: 1}), None) and follows(numbered(name, **{number: 2}), first)
    assert not follows(numbered(name, **{number: 2}), None) and not follows(numbered(name, **{number: 3}), first)
    assert number in {snake(item["name"]) for item in event_entry(name)["inputs"]}


def event_entry(name: str) -> dict[str, Any]:
    contract, _, event = name.rpartition(".")
    return abi.entries(contract or "market", "event")[event]


def test_faults_and_cases_of_the_court_share_one_row() -> None:
    last = ChainLog(name="court.CaseOpened", args={"case_id": 4})
    assert follows(numbered("court.ReceiptFaultProven", case_id=5), last)
