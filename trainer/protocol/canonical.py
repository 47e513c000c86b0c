"""One byte string for one JSON value (RFC 8785), so that a hash means the same on every machine."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from trainer.protocol.errors import HyperGPUError


def canonical_bytes(value: Any) -> bytes:
    """UTF-8 bytes of `value` in the JSON Canonicalization Scheme.

    Raises HyperGPUError `canonical.unencodable` for what JSON cannot hold (NaN, integers beyond 2**53, other types).
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as error:
        raise HyperGPUError("canonical.unencodable", f"This value has no canonical JSON form: {error}") from error


def sha256_hex(data: bytes) -> str:
    """SHA-256 (FIPS 180-4) as 64 lower-case hex digits: the name of every artifact."""
    return hashlib.sha256(data).hexdigest()


def canonical_sha256(value: Any) -> str:
    """SHA-256 of the canonical bytes, as 64 hex digits."""
    return sha256_hex(canonical_bytes(value))
