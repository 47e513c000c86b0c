"""Whole jobs in one process: they learn, they repeat, and they survive an attacker."""

import dataclasses

import pytest

from trainer.diloco import reference
from trainer.diloco.encoding import decode, encode
from trainer.protocol.spec import EncodingSpec, JobSpec, ModelSpec, OuterSpec, RoundSpec


def test_four_nodes_with_the_default_job_read_digits(digits):
    reports = list(reference.run_job(JobSpec(), digits))
    assert len(reports) == JobSpec().rounds.rounds
    assert reports[-1].metrics.accuracy >= 0.95
    assert reports[-1].metrics.loss < 0.25 < 1 < reports[0].metrics.loss
    assert all(report.refused == [] for report in reports)


def test_a_job_run_twice_ends_in_the_same_checkpoint(digits):
    spec = JobSpec(rounds=RoundSpec(rounds=3))
    first, second = ([report.checkpoint for report in reference.run_job(spec, digits)] for _ in range(2))
    assert first == second and len(set(first)) == 3


@pytest.mark.parametrize(
    ("encoding", "outer"),
    [
        (EncodingSpec(kind="dense"), OuterSpec()),
        (EncodingSpec(kind="topk", chunk=256, k=16), OuterSpec(optimizer="sgd", learning_rate=1.0)),
    ],
)
def test_other_encodings_read_digits_too(encoding, outer, digits):
    last = list(reference.run_job(JobSpec(encoding=encoding, outer=outer), digits))[-1]
    assert last.metrics.accuracy >= 0.95


def test_a_cnn_reads_them_better(digits):
    spec = JobSpec(model=ModelSpec(architecture="cnn"), rounds=RoundSpec(rounds=4))
    assert list(reference.run_job(spec, digits))[-1].metrics.accuracy >= 0.97


def test_a_node_that_sends_its_update_tenfold_and_reversed_is_refused_and_the_job_still_learns(digits, monkeypatch):
    honest = reference.contribute

    def contribute(state, work, base, dataset):
        data = honest(state, work, base, dataset)
        if work.node_id != 3:
            return data
        update = decode(data, work.spec.encoding, shapes=state.shapes)
        return encode({name: -10 * value for name, value in update.items()}, work.spec.encoding, error=None)[0]

    monkeypatch.setattr(reference, "contribute", contribute)
    monkeypatch.setattr(reference, "norm_limit", lambda spec, shapes: None)
    reports = list(reference.run_job(JobSpec(rounds=RoundSpec(rounds=8)), digits))
    assert reports[-1].metrics.accuracy >= 0.93
    assert sum(report.refused == [3] for report in reports) >= 6
    assert all(set(report.refused) <= {3} for report in reports)


def test_a_report_says_what_each_node_uploaded(digits):
    report = next(reference.run_job(JobSpec(rounds=RoundSpec(rounds=1)), digits))
    assert set(report.uploads) == {0, 1, 2, 3} and len(set(report.uploads.values())) == 1
    assert dataclasses.asdict(report.metrics).keys() == {"loss", "accuracy"}
