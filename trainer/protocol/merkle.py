"""Merkle trees over SHA-256 as in Certificate Transparency (RFC 6962, section 2.1): leaves and nodes are hashed under different
prefixes, so that neither passes for the other, and no leaf is doubled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trainer.protocol.errors import HyperGPUError


def leaf_hash(content: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """32 bytes over leaf hashes (`leaf_hash`), in order. Of none: SHA-256 of the empty string."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = split(len(leaves))
    return node_hash(merkle_root(leaves[:middle]), merkle_root(leaves[middle:]))


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The sibling hashes from leaf `index` up to the root (RFC 6962, section 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise HyperGPUError("merkle.no_such_leaf", f"There is no leaf {index} among {len(leaves)}.")
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if index < middle:
        return [*merkle_path(leaves[:middle], index), merkle_root(leaves[middle:])]
    return [*merkle_path(leaves[middle:], index - middle), merkle_root(leaves[:middle])]


def path_root(leaf: bytes, path: Sequence[bytes], *, index: int, count: int) -> bytes:
    """The root that `leaf` at `index` of `count` leaves has under `path`; compare it with the one that was committed to.

    Raises HyperGPUError `merkle.malformed` when the path's length does not fit.
    """
    if not 0 <= index < count:
        raise HyperGPUError("merkle.no_such_leaf", f"There is no leaf {index} among {count}.")
    if count == 1:
        if path:
            raise HyperGPUError("merkle.malformed", "The path is longer than the tree is high.")
        return leaf
    if not path:
        raise HyperGPUError("merkle.malformed", "The path is shorter than the tree is high.")
    middle = split(count)
    if index < middle:
        return node_hash(path_root(leaf, path[:-1], index=index, count=middle), path[-1])
    return node_hash(path[-1], path_root(leaf, path[:-1], index=index - middle, count=count - middle))


def split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1
