"""Replays every aggregation of a job from its public artifacts, and holds the result against what the chain settled.

The chain gives, for each round, the hash of its evidence, its base and the receipts that were paid. All else is fetched by
hash, so it does not matter from whom. What is not there, or not whole, is a finding: a part never passes as the whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from trainer.ledger.batches import Batch
from trainer.ledger.history import History, Step
from trainer.ledger.report import Finding
from trainer.operator.config import checked_url
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import unpack_receipts
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import JobSpec, parse_spec

Read = Callable[[str], bytes]
"""The bytes of an artifact by its SHA-256 (64 hex digits); raises HyperGPUError `artifact.*` when they cannot be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRow:
    """One round: how many contributions were handed in and how many of them accepted, and the version that came out again."""

    round: int
    evidence: str
    contributions: int = 0
    accepted: int = 0
    base: str = ""
    version: str = ""
    problems: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class AuditReport:
    """`notes` are what could not be checked, and why; findings are what is wrong."""

    job_id: int
    rows: list[AuditRow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok, "job_id": self.job_id, "rounds": [asdict(row) for row in self.rows],
            "findings": [asdict(finding) for finding in self.findings], "notes": self.notes,
        }  # fmt: skip


def audit(history: History, read: Read, *, step: Step) -> AuditReport:
    """A report without findings if every round's aggregate, outer step and next version come out again, bit by bit.

    Raises HyperGPUError `audit.no_spec` when the job's specification cannot be had: then nothing can be replayed.
    """
    report = AuditReport(job_id=history.job_id)
    rounds = settled_rounds(history)
    progress = step("rounds")
    before: dict[str, Any] | None = None
    with TemporaryDirectory(prefix="hypergpu-audit-") as folder:
        job = job_of(history, read, report, Path(folder))
        for index, (number, batches) in enumerate(sorted(rounds.items())):
            before = audit_round(number, batches, before, job, read, report)
            progress(index + 1, len(rounds))
    return report


def job_of(history: History, read: Read, report: AuditReport, folder: Path) -> JobWork:
    """The specification that the chain names, and those of its data files that are public."""
    created = next(entry for entry in history.entries if entry.name == "JobCreated")
    try:
        spec = parse_spec(json.loads(read(created.args["spec"].removeprefix("0x"))))
    except (HyperGPUError, ValueError) as error:
        raise HyperGPUError("audit.no_spec", f"The specification of job {history.job_id} cannot be had: {error}") from error
    return JobWork(spec=spec, files=data_files(spec, read, report, folder))


def data_files(spec: JobSpec, read: Read, report: AuditReport, folder: Path) -> dict[str, Path]:
    files = {}
    for role, sha256 in spec.data.files.items():
        try:
            data = read(sha256)
        except HyperGPUError as error:
            report.notes.append(
                f"The data file {role} is not public, so the first version was not derived from the seed: {error}"
            )
            continue
        files[role] = folder / role
        files[role].write_bytes(data)
    return files


def settled_rounds(history: History) -> dict[int, list[Batch]]:
    found: dict[int, list[Batch]] = {}
    for entry in history.entries:
        if entry.name == "RoundSettled":
            for batch in history.batches[entry.tx]:
                if (batch.header.job_id, batch.header.round, batch.header.batch) == (
                    history.job_id, entry.args["round"], entry.args["batch"],
                ):  # fmt: skip
                    found.setdefault(entry.args["round"], []).append(batch)
    return found


def audit_round(
    number: int, batches: list[Batch], before: dict[str, Any] | None, job: JobWork, read: Read, report: AuditReport
) -> dict[str, Any] | None:
    """Adds the round's row and findings; its evidence, for the round after it, or None when that cannot be had."""
    first = len(report.findings)

    def find(code: str, text: str, node_id: int | None = None) -> None:
        report.findings.append(Finding(code=code, text=text, round=number, node_id=node_id))

    hashes = {batch.header.evidence.removeprefix("0x") for batch in batches}
    evidence = min(hashes)
    document: dict[str, Any] | None = None
    row = AuditRow(round=number, evidence=evidence)
    if len(hashes) > 1:
        find("audit.two_evidences", f"The batches of one round name {len(hashes)} different evidences.")
    try:
        document = json.loads(read(evidence))
        row = replay(number, batches, document, before, job, read, find, report)
    except HyperGPUError as error:
        find(error.code, error.message)
    except (KeyError, TypeError, ValueError) as error:
        find("evidence.malformed", f"This is not the evidence of a round: {error!r}")
    problems = tuple(dict.fromkeys(finding.code for finding in report.findings[first:]))
    report.rows.append(AuditRow(**{**asdict(row), "evidence": evidence, "problems": problems}))
    return document


