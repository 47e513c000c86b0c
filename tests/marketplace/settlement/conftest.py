from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings

from marketplace.artifacts import store
from marketplace.chain.services import domain
from marketplace.settlement.attestor import Attestor
from marketplace.settlement.models import AttestorSet
from marketplace.training import tasks as training
from marketplace.training.models import Contribution, Round
from marketplace.training.services import rounds
from tests.marketplace.training.conftest import job, nodes, open_round  # noqa: F401
from tests.marketplace.training.work import contribute
from tests.marketplace.world import TestNode, begin_epoch
from tests.settings import test_key as key_of


@pytest.fixture(autouse=True)
def epoch(db: None) -> AttestorSet:
    return begin_epoch()


def aggregate(round_: Round, nodes: list[TestNode]) -> Round:  # noqa: F811
    """Every node hands in, the round closes."""
    for node in nodes:
        contribute(node)
    for pk in Contribution.objects.values_list("pk", flat=True):
        training.check_contribution(pk)
    rounds.close_round_if_complete(round_id=round_.pk)
    training.aggregate_round(round_.pk)
    round_.refresh_from_db()
    return round_


@pytest.fixture
def aggregated(open_round: Round, nodes: list[TestNode]) -> Round:  # noqa: F811
    return aggregate(open_round, nodes)


def evidence_of(round_: Round) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(store.read(round_.evidence))
    return document


def attestor(name: str) -> Attestor:
    return Attestor(key_of(name), domain=domain(), home=settings.HYPERGPU.state_dir / "attestors")
