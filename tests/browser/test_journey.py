"""A real Chromium with a wallet of its own against the real processes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from eth_account import Account

from scripts.hypergpu_demo.market import Market
from scripts.hypergpu_demo.stack import ROOT
from tests.support.stack import running_stack

pytestmark = pytest.mark.browser
PICTURES = ROOT / ".state" / "test" / "browser"


def test_a_stranger_signs_in_registers_with_stake_posts_a_job_and_sees_it_train():
    wallet = Account.create()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with running_stack(operators=2) as market:
        key = "0x" + bytes(wallet.key).hex()
        link = registration_link(market, wallet.address)
        done = subprocess.run(
            ["node", "journey.mjs", market.stack.url, key, link, str(PICTURES)],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=240, env=os.environ.copy(),
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr.strip().splitlines()[-1]}\n{done.stderr}"
        seen = json.loads(done.stdout)
        assert_it_is_on_chain(market, wallet.address, node=seen["node"], job=seen["job"])


def registration_link(market: Market, operator: str) -> str:
    """What `hypergpu agent delegate` prints on the GPU machine of a new operator."""
    command = [*market.agent_command("delegate"), "--operator", operator, "--home", str(market.stack.state / "agents" / "new")]
    done = subprocess.run(command, cwd=ROOT, env=market.stack.processes.env, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["link"])


def assert_it_is_on_chain(market: Market, address: str, *, node: int, job: int) -> None:
    view = market.chain.market.functions
    assert view.getNode(node).call()[0] == address
    assert view.getOperator(address).call()[0] >= market.min_stake
    posted = market.api.get(f"jobs/{job}")["job"]
    assert posted["requester"] == address
    assert view.getJob(posted["chain_id"]).call()[0] == address
    assert any(bid["rate"] == "4" for bid in market.api.get(f"operators/{address}")["bids"])
