"""Artifacts fetched from the coordinator: named by their SHA-256, checked before they appear, resumed after a break."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import httpx

from trainer.operator.client import Check, Coordinator, UnavailableError
from trainer.operator.config import sha256_of
from trainer.operator.transfers import choose, download_in_ranges
from trainer.protocol.errors import HyperGPUError

UNKNOWN_SIZE = 2**30
"""What a download is taken to be before it has begun."""


def fetch(coordinator: Coordinator, sha256: str, folder: Path, *, check: Check) -> Path:
    """The artifact's file in `folder`. Raises HyperGPUError `artifact.hash_mismatch` or the coordinator's refusal."""
    final, part = folder / sha256, folder / f".{sha256}.part"
    if final.exists():
        os.utime(final)
        return final
    transfer = choose(coordinator, UNKNOWN_SIZE, rate=coordinator.links.down)
    if transfer.connections > 1:
        coordinator.say("transfer.ranges", f"downloads by {transfer.connections} connections: {transfer.reason.text}")
        coordinator.persist(lambda: download_in_ranges(coordinator, sha256, part, transfer, check=check), check=check)
    else:
        coordinator.persist(lambda: download(coordinator, sha256, part, check), check=check)
    if (actual := sha256_of(part)) != sha256:
        part.unlink()
        raise HyperGPUError("artifact.hash_mismatch", f"What arrived as {sha256} hashes to {actual}; it was thrown away.")
    os.replace(part, final)
    return final


def download(coordinator: Coordinator, sha256: str, part: Path, check: Check) -> None:
    """Go on where `part` ends, if the server can (RFC 9110, section 14), else start over."""
    started = time.monotonic()
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        response = coordinator.get(f"/agent/v1/artifacts/{sha256}", headers=headers, stream=True)
    except HyperGPUError as error:
        if error.data.get("status") == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise UnavailableError("coordinator.unavailable", "the rest of the download is not there; starting over") from error
        raise
    try:
        with part.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as file:
            before = file.tell()
            for chunk in response.iter_raw():
                check()
                file.write(chunk)
            if (size := file.tell() - before) > 0:
                coordinator.links.received(size, time.monotonic() - started)
    finally:
        response.close()


def preload(file: Path, folder: Path) -> str:
    """Copy a file that is on this machine already into the cache; its SHA-256."""
    part = folder / f".{os.getpid()}.part"
    shutil.copyfile(file, part)
    sha256 = sha256_of(part)
    os.replace(part, folder / sha256)
    return sha256


def prune(folder: Path, *, keep_bytes: int) -> None:
    """Delete the files used longest ago until the rest fits."""
    entries = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir() if path.is_file())
    excess = sum(size for _, size, _ in entries) - keep_bytes
    for _, size, path in entries:
        if excess <= 0:
            return
        path.unlink()
        excess -= size
