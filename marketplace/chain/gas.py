"""Gas limits. Monad charges the limit, not what is used, so a generous one is money thrown away."""

from __future__ import annotations

from marketplace.chain.models import Intent


def with_room(estimated: int) -> int:
    """5 % over a node's estimate."""
    return estimated * 105 // 100


def gas_limit(intent: Intent, estimated: int) -> int:
    return with_room(estimated)
