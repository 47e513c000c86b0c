"""A model's version: the Merkle root over the pages of its parameters. It is the `base` of every order, receipt and settlement,
and every worker derives it again: two machines that hold the same version hold the same bits."""

from __future__ import annotations

from torch import Tensor

from trainer.protocol.merkle import leaf_hash, merkle_root

PAGE_VALUES = 1 << 18
"""fp32 values of a page: 1 MiB."""


def page_hashes(params: Tensor) -> list[bytes]:
    """The leaf of each page of `params` (n,), as little-endian fp32; the last page may be short."""
    values = params.numpy().astype("<f4", copy=False)
    return [leaf_hash(values[at : at + PAGE_VALUES].tobytes()) for at in range(0, len(values), PAGE_VALUES)]


def model_root(params: Tensor) -> str:
    """64 hex digits; RFC 6962 over `page_hashes`."""
    return merkle_root(page_hashes(params)).hex()
