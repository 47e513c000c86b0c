#!/usr/bin/env python3
"""Measures what marketplace/chain/gas.py knows of settleRound, on Ethereum's prices and on Monad's (re-priced traces).

    scripts/fit_gas.py          print the table, and how far it is off for each measured call
    scripts/fit_gas.py --write  put it into gas.py as well

Nodes are paid for the second time: what a first payment adds, the sender's dry run sees. Least squares of the relative error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")

import django  # noqa: E402

django.setup()

from marketplace.chain import abi  # noqa: E402
from marketplace.chain.gas import RECEIPT_BYTES, calldata_gas, pages  # noqa: E402
from scripts.hypergpu_bench import pricing  # noqa: E402
from scripts.hypergpu_bench.chain import local_chain  # noqa: E402
from scripts.hypergpu_bench.market import Market  # noqa: E402
from scripts.hypergpu_bench.tracing import trace  # noqa: E402

SIZES = {3: (1, 2, 10, 40, 100, 150), 1: (1, 10, 60), 5: (1, 10, 60), 9: (1, 20)}
"""Receipts of a batch, by attestors that open."""
TABLE = ROOT / "marketplace" / "chain" / "gas.py"
BEGIN, END = "FITTED: dict[GasSchedule, Fitted] = {\n", "}  # fmt: skip\n"
COLUMNS = ("call", "opening", "receipt", "score", "sort", "compare", "page")


def main() -> int:
    recorded = measured_record()
    rows = [row for attestors in SIZES for row in measured(attestors)]
    table: list[str] = []
    design = np.array([features for features, _, _ in rows], float)
    for schedule in ("ethereum", "monad"):
        used = np.array([gas[schedule] for _, _, gas in rows], float)
        calldata = np.array([calldata for _, calldata, _ in rows], float)
        fitted, *_ = np.linalg.lstsq(design / used[:, None], (used - calldata) / used, rcond=None)
        shown = ", ".join(f"{name}={value:_.0f}" for name, value in zip(COLUMNS, fitted, strict=True))
        table.append(f'    "{schedule}": Fitted(\n        {shown}, record={recorded[schedule]:_}\n    ),')
        print(table[-1])
        for features, ratio in zip(design, (design @ fitted + calldata) / used, strict=True):
            print(f"    {features[2]:4.0f} receipts, {features[1]:2.0f} attestors: {100 * (ratio - 1):+.1f} %")
    if "--write" in sys.argv[1:]:
        text = TABLE.read_text("utf-8")
        head, rest = text.split(BEGIN)
        TABLE.write_text(head + BEGIN + "\n".join(table) + "\n" + rest[rest.index(END) :], "utf-8")
    return 0


def measured(attestors: int) -> list[tuple[list[int], int, dict[str, int]]]:
    """Of each size: what the formula reads of the calldata, the calldata's own gas, and what the call took."""
    rows = []
    with local_chain() as chain:
        market = Market(chain, seed=attestors, attestors=attestors)
        for size in SIZES[attestors]:
            job, nodes = market.job(size)
            for round_ in range(2):
                mined = market.settle(job, round_, market.receipts(job, round_, nodes))
            _, receipts, shown = abi.decode_arguments("market", "settleRound", "0x" + mined.calldata.hex())
            count, opened, traced = len(receipts) // RECEIPT_BYTES, len(shown), trace(chain, mined)
            features = [1, opened, count, count * opened, *sorting(count, opened), pages(receipts)]
            gas = {"ethereum": mined.ethereum, "monad": pricing.monad(traced).total}
            rows.append((features, calldata_gas("0x" + mined.calldata.hex()), gas))
    return rows


def measured_record() -> dict[str, int]:
    """What submitContribution takes besides its calldata."""
    with local_chain() as chain:
        market = Market(chain, seed=1, attestors=1)
        job, nodes = market.job(1)
        mined = market.submit(job, 0, market.receipt(job, 0, nodes[0]))
        calldata = calldata_gas("0x" + mined.calldata.hex())
        return {"ethereum": mined.ethereum - calldata, "monad": pricing.monad(trace(chain, mined)).total - calldata}


def sorting(count: int, opened: int) -> tuple[int, int]:
    return (count * opened, count * opened * opened) if opened > 3 else (0, 0)


if __name__ == "__main__":
    sys.exit(main())
