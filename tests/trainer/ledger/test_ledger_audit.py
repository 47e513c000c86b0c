"""`hypergpu audit`: every aggregation again from hashes on the chain, and no part passes as the whole."""

import copy
from dataclasses import replace

import pytest

from tests.support.rounds import SPEC, World
from trainer.ledger.audit import audit, from_folder, source
from trainer.ledger.batches import Batch, Header
from trainer.ledger.history import Entry, History
from trainer.protocol.canonical import canonical_bytes, sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import PackedReceipt, pack_receipts


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def settled(world: World, *, documents: list[dict] | None = None, left_out: int | None = None, base: str = "") -> History:
    """What the chain would hold: the job with its specification's hash, and a batch of every round's receipts."""
    entries = [Entry("JobCreated", {"spec": "0x" + SPEC.sha256()}, 1, 0, 0, "0xjob")]
    batches = {}
    for document in documents or world.documents:
        number, tx = document["round"], f"0x{document['round']}"
        receipts = [
            PackedReceipt(node_id=e["node"], units=e["units"], artifact="0x" + e["artifact"], signature="0x" + "11" * 65)
            for e in document["contributions"]
            if e["node"] != left_out
        ]
        header = Header(
            job_id=7, round=number, batch=0, last=True, epoch=1, base="0x" + (base or document["base"]),
            evidence="0x" + sha256_hex(canonical_bytes(document)),
        )  # fmt: skip
        entries.append(Entry("RoundSettled", {"round": number, "batch": 0}, 2 + number, 0, 0, tx))
        batches[tx] = [Batch(header=header, receipts=pack_receipts(receipts), attestations=())]
    return History(
        chain_id=1,
        market="0x",
        job_id=7,
        first=0,
        head=None,
        kept=None,
        entries=entries,
        batches=batches,  # type: ignore[arg-type]
    )


def codes(report) -> list[str]:
    return sorted({finding.code for finding in report.findings})


def run(history, read):
    return audit(history, read, step=lambda name: lambda done, total: None)


def test_every_version_comes_out_again(world):
    report = run(settled(world), world.read)
    assert report.ok and report.notes == []
    assert [(row.round, row.contributions, row.accepted) for row in report.rows] == [(0, 3, 3), (1, 3, 3)]
    assert report.rows[0].version == report.rows[1].base == world.works[1].base
    assert report.as_json()["ok"] is True


def test_from_a_folder_of_files(world, tmp_path):
    for name, data in world.store.items():
        (tmp_path / name).write_bytes(data)
    assert run(settled(world), from_folder(tmp_path)).ok
    (tmp_path / world.works[1].submissions[0].artifact).write_bytes(b"something else")
    assert codes(run(settled(world), from_folder(tmp_path))) == ["artifact.hash_mismatch"]


def test_a_missing_artifact_is_a_finding(world):
    gone = world.works[0].submissions[2].artifact

    def read(sha256: str) -> bytes:
        if sha256 == gone:
            raise HyperGPUError("artifact.unknown", "gone")
        return world.read(sha256)

    report = run(settled(world), read)
    assert codes(report) == ["artifact.unknown"] and report.rows[0].problems and not report.rows[1].problems


def test_a_round_whose_past_cannot_be_had_is_not_taken_for_the_first(world):
    gone = sha256_hex(canonical_bytes(world.documents[0]))

    def read(sha256: str) -> bytes:
        if sha256 == gone:
            raise HyperGPUError("artifact.unknown", "gone")
        return world.read(sha256)

    report = run(settled(world), read)
    assert [row.problems for row in report.rows] == [("artifact.unknown",), ("audit.no_past",)]


@pytest.mark.parametrize("name", ["version", "checkpoint", "outer_state", "aggregate", "delta"])
def test_an_invented_outcome_is_found(name, world):
    document = copy.deepcopy(world.documents[1])
    document["after"][name] = "0" * 64
    store = world.store | {sha256_hex(canonical_bytes(document)): canonical_bytes(document)}
    report = run(settled(world, documents=[world.documents[0], document]), lambda name: store[name])
    assert codes(report) == ["evidence.other_outcome"] and not report.ok


def test_a_payment_left_out_or_for_another_base_is_found(world):
    assert codes(run(settled(world, left_out=1), world.read)) == ["audit.unpaid"]
    assert codes(run(settled(world, base="0" * 64), world.read)) == ["audit.other_base"]


def test_a_payment_for_what_was_not_accepted_is_found(world):
    history = settled(world)
    batch = history.batches["0x1"][0]
    strange = PackedReceipt(node_id=9, units=1, artifact="0x" + "22" * 32, signature="0x" + "11" * 65)
    batches = history.batches | {"0x1": [replace(batch, receipts=batch.receipts + pack_receipts([strange]))]}
    report = run(replace(history, batches=batches), world.read)
    assert [(finding.code, finding.node_id) for finding in report.findings] == [("audit.other_receipt", 9)]


def test_without_the_specification_there_is_nothing_to_replay(world):
    store = {name: data for name, data in world.store.items() if name != SPEC.sha256()}

    def read(sha256: str) -> bytes:
        if sha256 not in store:
            raise HyperGPUError("artifact.unknown", sha256)
        return store[sha256]

    with pytest.raises(HyperGPUError) as refusal:
        run(settled(world), read)
    assert refusal.value.code == "audit.no_spec"


def test_one_source_of_artifacts_is_named():
    with pytest.raises(HyperGPUError) as refusal:
        source(coordinator=None, folder=None)
    assert refusal.value.code == "audit.no_source"
