"""Any k pieces of n give the file back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.network.erasure import EXP, LOG, inverse, multiply, rebuild, redundant


def test_the_field_is_one():
    """Every element but 0 is a power of 2 and has an inverse; multiplication distributes over addition."""
    assert sorted(LOG) == list(range(1, 256))
    assert all(multiply(value, inverse(value)) == 1 for value in range(1, 256))
    assert EXP[8] == 0x1D  # x^8 = x^4 + x^3 + x^2 + 1
    assert all(multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c) for a in (3, 77) for b in (5, 200) for c in (9, 255))


@given(st.data(), st.integers(1, 12), st.integers(0, 5), st.integers(1, 40))
def test_any_k_of_n_pieces_make_the_file(data, k, spare, length):
    plain = [data.draw(st.binary(min_size=length, max_size=length)) for _ in range(k)]
    every = dict(enumerate([*plain, *(redundant(plain, k + extra) for extra in range(spare))]))
    kept = data.draw(st.permutations(range(k + spare)))[:k]
    assert rebuild({index: every[index] for index in kept}, k) == plain


def test_the_most_pieces_that_there_are():
    plain = [bytes([index]) * 3 for index in range(128)]
    later = {index: redundant(plain, index) for index in range(128, 256)}
    assert rebuild(later, 128) == plain


def test_too_few_are_refused():
    plain = [b"ab", b"cd", b"ef"]
    with pytest.raises(ValueError, match="3 pieces are needed, 2 are there"):
        rebuild({0: plain[0], 3: redundant(plain, 3)}, 3)
