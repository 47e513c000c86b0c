"""Whose link asks for pieces and connections; and that a good link asks for none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.network.transfers import CONNECTIONS, MOST_BODY, MOST_PIECES, piece_size, piece_span, transfer_of

BIG = MOST_BODY


@pytest.mark.parametrize(
    ("conditions", "code", "connections"),
    [
        ({}, "transfer.whole", 1),
        ({"rtt_s": 0.06, "loss": 1e-6, "rate": 1.2e7}, "transfer.whole", 1),
        ({"rtt_s": 0.06, "loss": 0.0, "rate": 1e9}, "transfer.long_path", CONNECTIONS),
        ({"rtt_s": 0.3, "loss": 0.0, "rate": 1e7}, "transfer.long_path", CONNECTIONS),
        ({"rtt_s": 0.1, "loss": 0.005}, "transfer.lossy", CONNECTIONS),
        ({"rtt_s": 0.06, "loss": 5e-4, "rate": 1e6}, "transfer.long_path", CONNECTIONS),
        ({"rtt_s": 0.06, "loss": 5e-4, "rate": 1e5}, "transfer.whole", 1),
        ({"rtt_s": 0.06, "broken": True}, "transfer.broken", 1),
        ({"size": BIG + 1, "rtt_s": 0.06, "loss": 1e-6, "rate": 1.2e7}, "transfer.large", 1),
    ],
)
def test_pieces_are_chosen_by_what_the_link_does(conditions, code, connections):
    chosen = transfer_of(**({"size": BIG} | conditions))
    assert (chosen.reason.code, chosen.connections) == (code, connections)
    assert (chosen.pieces > 1) == (code != "transfer.whole")
    assert (chosen.spare > 0) == (connections > 1)


def test_a_small_file_is_one_request_on_any_link():
    assert transfer_of(30_000, rtt_s=0.2, loss=0.1, broken=True).pieces == 1


@pytest.mark.parametrize("conditions", [{}, {"loss": 0.1}, {"broken": True}])
def test_no_body_is_larger_than_a_server_takes_up_to_8_gib(conditions):
    for size in (MOST_BODY + 1, 2 * 10**9, MOST_PIECES * MOST_BODY):
        assert piece_size(size, transfer_of(size, rtt_s=0.1, **conditions).pieces) <= MOST_BODY


@given(st.integers(1, 10**11), st.floats(0, 0.5), st.booleans())
def test_the_pieces_are_the_file(size, loss, broken):
    chosen = transfer_of(size, rtt_s=0.1, loss=loss, broken=broken)
    assert 1 <= chosen.pieces <= MOST_PIECES
    assert chosen.pieces + chosen.spare <= 256
    spans = [piece_span(size, chosen.pieces, index) for index in range(chosen.pieces)]
    assert [offset for offset, _ in spans] == [index * piece_size(size, chosen.pieces) for index in range(chosen.pieces)]
    assert sum(length for _, length in spans) == size
    assert all(0 < length <= piece_size(size, chosen.pieces) for _, length in spans)
