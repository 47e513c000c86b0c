"""Deployment, the people's own wallets, and what anybody may read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from pydantic import SecretStr

from marketplace.chain import abi, deploy, wallet
from marketplace.chain.attestors import join_attestors
from marketplace.chain.services import coordinator_address, domain, finalized_block, market_view
from marketplace.chain.wallet import send
from marketplace.config.env import Settings
from tests.chain.conftest import Chain
from tests.support.anvil import Anvil, chain_settings, start_anvil
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import Delegation

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def quick() -> Iterator[Anvil]:
    """A node that mines by itself: wallets wait for finality here."""
    with start_anvil(block_seconds=0.05) as anvil:
        yield anvil


@pytest.fixture
def env(quick: Anvil, tmp_path: Path) -> Iterator[Settings]:
    env = chain_settings(quick, tmp_path)
    quick.fund(Account.from_key(env.admin_key.get_secret_value()).address)
    with override_settings(HYPERGPU=env):
        yield env


def deploy_contracts(*arguments: str) -> str:
    out = StringIO()
    call_command("deploy_contracts", *arguments, stdout=out)
    return out.getvalue()


def test_deploying_writes_where_everything_is_and_does_nothing_the_second_time(env: Settings, quick: Anvil) -> None:
    assert deploy_contracts("--min-stake", "5").startswith("deployed: market 0x")
    written = env.deployment_path.read_text()
    deployment = json.loads(written)
    assert deployment["tokenInfo"] == {"name": "HyperGPU Test USD", "symbol": "tUSD", "decimals": 6}
    assert (
        int(quick.ask("eth_getTransactionReceipt", deployment["transactions"]["market"])["blockNumber"], 16)
        == deployment["block"]
    )
    assert deployment["block"] <= finalized_block()
    assert deployment["terms"]["market"]["minStake"] == market_view("terms")["min_stake"] == 5
    named = ("registry", "court", "coordinator")
    assert [market_view(name) for name in named] == [deployment[name] for name in named]
    assert deployment["coordinator"] == coordinator_address()
    admin = Account.from_key(env.admin_key.get_secret_value()).address
    count = quick.transactions_of(admin)
    assert deploy_contracts().startswith("already there, nothing done")
    assert (env.deployment_path.read_text(), quick.transactions_of(admin)) == (written, count)


def test_another_machine_that_coordinates_is_named_to_the_market(env: Settings, quick: Anvil, tmp_path: Path) -> None:
    elsewhere = Account.create().address
    keyless = chain_settings(quick, tmp_path, coordinator_key=SecretStr(""))
    with override_settings(HYPERGPU=keyless):
        with pytest.raises(CommandError, match=r"chain\.no_coordinator"):
            deploy_contracts("--release", "coordinated")
        deploy_contracts("--release", "coordinated", "--coordinator", elsewhere.lower())
        assert json.loads(keyless.deployment_path.read_text())["coordinator"] == market_view("coordinator") == elsewhere


def test_addresses_follow_from_what_the_file_says(env: Settings) -> None:
    """What a stranger does with the file: bytecode and arguments give the addresses, by CREATE2."""
    deploy_contracts("--release", "follow")
    deployment = json.loads(env.deployment_path.read_text())
    create2 = deployment["create2"]
    assert set(create2["salts"]) == {"token", "timelock", "market", "registry", "court"}
    for name, salt in create2["salts"].items():
        code = abi.encode_constructor(name, deployment["constructor"][name])
        assert deployment["initCodeHash"][name] == "0x" + keccak(hexstr=code).hex()
        parts = b"\xff" + bytes.fromhex(create2["deployer"][2:] + salt[2:]) + keccak(hexstr=code)
        assert to_checksum_address(keccak(parts)[12:]) == deployment[name]


class CutOff(BaseException):
    pass


@pytest.mark.parametrize("after", range(6))
def test_a_deployment_that_was_cut_off_goes_on_where_it_was(
    env: Settings, quick: Anvil, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    admin = Account.from_key(env.admin_key.get_secret_value()).address
    before, real, left = quick.transactions_of(admin), wallet.transact, [None] * after
    quick.mine()  # the first test on a new chain would begin at block 0, and nothing is older than that

    def cut_off(*arguments: Any, **options: Any) -> Any:
        sent = real(*arguments, **options)
        if not left:
            raise CutOff  # its transaction is in a block, and nobody has written that down
        left.pop()
        return sent

    with monkeypatch.context() as patch, pytest.raises(CutOff):
        patch.setattr(deploy, "transact", cut_off)
        deploy_contracts("--release", f"cut off {after}")
    assert not env.deployment_path.exists()
    deploy_contracts("--release", f"cut off {after}")
    deployment = json.loads(env.deployment_path.read_text())
    assert quick.transactions_of(admin) - before == 6, "five contracts and one connection, whatever happened between"
    code = quick.ask("eth_getCode", deployment["market"], hex(deployment["block"] - 1))
    assert code == "0x", "nothing of the market is older than the block that indexing begins at"
    assert market_view("court") == deployment["court"]
    assert not env.deployment_path.with_suffix(".progress").exists()


def test_a_named_token_is_used_and_no_other_deployed(env: Settings, quick: Anvil, tmp_path: Path) -> None:
    deploy_contracts()
    token = json.loads(env.deployment_path.read_text())["token"]
    with override_settings(HYPERGPU=chain_settings(quick, tmp_path, deployment_file=tmp_path / "second.json")):
        deploy_contracts("--token", token, "--release", "second")
        second = json.loads((tmp_path / "second.json").read_text())
    assert second["token"] == token and "token" not in second["transactions"]


def test_where_money_is_real_the_test_token_is_refused(env: Settings, quick: Anvil, tmp_path: Path) -> None:
    with (
        override_settings(HYPERGPU=chain_settings(quick, tmp_path, chain_real_money=True)),
        pytest.raises(CommandError) as refusal,
    ):
        call_command("deploy_contracts", "--attestors", Account.create().address)
    assert "chain.no_token" in str(refusal.value)


def test_attestors_join_once_and_make_the_first_epoch(env: Settings, quick: Anvil) -> None:
    keys = [SecretStr(quick.new_wallet()) for _ in range(3)]
    addresses = [str(Account.from_key(key.get_secret_value()).address) for key in keys]
    deploy_contracts("--release", "attestors", "--attestors", ",".join(addresses))
    attestors = join_attestors(keys)
    assert (attestors["epoch"], set(attestors["members"]), attestors["quorum"]) == (1, set(addresses), 2)
    admin = Account.from_key(env.admin_key.get_secret_value()).address
    count = quick.transactions_of(admin)
    assert join_attestors(keys) == attestors and quick.transactions_of(admin) == count
    joined = market_view("getAttestor", market_view("attestorOf", addresses[0], contract="registry"), contract="registry")
    assert (joined["owner"], joined["signer"]) == (admin, addresses[0])
    assert joined["bond"] == env.deployment["terms"]["registry"]["minBond"]


def test_a_token_that_is_not_there_is_refused(env: Settings) -> None:
    with pytest.raises(CommandError, match=r"chain\.no_code"):
        deploy_contracts("--token", Account.create().address)
    assert not env.deployment_path.exists()


def test_a_deployment_whose_chain_was_reset_is_never_replaced_silently(env: Settings) -> None:
    env.deployment_path.write_text(json.dumps({"chainId": 31337, "market": Account.create().address, "token": ""}))
    with pytest.raises(CommandError, match=r"chain\.deployment_lost"):
        deploy_contracts()


def test_a_deployment_of_other_contracts_is_refused(env: Settings) -> None:
    deploy_contracts()
    deployment = json.loads(env.deployment_path.read_text())
    deployment["bytecodeHash"]["market"] = "0x" + "11" * 32
    env.deployment_path.write_text(json.dumps(deployment))
    with pytest.raises(CommandError, match=r"chain\.other_contracts"):
        deploy_contracts()


def test_nothing_is_promised_before_there_are_contracts(env: Settings) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        domain()
    assert refusal.value.code == "chain.not_deployed"


def test_an_operator_registers_a_node_with_its_own_wallet(env: Settings, quick: Anvil) -> None:
    deploy_contracts()
    wallet, hot = quick.new_wallet(), Account.create()
    operator = Account.from_key(wallet).address
    stake = market_view("terms")["min_stake"]
    delegation = Delegation(
        operator=operator, hot_key=hot.address, expires_at=2**40, nonce=market_view("delegationNonce", hot.address)
    )
    send(wallet, "mint", [operator, stake], contract="token")
    send(wallet, "approve", [domain().contract, stake], contract="token")
    sent = send(wallet, "registerNode", [hot.address, 2**40, stake, eip712.sign(domain(), delegation, hot.key)])
    node_id = sent.event("NodeRegistered")["node_id"]
    assert sent.block <= finalized_block()
    node = market_view("getNode", node_id)
    assert (node["operator"], node["hot_key"], node["expires_at"]) == (operator, hot.address, 2**40)


@pytest.mark.parametrize(
    ("function", "args", "reason"),
    [("retireNode", [999], "UnknownNode(node_id=999)"), ("requestExit", [77], "UnknownJob(job_id=77)")],
)
def test_a_wallet_is_told_why_a_call_would_fail_and_pays_nothing(
    env: Settings, quick: Anvil, function: str, args: list[int], reason: str
) -> None:
    deploy_contracts()
    wallet = quick.new_wallet()
    with pytest.raises(HyperGPUError) as refusal:
        send(wallet, function, args)
    assert (refusal.value.code, refusal.value.data["reason"]) == ("chain.reverted", reason)
    assert quick.transactions_of(Account.from_key(wallet).address) == 0


def test_a_view_that_reverts_says_why(chain: Chain) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        market_view("getJob", 10**6)
    assert (refusal.value.code, refusal.value.data) == ("chain.reverted", {"reason": "UnknownJob(job_id=1000000)"})


def test_a_node_that_does_not_answer_is_named_without_its_secret_path(tmp_path: Path, chain: Chain) -> None:
    dead = chain.env.model_copy(update={"rpc_urls": ["http://user:password@127.0.0.1:9/v2/secret"]})
    with override_settings(HYPERGPU=dead), pytest.raises(HyperGPUError) as refusal:
        finalized_block()
    assert refusal.value.code == "chain.unreachable"
    assert "127.0.0.1:9" in refusal.value.message
    assert "secret" not in refusal.value.message and "password" not in refusal.value.message
