"""Writes of artifacts."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings

from marketplace.artifacts import store
from marketplace.artifacts.models import Artifact


def store_bytes(*, data: bytes, kind: str, public: bool, name: str = "") -> Artifact:
    """Store what the coordinator made itself."""
    sha256, size = store.write_stream([data], limit=len(data))
    return record(sha256=sha256, size=size, kind=kind, public=public, name=name)


def store_upload(
    *,
    chunks: Iterable[bytes],
    kind: str,
    limit: int | None = None,
    sha256: str | None = None,
    size: int | None = None,
    name: str = "",
) -> Artifact:
    """Store what a stranger sends, checked against the announced hash and size. Errors as `store.write_stream`."""
    found, length = store.write_stream(
        chunks, limit=limit or settings.HYPERGPU.max_artifact_bytes, expected_sha256=sha256, expected_size=size
    )
    return record(sha256=found, size=length, kind=kind, public=False, name=name)


def record(*, sha256: str, size: int, kind: str, public: bool, name: str) -> Artifact:
    """The row of a stored blob; what was public stays public."""
    artifact, created = Artifact.objects.get_or_create(
        sha256=sha256, defaults={"size": size, "kind": kind, "public": public, "name": name}
    )
    if public and not created:
        publish(sha256s=[sha256])
    return artifact


def publish(*, sha256s: Iterable[str]) -> None:
    """Let anyone read these: done once a round is closed, so that nobody can copy work while it counts."""
    Artifact.objects.filter(sha256__in=list(sha256s)).update(public=True)
