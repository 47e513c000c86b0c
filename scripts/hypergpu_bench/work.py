"""Prepared work: keys, receipts and scores from a seed, with real signatures. No training behind them."""

from __future__ import annotations

import random

from coincurve import PrivateKey

BASE = bytes.fromhex("ba" * 32)
EVIDENCE = bytes.fromhex("e5" * 32)
RATE = 3
"""Base units per sample."""
CAPACITY = 100_000
"""Samples a receipt at most; receipts claim a random number of them, as no two rounds are alike."""
ESCROW = 10**15
QUALITIES = range(8_000, 10_001)
"""Basis points."""


def key(source: random.Random) -> bytes:
    return source.randbytes(32)


def raw_signature(digest: bytes, private_key: bytes) -> bytes:
    """r || s || v with v 27 or 28 and low s, as libsecp256k1 makes it."""
    signature = PrivateKey(private_key).sign_recoverable(digest, hasher=None)
    return signature[:64] + bytes([signature[64] + 27])
