"""Takes docs/images/job.png from a real run: the demo's stack, its default job, the page in Chromium."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.hypergpu_demo import recipes
from scripts.hypergpu_demo.market import Market, wait_for
from scripts.hypergpu_demo.ports import free_ports
from scripts.hypergpu_demo.stack import ROOT, Stack
from scripts.hypergpu_test.debian import chromium

PICTURE = ROOT / "docs" / "images" / "job.png"
OPERATORS = 4
ROUNDS_PAID = 5


def main() -> int:
    folder = ROOT / "tests" / "browser"
    subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=folder, check=True)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="hg-") as state,
        Stack(Path(state), ports=free_ports(), operators=OPERATORS, say=print) as stack,
    ):
        job = post_digits(stack)
        environment = {**os.environ, "HYPERGPU_CHROMIUM": chromium()}
        command = ["node", "screenshot.mjs", stack.url, str(job), str(PICTURE)]
        subprocess.run(command, cwd=folder, env=environment, check=True)
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


def post_digits(stack: Stack) -> int:
    """The id of the demo's default job, once some of its rounds are paid."""
    stack.start()
    market = Market(stack)
    market.api.sign_in(stack.keys.wallet("requester"), market.domain.chain_id)
    nodes = market.join_operators()
    stack.wait_for_workers()
    market.wait_for_agents(nodes)
    spec = recipes.spec(job="digits", model=None, rounds=None, operators=OPERATORS, files={})
    job = int(market.post_job("Handwritten digits", spec)["id"])

    def paid_rounds() -> bool:
        rounds = market.api.get(f"jobs/{job}")["rounds"]
        return sum(round_["state"] == "settled" for round_ in rounds) >= ROUNDS_PAID

    wait_for(paid_rounds, what="paid rounds", seconds=180)
    return job


if __name__ == "__main__":
    sys.exit(main())
