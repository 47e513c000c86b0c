"""Whether the outbox's accounts can go on paying."""

from __future__ import annotations

from django.conf import settings

from marketplace.chain.alarms import end_alarm, raise_alarm
from marketplace.chain.models import Alarm
from marketplace.chain.profiles import COIN
from marketplace.chain.rpc import LATEST, number, rpc
from marketplace.chain.signer import outbox_signers

LOW_BALANCE = "chain.low_balance"


def watch_balances() -> None:
    """Raise an alarm for each sender account below the least balance of its chain; end those that are over.

    Raises HyperGPUError `chain.unreachable`, and those of `signer.outbox_signers`.
    """
    chain, addresses = settings.HYPERGPU.chain, [signer.address for signer in outbox_signers()]
    answers = rpc().read(*(("eth_getBalance", [address, LATEST]) for address in addresses))
    for address, balance in zip(addresses, map(number, answers), strict=True):
        if balance >= chain.min_balance:
            end_alarm(LOW_BALANCE, address)
            continue
        have, least = (f"{wei / COIN:.4f} {chain.currency}" for wei in (balance, chain.min_balance))
        raise_alarm(LOW_BALANCE, address, f"Sender {address} has {have}, less than {least}; send it some, or payments will wait.")
    Alarm.objects.filter(code=LOW_BALANCE).exclude(subject__in=addresses).delete()
