"""What differs from chain to chain. One row each; a chain without a row is described by settings (`HYPERGPU_CHAIN_...`).

Plain values: no Django and no web3, so that the settings can read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COIN = 10**18
GWEI = 10**9
DAY = 86_400

GasSchedule = Literal["ethereum", "monad"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One chain.

    block_seconds: time between blocks. finality_seconds: from inclusion to `finalized`.
    log_range: most blocks of one eth_getLogs. gas: which price list, and whether the limit or the use is charged.
    currency: what gas is paid in. min_balance: wei below which a sender account raises an alarm.
    fee_ceiling: wei per gas above which the sender waits. usdc: the token that pays; empty where a test token is deployed.
    real_money: plain keys and the test token are refused.
    challenge_window, dispute_time, delay: seconds; default terms of a deployment, and its timelock's delay.
    """

    chain_id: int
    name: str
    block_seconds: float
    finality_seconds: float
    log_range: int
    gas: GasSchedule = "ethereum"
    currency: str = "ETH"
    explorer_url: str = ""
    usdc: str = ""
    min_balance: int = COIN // 100
    fee_ceiling: int = 500 * GWEI
    real_money: bool = False
    challenge_window: int = DAY
    dispute_time: int = 7 * DAY
    delay: int = 9 * DAY
    """Longer than the default unbonding time of 8 days: who dislikes a proposed court or registry can leave before it acts."""


MONAD_MAINNET = 143

ANVIL = Profile(
    chain_id=31337, name="Local test chain", block_seconds=0.3, finality_seconds=0.6, log_range=1_000,
    # Monad's floor is 100 gwei, and anvil takes what it is given: the same ceiling, so that tests mean something.
    fee_ceiling=5_000 * GWEI, min_balance=COIN // 10, challenge_window=60, dispute_time=120, delay=60,
)  # fmt: skip

# Sources: docs.monad.xyz (network information, current facts); addresses of Circle's USDC from monad-crypto/protocols.
# An account with less than 10 MON may send only one transaction in three blocks (Monad's reserve balance).
MONAD_TESTNET = Profile(
    chain_id=10143, name="Monad Testnet", block_seconds=0.3, finality_seconds=0.6, log_range=100, gas="monad", currency="MON",
    explorer_url="https://testnet.monadvision.com", usdc="0x534b2f3A21130d7a60830c2Df862319e593943A3", min_balance=10 * COIN,
    fee_ceiling=5_000 * GWEI, challenge_window=3_600, dispute_time=DAY, delay=3_600,
)  # fmt: skip
MONAD = Profile(
    chain_id=MONAD_MAINNET, name="Monad", block_seconds=0.3, finality_seconds=0.6, log_range=100, gas="monad", currency="MON",
    explorer_url="https://monadvision.com", usdc="0x754704Bc059F8C67012fEd69BC8A327a5aafb603", min_balance=10 * COIN,
    fee_ceiling=5_000 * GWEI, real_money=True,
)  # fmt: skip

PROFILES = {profile.chain_id: profile for profile in (ANVIL, MONAD_TESTNET, MONAD)}


def profile_of(chain_id: int) -> Profile:
    """The row of a chain; of one without a row what is safe anywhere: Ethereum's prices, small reads, and no plain keys."""
    unknown = Profile(
        chain_id=chain_id, name=f"Chain {chain_id}", block_seconds=12, finality_seconds=780, log_range=100, real_money=True
    )
    return PROFILES.get(chain_id, unknown)
