"""What the chain says is written down whatever values strangers chose."""

from __future__ import annotations

import pytest

from marketplace.jobs import services as jobs
from marketplace.jobs.models import Seat
from marketplace.operators import services
from marketplace.operators.models import Node
from tests.marketplace.world import fund, register, wallet

pytestmark = pytest.mark.django_db
UINT64 = 2**64 - 1
UINT128 = 2**128 - 1


def test_the_largest_values_of_the_contract_fit() -> None:
    operator = wallet("operator 1").address
    services.record_stake(operator=operator, added=UINT128)
    services.record_registration(node_id=2**32 - 1, operator=operator, hot_key=wallet("hot 1").address, expires_at=UINT64)
    services.record_delegation(node_id=2**32 - 1, hot_key=wallet("hot 2").address, expires_at=UINT64)
    services.record_bids_cancelled(node_id=2**32 - 1, min_nonce=UINT64)
    services.record_earning(node_id=2**32 - 1, units=UINT64 // 4, quality=10_000, amount=UINT128)
    node = Node.objects.get()
    assert node.key_expires_at.year == 9999
    assert node.earned == UINT128
    assert node.operator.stake == UINT128


def test_a_seat_of_any_size_fits() -> None:
    job = fund()
    register(1)
    jobs.record_seat(chain_id=job.chain_id or 0, node_id=1, rate=UINT128, capacity=UINT64)
    assert Seat.objects.get().rate == UINT128


def test_stake_counts_until_it_is_unbonding() -> None:
    register(1, stake=100)
    services.record_unstaking(operator=wallet("operator 1").address, amount=40)
    assert Node.objects.get(pk=1).operator.stake == 60
