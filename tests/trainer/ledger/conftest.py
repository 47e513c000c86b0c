"""One market on anvil, and a way to stand between it and whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ledger_tools import Recorder

from tests.support.anvil import start_anvil
from tests.support.market import LocalMarket, busy_job


@pytest.fixture(scope="session")
def market() -> Iterator[LocalMarket]:
    with start_anvil() as anvil:
        yield LocalMarket.deploy(anvil)


@pytest.fixture(scope="session")
def recorded() -> Recorder:
    """Everything that a verification of a busy job asks the node, with the answers. The job is the only one of its market."""
    with start_anvil() as anvil:
        market = LocalMarket.deploy(anvil)
        return Recorder.of(market, busy_job(market))
