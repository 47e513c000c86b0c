"""The bench of near nodes: where they help, and where not."""

from __future__ import annotations

import pytest

from scripts.hypergpu_bench import regions
from scripts.hypergpu_bench.regions import DIRECT, NEAR

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("link", "least", "most"), [("far_loss_1", 3.0, 30.0), ("narrow", 0.9, 1.1), ("good", 0.2, 1.0)])
def test_a_near_node_helps_where_tcp_holds_the_link_back_and_nowhere_else(link: str, least: float, most: float):
    rows = [regions.upload_row(link, "top 64", way, range(2)) for way in (DIRECT, NEAR)]
    figure = regions.gain(rows, "times", unit="times direct")
    assert least < figure.value < most


def test_a_round_is_run_with_and_without_them():
    rows = [regions.run(regions.profiles()["lossy"], gather=gather, seed=0, rounds=2) for gather in (False, True)]
    assert [len(one) for one in rows] == [2, 2]
    assert len(rows[1][-1].units) > len(rows[0][-1].units)
