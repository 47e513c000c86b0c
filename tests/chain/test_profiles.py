"""Which chain it is, and how it differs, by configuration alone."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from pydantic import SecretStr

from marketplace.chain.profiles import PROFILES, profile_of
from marketplace.chain.signer import KeySigner
from marketplace.chain.terms import default_terms
from marketplace.config.env import Settings
from trainer.protocol.errors import HyperGPUError

KEY = SecretStr("0x" + "42" * 32)


def test_the_chains_that_are_known() -> None:
    assert set(PROFILES) == {31337, 10143, 143}
    assert [profile_of(chain).gas for chain in (31337, 10143, 143)] == ["ethereum", "monad", "monad"]
    assert [profile_of(chain).real_money for chain in (31337, 10143, 143)] == [False, False, True]
    assert profile_of(143).min_balance == profile_of(10143).min_balance == 10 * 10**18
    assert profile_of(143).usdc != profile_of(10143).usdc


def test_any_other_chain_is_described_by_settings_and_careful_without_them() -> None:
    assert Settings(chain_id=8453).chain.real_money
    said: dict[str, Any] = {
        "chain_name": "Base", "chain_currency": "ETH", "block_seconds": 2, "chain_explorer_url": "https://basescan.org",
        "chain_log_range": 500, "fee_ceiling_gwei": 5, "sender_min_balance": 0.05,
    }  # fmt: skip
    chain = Settings(chain_id=8453, **said).chain
    assert (chain.chain_id, chain.name, chain.block_seconds, chain.log_range) == (8453, "Base", 2, 500)
    assert (chain.fee_ceiling, chain.min_balance, chain.gas) == (5 * 10**9, 5 * 10**16, "ethereum")
    assert not Settings(chain_id=84532, chain_real_money=False).chain.real_money


def test_lists_come_comma_separated_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERGPU_RPC_URLS", "https://a.example, https://b.example")
    monkeypatch.setenv("HYPERGPU_SENDER_KEYS", "0x01,0x02")
    env = Settings()
    assert env.rpc_urls == ["https://a.example", "https://b.example"]
    assert [key.get_secret_value() for key in env.sender_keys] == ["0x01", "0x02"]


@pytest.mark.parametrize("chain_id", [143, 8453])
def test_a_plain_key_is_refused_where_money_may_be_real(chain_id: int) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        KeySigner(KEY, chain_id=chain_id)
    assert refusal.value.code == "chain.plain_key"
    assert KeySigner(KEY, chain_id=10143).address == Account.from_key(KEY.get_secret_value()).address


@pytest.mark.parametrize("chain_id", [31337, 10143, 143, 8453])
@pytest.mark.parametrize("stake", [1, 100 * 10**6])
def test_default_terms_are_within_the_bounds_of_the_contracts(chain_id: int, stake: int) -> None:
    """ComputeMarket, AttestorRegistry and DisputeCourt check the same when they are deployed."""
    terms = default_terms(profile_of(chain_id), min_stake=stake)
    market, registry, court = terms.market, terms.registry, terms.court
    assert market.exit_notice >= market.challenge_window + market.dispute_time, "nobody leaves before its last dispute"
    assert market.challenge_window >= 10
    assert market.unbonding_time >= market.challenge_window + market.dispute_time <= registry.leave_time
    stages = (court.answer_time, court.commit_time, court.reveal_time, court.appeal_time, court.ruling_time)
    assert min(stages) > 0 and sum(stages) <= market.dispute_time
    assert registry.min_bond >= 1 and court.bond >= 1 and 1 <= registry.set_size <= 16
