"""Writes of artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from marketplace.artifacts import pieces as kept
from marketplace.artifacts import store
from marketplace.artifacts.models import Artifact


def store_bytes(*, data: bytes, kind: str, public: bool, name: str = "") -> Artifact:
    """Store what the coordinator made itself."""
    sha256, size = store.write_stream([data], limit=len(data))
    return record(sha256=sha256, size=size, kind=kind, public=public, name=name)


def store_together(blobs: Mapping[str, tuple[bytes, str]]) -> dict[str, Artifact]:
    """Store several public ones, (bytes, kind) by any name: the disk is waited for once, not for each."""

    def write(data: bytes) -> tuple[str, int]:
        return store.write_stream([data], limit=len(data))

    with ThreadPoolExecutor(max(len(blobs), 1)) as pool:
        written = list(pool.map(write, (data for data, _ in blobs.values())))
    with transaction.atomic():
        return {
            name: record(sha256=sha256, size=size, kind=kind, public=True, name="")
            for (name, (_, kind)), (sha256, size) in zip(blobs.items(), written, strict=True)
        }


def store_upload(
    *,
    chunks: Iterable[bytes],
    kind: str,
    limit: int | None = None,
    sha256: str | None = None,
    size: int | None = None,
    name: str = "",
    owner: str = "",
) -> Artifact:
    """Store what a stranger sends, checked against the announced hash and size. Errors as `store.write_stream`."""
    found, length = store.write_stream(
        chunks, limit=limit or settings.HYPERGPU.max_artifact_bytes, expected_sha256=sha256, expected_size=size
    )
    return record(sha256=found, size=length, kind=kind, public=False, name=name, owner=owner)


def store_piece(
    *, upload: str, sha256: str, size: int, pieces: int, index: int, chunks: Iterable[bytes], piece_sha256: str, kind: str,
    is_whole: Callable[[], bool], note: Callable[[Artifact], object],
) -> bool:  # fmt: skip
    """Keep one of the `pieces` that make a file of `size` bytes with hash `sha256`, or a redundant one. The piece with which it
    is whole, unless it `is_whole()` already, stores it and has it noted. Returns whether it is whole.

    Raises HyperGPUError `upload.no_such_piece`, `artifact.too_large`, `artifact.truncated`, `artifact.hash_mismatch`: of the
    piece, or of the whole file, whose pieces are then forgotten; and what `note` raises.
    """
    kept.keep(upload, sha256=sha256, size=size, pieces=pieces, index=index, chunks=chunks, piece_sha256=piece_sha256)
    with kept.alone(upload):  # of pieces that come together, one makes the file and the others find it made
        if is_whole():
            kept.forget(upload)
            return True
        if len(kept.held(upload, sha256=sha256, pieces=pieces)) < pieces:
            return False
        try:
            joined = kept.joined(upload, sha256=sha256, size=size, pieces=pieces)
            note(store_upload(chunks=joined, kind=kind, limit=size, sha256=sha256, size=size))
        finally:
            kept.forget(upload)
    return True


def record(*, sha256: str, size: int, kind: str, public: bool, name: str, owner: str = "") -> Artifact:
    """The row of a stored blob; what was public stays public."""
    artifact, created = Artifact.objects.get_or_create(
        sha256=sha256, defaults={"size": size, "kind": kind, "public": public, "name": name, "owner": owner}
    )
    if not created:
        Artifact.objects.filter(pk=sha256).update(created_at=timezone.now())
    if public and not created:
        publish(sha256s=[sha256])
    return artifact


def forget(*, sha256: str) -> None:
    """Delete what no row names any more."""
    with transaction.atomic():
        Artifact.objects.filter(pk=sha256).delete()
        store.path_of(sha256).unlink(missing_ok=True)


def publish(*, sha256s: Iterable[str]) -> None:
    """Let anyone read these: done once a round is closed, so that nobody can copy work while it counts."""
    Artifact.objects.filter(sha256__in=list(sha256s)).update(public=True)
