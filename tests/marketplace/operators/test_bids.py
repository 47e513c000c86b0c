from __future__ import annotations

import time

import pytest
from django.test import Client

from marketplace.chain.services import domain
from marketplace.operators import services
from marketplace.operators.models import Bid
from tests.marketplace.world import register, wallet
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import Bid as SignedBid

pytestmark = pytest.mark.django_db


def test_a_signed_bid_is_kept_once() -> None:
    node = register(1)
    until = int(time.time()) + 3600
    assert node.bid(expires_at=until).pk == node.bid(expires_at=until).pk
    assert Bid.objects.count() == 1


@pytest.mark.parametrize(
    ("stake", "changes", "code"),
    [
        (0, {}, "bid.no_stake"),
        (10**7, {"node_id": 99}, "bid.unknown_node"),
        (10**7, {"expires_at": 1}, "bid.expired"),
    ],
)
def test_a_bid_that_cannot_count_is_refused_and_changes_nothing(stake: int, changes: dict, code: str) -> None:
    node = register(1, stake=stake)
    with pytest.raises(HyperGPUError) as refusal:
        node.bid(**changes)
    assert refusal.value.code == code
    assert not Bid.objects.exists()


def test_a_stranger_cannot_bid_for_a_node() -> None:
    register(1)
    fields = {"job_id": 0, "node_id": 1, "rate": 5, "capacity": 100, "expires_at": int(time.time()) + 60, "nonce": 0}
    signature = eip712.sign(domain(), SignedBid(**fields), wallet("stranger").key)
    answer = Client().post("/api/v1/bids", {**fields, "signature": signature}, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (422, "bid.wrong_signer")
    assert not Bid.objects.exists()


def test_cancelling_on_chain_closes_older_bids() -> None:
    node = register(1)
    old = node.bid()
    services.record_bids_cancelled(node_id=1, min_nonce=1)
    old.refresh_from_db()
    assert old.state == "cancelled"
    with pytest.raises(HyperGPUError) as refusal:
        node.bid(rate=4)
    assert refusal.value.code == "bid.stale_nonce"
