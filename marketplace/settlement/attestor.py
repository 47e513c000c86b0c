"""An attestor's own side: its key, and its folder. Nothing here touches the shared database.

Two attestations that differ, by one attestor for one (job, round, batch), cost it its bond. So what it is about to sign is
written down first, and a process that starts again shows what it has committed to, and signs nothing else. So it is with votes in
the court's committees: one that cannot be opened costs a part of the bond.
"""

from __future__ import annotations

import hmac
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from trainer.protocol import eip712
from trainer.protocol.canonical import canonical_bytes
from trainer.protocol.eip712 import Domain
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import commitment
from trainer.protocol.types import JobClosure, RoundAttestation


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What a batch is, before anybody has committed to scores for it. Hashes are 0x-hex."""

    job_id: int
    round: int
    batch: int
    last: bool
    epoch: int
    base: str
    receipts: str
    evidence: str

    def attested(self, commitments: str) -> RoundAttestation:
        """The message that attestors sign once the list of commitments, whose hash this is, is fixed."""
        return RoundAttestation(**self.as_dict(), commitments=commitments)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Vote(NamedTuple):
    """A committee member's vote: quality in basis points, salt, and keccak256(abi.encode(case, signer, quality, salt)), the
    commitment that they open (IDisputeCourt.commitVote). Hashes are 0x-hex."""

    finding: int
    salt: str
    commitment: str


class Attestor:
    """The holder of `key`, for one market. `home` is its own folder; one process at a time works in it."""

    def __init__(self, key: str, *, domain: Domain, home: Path) -> None:
        self.key, self.domain = key, domain
        self.address = str(Account.from_key(key).address)
        self.folder = home / self.address / f"{domain.chain_id}-{domain.contract}"

    def salt(self, statement: Statement) -> bytes:
        """The same for the same batch, and for nobody else to guess: HMAC-SHA256 of its identity under the key."""
        return hmac.digest(bytes.fromhex(self.key.removeprefix("0x")), self.identity(statement), "sha256")

    def identity(self, statement: Statement) -> bytes:
        return canonical_bytes({"chain": self.domain.chain_id, "market": self.domain.contract, **statement.as_dict()})

    def kept_scores(self, statement: Statement) -> bytes | None:
        """The scores that this attestor has committed to for this very batch."""
        path = self.path(statement, "scores")
        kept = json.loads(path.read_text()) if path.exists() else {}
        same = kept.get("statement") == statement.as_dict()
        return bytes.fromhex(kept["scores"]) if same else None

    def judged_evidence(self, job_id: int, round: int) -> str | None:
        """SHA-256 (64 hex digits) of the evidence by which this attestor has judged a round; None where it has not."""
        found = sorted(self.folder.glob(f"{job_id}-{round}-*.scores.json"))
        evidences = {json.loads(path.read_text())["statement"]["evidence"].removeprefix("0x") for path in found}
        return str(evidences.pop()) if len(evidences) == 1 else None

    def commit(self, statement: Statement, scores: bytes) -> str:
        """The commitment to packed `scores`, which are kept for `open`."""
        write(self.path(statement, "scores"), {"statement": statement.as_dict(), "scores": scores.hex()})
        return self.commitment(statement, scores)

    def commitment(self, statement: Statement, scores: bytes) -> str:
        return commitment(attestor=self.address, salt=self.salt(statement), scores=scores)

    def sign(self, statement: Statement, commitments: str) -> str:
        """The signature under the fixed list. Raises HyperGPUError `attestation.signed_other` when this attestor has signed
        another content for this (job, round, batch): it never signs a second one."""
        message = statement.attested(commitments)
        digest = "0x" + eip712.digest(self.domain, message).hex()
        path = self.path(statement, "signed")
        signed = write_once(path, {"digest": digest, "commitments": commitments, "statement": statement.as_dict()})
        if signed["digest"] != digest:
            where = f"job {statement.job_id}, round {statement.round}, batch {statement.batch}"
            raise HyperGPUError("attestation.signed_other", f"{self.address} has signed another content for {where} ({path}).")
        return eip712.sign(self.domain, message, self.key)

    def finding(self, court: str, case_id: int) -> int | None:
        """What this attestor has found in a case, and votes for, in basis points; None before it has looked."""
        path = self.ballot(court, case_id)
        return int(json.loads(path.read_text())["finding"]) if path.exists() else None

    def decide(self, court: str, case_id: int, finding: int) -> int:
        """Write the finding down, before anybody hears of a commitment to it; an earlier one stands."""
        return int(write_once(self.ballot(court, case_id), {"finding": finding})["finding"])

    def vote(self, court: str, case_id: int, finding: int) -> Vote:
        """The same for the same case: its salt is HMAC-SHA256 of the case's identity under the key."""
        case = canonical_bytes({"chain": self.domain.chain_id, "court": court, "case": case_id})
        salt = hmac.digest(bytes.fromhex(self.key.removeprefix("0x")), case, "sha256")
        said = encode(["uint256", "address", "uint16", "bytes32"], [case_id, self.address, finding, salt])
        return Vote(finding, "0x" + salt.hex(), "0x" + keccak(said).hex())

    def ballot(self, court: str, case_id: int) -> Path:
        return self.folder / f"{court}-{case_id}.finding.json"

    def sign_closure(self, closure: JobClosure) -> str:
        return eip712.sign(self.domain, closure, self.key)

    def path(self, statement: Statement, kind: str) -> Path:
        return self.folder / f"{statement.job_id}-{statement.round}-{statement.batch}.{kind}.json"


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, and on disk when this returns."""
    os.replace(temporary(path, content), path)
    flush(path.parent)


def write_once(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What the file says: `content`, unless an earlier call wrote it."""
    draft = temporary(path, content)
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    flush(path.parent)
    return dict(json.loads(path.read_text()))


def temporary(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def flush(folder: Path) -> None:
    """A name is on disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
