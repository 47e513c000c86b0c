"""What people choose of a deployment: the terms of the contracts. Amounts in token base units, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.chain.profiles import Profile

UNIT = 10**6
"""Base units of one coin of USDC, and of the test token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketTerms:
    """IComputeMarketTypes.Terms. `instant_share` in basis points."""

    min_stake: int
    exit_notice: int
    unbonding_time: int
    challenge_window: int
    dispute_time: int
    instant_share: int = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryTerms:
    """IAttestorRegistry.RegistryTerms. `set_size`: attestors drawn for an epoch, 1 to 16."""

    min_bond: int
    epoch_length: int
    leave_time: int
    set_size: int = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class CourtTerms:
    """IDisputeCourt.CourtTerms. `tolerance`: a finding this near to what was paid changes nothing, basis points."""

    bond: int
    answer_time: int
    commit_time: int
    reveal_time: int
    appeal_time: int
    ruling_time: int
    committee_size: int = 3
    tolerance: int = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Of a whole deployment. `guardian` may pause, `arbiter` decides appeals (empty: the deployer); `coordinator`
    consents to seats (empty: that of the settings); `delay` is the timelock's; `admitted` are the attestors' signing
    addresses that may join at once."""

    market: MarketTerms
    registry: RegistryTerms
    court: CourtTerms
    delay: int
    guardian: str = ""
    arbiter: str = ""
    coordinator: str = ""
    admitted: tuple[str, ...] = ()


def default_terms(profile: Profile, *, min_stake: int = 100 * UNIT, admitted: tuple[str, ...] = ()) -> Terms:
    """Terms that fit each other: stake and bonds stay within reach until the last dispute about them is over."""
    window, dispute = profile.challenge_window, profile.dispute_time
    stage = dispute // 6  # answer, commit, reveal, appeal, ruling, and one to spare for the blocks between them
    return Terms(
        market=MarketTerms(
            min_stake=min_stake, exit_notice=window + dispute, unbonding_time=window + dispute,
            challenge_window=window, dispute_time=dispute,
        ),
        registry=RegistryTerms(min_bond=10 * min_stake, epoch_length=max(window, 60), leave_time=window + dispute),
        court=CourtTerms(
            bond=max(min_stake // 10, 1), answer_time=stage, commit_time=stage, reveal_time=stage, appeal_time=stage,
            ruling_time=stage,
        ),
        delay=profile.delay, admitted=admitted,
    )  # fmt: skip
