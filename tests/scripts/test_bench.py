"""Benchmarks: prices that follow the chains' rules to the unit, and a receipt that never costs more than it did."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path

import pytest

from marketplace.training import engine
from scripts.hypergpu_bench import paper_engine, pricing
from scripts.hypergpu_bench.catalogue import BENCHES
from scripts.hypergpu_bench.chain import Contract, local_chain
from scripts.hypergpu_bench.compiled import product
from scripts.hypergpu_bench.documents import page
from scripts.hypergpu_bench.report import Figure, Measured, Result, interval, write
from scripts.hypergpu_bench.settlement_gas import settled
from scripts.hypergpu_bench.settlement_latency import Load, run_load
from scripts.hypergpu_bench.tracing import AccountStep, StorageStep, Trace, trace
from trainer.simulation.plots import Bars, Curves

ROOT = Path(__file__).parents[2]
HERE = "0xaa"
STRANGER = "0x" + "11" * 20


def traced(*storage: StorageStep, before: dict[int, int] | None = None, accounts: tuple[AccountStep, ...] = ()) -> Trace:
    """A call without calldata whose whole execution is these steps."""
    known = {(HERE, slot): value for slot, value in (before or {}).items()}
    execution = sum(step.cost for step in [*storage, *accounts])
    return Trace(b"", 1_000, 2_000, execution, {}, list(storage), list(accounts), known)


def load(slot: int) -> StorageStep:
    return StorageStep(False, (HERE, slot), 0, 7)


def store(slot: int, value: int) -> StorageStep:
    return StorageStep(True, (HERE, slot), value, 7)


@pytest.mark.parametrize(
    ("steps", "before", "gas"),
    [
        ([load(0)], {}, 8_100),
        ([load(0), load(127)], {}, 8_100 + 100),
        ([load(127), load(128)], {}, 8_100 + 8_100),
        ([store(0, 5)], {0: 4}, 8_000 + 100 + 2_800),
        ([store(0, 5), store(1, 5)], {0: 4, 1: 4}, 8_000 + 2_800 + 200),
        ([store(0, 4)], {0: 4}, 8_100),  # nothing changes, nothing is written
        ([store(0, 5)], {}, 8_000 + 100 + 2_800 + 17_000),
        ([store(0, 0), store(1, 5)], {0: 4}, 8_000 + 2_800 + 200),  # a slot for a slot: no growth
        ([store(0, 5), store(0, 0), store(1, 5)], {}, 8_000 + 2_800 + 300 + 17_000),
        ([store(0, 5), store(1, 5)], {}, 8_000 + 2_800 + 200 + 34_000),
    ],
)
def test_monad_prices_storage_by_pages(steps: list[StorageStep], before: dict[int, int], gas: int):
    assert pricing.monad_storage(traced(*steps, before=before)) == gas
    assert pricing.monad(traced(*steps, before=before)).total == 21_000 + gas


@pytest.mark.parametrize(
    ("steps", "before", "gas", "refund"),
    [
        ([load(0), load(0)], {}, 2_100 + 100, 0),
        ([store(0, 5)], {}, 2_100 + 20_000, 0),
        ([store(0, 5)], {0: 4}, 2_100 + 2_900, 0),
        ([store(0, 0)], {0: 4}, 2_100 + 2_900, 4_800),
        ([store(0, 0), store(0, 4)], {0: 4}, 2_100 + 2_900 + 100, 2_800),
        ([store(0, 5), store(0, 0)], {}, 2_100 + 20_000 + 100, 19_900),
    ],
)
def test_ethereum_prices_storage_by_slots(steps: list[StorageStep], before: dict[int, int], gas: int, refund: int):
    assert pricing.ethereum_storage(traced(*steps, before=before)) == (gas, refund)


def test_monad_charges_accounts_and_signatures_more():
    recover = AccountStep(0xFA, 1, 3_100)
    first, again = AccountStep(0xFA, 0xBEEF, 2_600), AccountStep(0xFA, 0xBEEF, 100)
    assert pricing.monad_accounts(traced(accounts=(recover, first, again))) == [6_100, 10_100, 100]
    with pytest.raises(ValueError, match="precompile 0x8"):
        pricing.monad_accounts(traced(accounts=(replace(recover, account=8),)))


def test_large_calldata_pays_the_floor():
    plain = replace(traced(), calldata=b"\x01" * 1_000)
    assert pricing.ethereum(plain).total == 21_000 + 40 * 1_000  # EIP-7623


@pytest.mark.chain
def test_a_traced_transaction_adds_up_to_what_the_node_charged():
    with local_chain() as chain:
        token = Contract(chain, product("TestUSD"))
        calls = [
            token.send("mint", chain.sender, 1_000),
            token.send("transfer", STRANGER, 400),  # a balance more
            token.send("transfer", STRANGER, 600),  # a balance less: refunded on Ethereum
            token.send("approve", STRANGER, 0),
        ]
        for mined in calls:
            assert pricing.ethereum(trace(chain, mined)).total == mined.ethereum
        to_new, from_empty = (pricing.monad(trace(chain, mined)) for mined in calls[1:3])
        assert to_new.storage == 2 * (8_000 + 2_800) + 2 * 100 + 2 * 100 + 17_000  # each balance is read, then written
        assert (from_empty.storage, from_empty.refund) == (to_new.storage - 17_000, 0)


def test_names_are_listed():
    done = subprocess.run([sys.executable, "scripts/bench.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(BENCHES)


def test_a_result_says_how_to_get_it_again(tmp_path: Path):
    measured = Measured(seeds=(1,), conditions=("a sentence",), rows=[{"n": 1}], figures={"gas": Figure(value=2.0, unit="gas")})
    write(Result(name="x", command="./scripts/bench x", versions={"python": "3"}, measured=measured), tmp_path / "x.json")
    found = json.loads((tmp_path / "x.json").read_text())
    assert {"name", "command", "versions", "seeds", "rows", "figures"} <= set(found)
    assert found["figures"]["gas"] == {"value": 2.0, "unit": "gas", "goal": None, "low": None, "high": None}


def test_the_interval_of_a_mean_is_students():
    mean, low, high = interval([1.0, 2.0, 3.0])
    half = 4.302653 / 3**0.5  # t with 2 degrees of freedom, a standard deviation of 1
    assert (mean, low, high) == (2.0, pytest.approx(2 - half), pytest.approx(2 + half))
    assert interval([5.0]) == (5.0, None, None)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_what_can_be_plotted_is_a_png_beside_the_result(tmp_path: Path):
    lines = {"a": [(0, 3.0), (1, 2.0)], "b": [(0, 3.0, 2.9, 3.1), (1, 2, 1.9, 2.1)]}
    curves = Curves(title="loss", x="round", y="nats", lines=lines)
    bars = Bars(title="pay", x="%", bars={"honest": (100.0,), "lazy": (4.0, 3.0, 6.0)}, goal=5)
    measured = Measured(seeds=(1,), conditions=(), rows=[], figures={}, plots=(curves, bars))
    write(Result(name="x", command="c", versions={}, measured=measured), tmp_path / "x.json")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_paper_engine_offers_what_the_products_does():
    missing = [name for name in engine.__all__ if not callable(getattr(paper_engine, name, None))]
    assert missing == []
    for name in engine.__all__:
        theirs, ours = (signature(getattr(module, name)).parameters for module in (engine, paper_engine))
        needed = [[name for name, one in each.items() if one.default is Parameter.empty] for each in (theirs, ours)]
        assert needed[0] == needed[1], name


@pytest.mark.processes
def test_nodes_on_paper_are_paid_by_the_real_processes():
    found = run_load(Load("few", "per-receipt", jobs=2, nodes=3, quick_nodes=3), quick=True)
    assert len(found["rounds"][0]["waits"]) == 6
    chain = found["chain"]
    assert (chain["handed_in"], chain["settled"]) == (6, 6)
    assert (chain["lost"], chain["paid_twice"], chain["paid_for_nothing"]) == (0, 0, 0)
    assert (chain["per_receipt_transactions"], chain["settle_transactions"]) == (6, 2)
    assert chain["amount"] == chain["credit_on_chain"] == chain["spent_of_escrow"] > 0


BENCHMARKS = ROOT / "docs" / "benchmarks"


@pytest.mark.chain
@pytest.mark.parametrize("receipts", [10, 100])
def test_a_receipt_costs_no_more_gas_than_the_committed_figures_say(receipts: int):
    """Deterministic to the unit. When it costs less, run the command of docs/benchmarks again."""
    seed, (first, steady) = 1, settled(1, receipts, layout="dense")
    rows = json.loads((BENCHMARKS / "settlement-gas.json").read_text())["rows"]
    for found in (first, steady):
        same = ("settleRound", "dense", found.payment, receipts)
        [row] = [row for row in rows if (row["what"], row["layout"], row["payment"], row["receipts"]) == same]
        committed = row["gas_by_seed"][str(seed)]
        assert found.monad <= committed["monad"] and found.ethereum <= committed["ethereum"]


def test_the_page_of_benchmarks_says_what_the_results_say():
    """Made by `python -m scripts.hypergpu_bench.documents`."""
    assert (BENCHMARKS / "README.md").read_text() == page()


def test_committed_results_are_of_commands_that_exist():
    results = [json.loads(path.read_text()) for path in BENCHMARKS.glob("*.json")]
    assert {result["name"] for result in results} <= set(BENCHES)
    assert all(result["command"] == f"./scripts/bench {result['name']}" for result in results)
