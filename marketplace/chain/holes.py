"""A nonce that no transaction will ever use holds up every one after it: a transaction to oneself takes its place.

It comes about when a transaction that is not in the outbox used the account, and then went with a reorganised block.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django.db import transaction

from marketplace.chain.models import Intent, SenderAccount

log = logging.getLogger(__name__)

FILL = "fill"
TRANSFER_GAS = 21_000


def fill_holes(finalized: Mapping[str, int], latest: Mapping[str, int]) -> int:
    """Given each account's count of transactions, final and in the latest block: where they are one, the next nonce is
    nobody's who is on the way, unless it is ours. Returns how many holes were found."""
    return sum(fill(address, nonce) for address, nonce in finalized.items() if latest[address] == nonce)


def fill(address: str, nonce: int) -> bool:
    with transaction.atomic():
        # A nonce is given out and bound to its intent in one transaction, which this lock waits for.
        account = SenderAccount.objects.select_for_update().get(address=address)
        if nonce >= account.next_nonce or Intent.objects.filter(sender=account, nonce=nonce).exists():
            return False
        transfer = {"kind": FILL, "to": address, "data": "0x", "gas_limit": TRANSFER_GAS, "sender": account, "nonce": nonce}
        Intent.objects.get_or_create(key=f"{FILL}:{address}:{nonce}", defaults=transfer)
    log.warning("nonce %s of %s is nobody's; filled", nonce, address)
    return True
