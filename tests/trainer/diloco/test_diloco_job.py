"""Whole jobs in one process: they learn, they repeat, and they survive an attacker."""

from dataclasses import replace

import pytest

from trainer.diloco import reference
from trainer.diloco.encoding import decode, encode
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import EncodingSpec, JobSpec, ModelSpec, OuterSpec, RoundSpec


def run(spec: JobSpec) -> list[reference.RoundReport]:
    return list(reference.run_job(JobWork(spec=spec, files={})))


def refused(report: reference.RoundReport) -> list[int]:
    return [verdict.node_id for verdict in report.result.verdicts if verdict.code]


def test_four_nodes_with_the_default_job_read_digits():
    reports = run(JobSpec())
    assert len(reports) == JobSpec().rounds.rounds
    assert reports[-1].result.metric["accuracy"] >= 0.95
    assert reports[-1].result.metric["loss"] < 0.25 < 1 < reports[0].result.metric["loss"]
    assert all(refused(report) == [] for report in reports)


def test_a_job_run_twice_goes_through_the_same_versions():
    spec = JobSpec(rounds=RoundSpec(rounds=3))
    first, second = ([report.result.version for report in run(spec)] for _ in range(2))
    assert first == second and len(set(first)) == 3


@pytest.mark.parametrize(
    ("encoding", "downlink", "outer"),
    [
        (EncodingSpec(kind="fp32"), EncodingSpec(kind="fp32"), OuterSpec()),
        (EncodingSpec(kind="int4"), EncodingSpec(kind="int8"), OuterSpec()),
        (
            EncodingSpec(kind="topk", chunk=256, k=16), EncodingSpec(kind="topk", chunk=256, k=32),
            OuterSpec(optimizer="sgd", learning_rate=1.0),
        ),
    ],
    ids=["fp32", "int4", "topk"],
)  # fmt: skip
def test_every_encoding_reads_digits(encoding, downlink, outer):
    last = run(JobSpec(encoding=encoding, downlink=downlink, outer=outer))[-1]
    assert last.result.metric["accuracy"] >= 0.95


def test_a_cnn_reads_them_better():
    spec = JobSpec(model=ModelSpec(architecture="cnn"), rounds=RoundSpec(rounds=4))
    assert run(spec)[-1].result.metric["accuracy"] >= 0.97


def test_a_node_that_sends_its_update_fourfold_and_reversed_is_refused_and_the_job_still_learns(monkeypatch):
    honest = reference.Node.contribute

    def contribute(node, order):
        submission = honest(node, order)
        if node.node_id != 3:
            return submission
        update = decode(submission.data, order.encoding, count=len(node.params))
        data = encode(-4 * update.values, order.encoding).data
        return replace(submission, data=data, artifact=sha256_hex(data))

    monkeypatch.setattr(reference.Node, "contribute", contribute)
    reports = run(JobSpec(rounds=RoundSpec(rounds=8)))
    assert reports[-1].result.metric["accuracy"] >= 0.93
    assert sum(refused(report) == [3] for report in reports) >= 5
    assert all(set(refused(report)) <= {3} for report in reports)


def test_a_round_may_mix_encodings(monkeypatch):
    """A fast link sends more: each node's file is of its own size, and all of them make one step."""
    dense = EncodingSpec(kind="int8")
    ordered = reference.order
    monkeypatch.setattr(
        reference, "order",
        lambda spec, work, node_id: ordered(spec, work, node_id).model_copy(update={"encoding": dense} if node_id == 0 else {}),
    )  # fmt: skip
    sparse = EncodingSpec(kind="topk", chunk=256, k=16)
    reports = run(JobSpec(encoding=sparse, outer=OuterSpec(optimizer="sgd", learning_rate=1.0)))
    assert reports[0].uploads[0] > 4 * reports[0].uploads[1] == 4 * reports[0].uploads[2]
    assert reports[-1].result.metric["accuracy"] >= 0.95
    assert all(refused(report) == [] for report in reports)


def test_a_report_says_what_each_node_uploaded_and_what_went_down():
    report = run(JobSpec(rounds=RoundSpec(rounds=1)))[0]
    assert set(report.uploads) == {0, 1, 2, 3} and len(set(report.uploads.values())) == 1
    assert report.download == len(report.result.delta) > 0
