"""What is offered for a transaction (EIP-1559), in wei per gas."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.chain.profiles import GWEI

TIP = 2 * GWEI
"""What Monad's nodes suggest, always; small beside its base fee of at least 100 gwei."""


@dataclass(frozen=True, slots=True)
class Fee:
    max_fee: int
    priority: int


def first_fee(base_fee: int) -> Fee:
    """Room for the base fee to double before the transaction is left out."""
    return Fee(max_fee=2 * base_fee + TIP, priority=TIP)


def bumped(previous: Fee, base_fee: int) -> Fee:
    """A quarter more of both: every node's rule for a replacement is met (geth asks a tenth)."""
    return Fee(max_fee=max(previous.max_fee * 5 // 4 + 1, first_fee(base_fee).max_fee), priority=previous.priority * 5 // 4 + 1)
