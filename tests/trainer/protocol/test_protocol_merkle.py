"""Merkle trees as everybody else's: the test vectors of Certificate Transparency."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.merkle import leaf_hash, merkle_path, merkle_root, path_root

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
"""Of the first inputs, as in certificate-transparency-go's merkle tree tests."""
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]


@pytest.mark.parametrize("count", ROOTS)
def test_roots_are_those_of_certificate_transparency(count):
    assert merkle_root(LEAVES[:count]).hex() == ROOTS[count]


@given(count=st.integers(1, 40), data=st.data())
def test_a_path_leads_from_its_leaf_to_the_root_and_from_no_other(count, data):
    leaves = [leaf_hash(bytes([number])) for number in range(count)]
    index = data.draw(st.integers(0, count - 1))
    path = merkle_path(leaves, index)
    assert path_root(leaves[index], path, index=index, count=count) == merkle_root(leaves)
    assert path_root(leaf_hash(b"other"), path, index=index, count=count) != merkle_root(leaves)


PATH = merkle_path(LEAVES, 0)


@pytest.mark.parametrize(("path", "index"), [([], 0), (PATH[:-1], 0), ([*PATH, LEAVES[1]], 0)])
def test_a_path_of_another_length_is_refused(path, index):
    with pytest.raises(HyperGPUError) as refusal:
        path_root(LEAVES[0], path, index=index, count=8)
    assert refusal.value.code == "merkle.malformed"


def test_there_is_no_path_from_a_leaf_that_is_not_there():
    with pytest.raises(HyperGPUError) as refusal:
        merkle_path(LEAVES, 8)
    assert refusal.value.code == "merkle.no_such_leaf"