def replay(
    number: int, batches: list[Batch], document: dict[str, Any], before: dict[str, Any] | None, job: JobWork, read: Read,
    find: Callable[..., None], report: AuditReport,
) -> AuditRow:  # fmt: skip
    from trainer.diloco import evidence as evidences  # noqa: PLC0415  (torch)
    from trainer.diloco.tensorfile import shapes_of  # noqa: PLC0415

    entries = document["contributions"]
    accepted = [entry for entry in entries if not entry["refused"]]
    if (document["job"], document["round"], document["spec"]) != (report.job_id, number, job.spec.sha256()):
        find("evidence.other_round", "The evidence is of another job, round or specification.")
    compare_receipts(batches, document, find)
    work = evidences.round_work(document, job, read, judged=False)
    if before is None and report.rows:
        find("audit.no_past", "The evidence of the round before cannot be had: whether this one goes on from it is not known.")
    else:
        if before is not None or len(job.files) == len(job.spec.data.files):
            evidences.check_chain(document, before, job)
        evidences.check_counts_once(document, lambda name: evidences.link_of(json.loads(read(name))))
    evidences.check_outcome(work, document, shapes=shapes_of(work.params))
    return AuditRow(
        round=number, evidence="", contributions=len(entries), accepted=len(accepted), base=document["base"],
        version=document["after"]["version"],
    )  # fmt: skip


def compare_receipts(batches: list[Batch], document: dict[str, Any], find: Callable[..., None]) -> None:
    """What was paid must be what was accepted: the same artifacts and units, none more."""
    accepted = {
        entry["node"]: ("0x" + entry["artifact"], entry["units"]) for entry in document["contributions"] if not entry["refused"]
    }
    paid = {
        receipt.node_id: (receipt.artifact, receipt.units) for batch in batches for receipt in unpack_receipts(batch.receipts)
    }
    for node_id, receipt in paid.items():
        if accepted.get(node_id) != receipt:
            find("audit.other_receipt", "The chain paid for an artifact, or units, that the round did not accept.", node_id)
    for node_id in sorted(set(accepted) - set(paid)):
        find("audit.unpaid", "Its contribution moved the model, and the chain shows no payment for it.", node_id)
    if any(batch.header.base != "0x" + document["base"] for batch in batches):
        find("audit.other_base", "The receipts name another model version than the round began with.")


def source(*, coordinator: str | None, folder: Path | None) -> Read:
    """Raises HyperGPUError `audit.no_source`."""
    if (coordinator is None) == (folder is None):
        raise HyperGPUError("audit.no_source", "Say where the artifacts are: --coordinator URL, or --artifacts FOLDER.")
    return from_coordinator(coordinator) if coordinator else from_folder(folder or Path())


def from_coordinator(url: str) -> Read:
    """Artifacts from a coordinator's public store."""
    client = httpx.Client(base_url=checked_url(url), timeout=60)

    def read(sha256: str) -> bytes:
        try:
            response = client.get(f"/api/v1/artifacts/{sha256}")
        except httpx.HTTPError as error:
            raise HyperGPUError("artifact.unavailable", f"{url} does not answer: {error}") from error
        if response.is_error:
            raise HyperGPUError("artifact.unknown", f"{url} does not give artifact {sha256}: {response.status_code}.")
        return hashed(response.content, sha256)

    return read


def from_folder(folder: Path) -> Read:
    """Artifacts from files named by their SHA-256."""

    def read(sha256: str) -> bytes:
        path = folder / sha256
        if not path.is_file():
            raise HyperGPUError("artifact.unknown", f"There is no file {sha256} in {folder}.")
        return hashed(path.read_bytes(), sha256)

    return read


def hashed(data: bytes, sha256: str) -> bytes:
    if (found := sha256_hex(data)) != sha256:
        raise HyperGPUError("artifact.hash_mismatch", f"What came as {sha256} hashes to {found}.")
    return data


def show(report: AuditReport, console: Console) -> None:
    table = Table(title=f"Job {report.job_id}: every aggregation, computed again", title_justify="left")
    for name in ("round", "contributions", "accepted"):
        table.add_column(name, justify="right")
    for name in ("from version", "to version", "verdict"):
        table.add_column(name)
    for row in report.rows:
        verdict = "[red]✘ " + " ".join(row.problems) if row.problems else "[green]✔"
        versions = (short(row.base), short(row.version))
        table.add_row(str(row.round), str(row.contributions), str(row.accepted), *versions, verdict)
    console.print(table)
    for note in report.notes:
        console.print(f"[yellow]! {note}[/yellow]", highlight=False)
    for finding in report.findings:
        console.print(f"[red]✘ {finding.where}: {finding.text}[/red] ({finding.code})", highlight=False)
    if report.ok:
        console.print(f"[green]✔ {len(report.rows)} rounds replayed: every version came out again, bit by bit.[/green]")
    else:
        console.print(f"[red]✘ Not proven: {len(report.findings)} finding(s).[/red]")


def short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else ""
