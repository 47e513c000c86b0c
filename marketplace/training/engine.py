"""The only door to torch: the coordinator closes rounds through it, and attestors compute them again with the same code."""

from __future__ import annotations

import torch
from django.conf import settings

from trainer.data import load_dataset
from trainer.diloco.evidence import (
    check_chain,
    check_counts_once,
    check_judgement,
    check_outcome,
    evidence,
    link_of,
    round_work,
)
from trainer.diloco.flat import flatten
from trainer.diloco.round import check, close_round, judge_round, metric, parameters, prepare
from trainer.models import build_model, parameter_shapes
from trainer.protocol.spec import JobSpec
from trainer.scoring.auditing import replay_audit
from trainer.scoring.scores import evaluate

__all__ = [
    "check", "check_chain", "check_counts_once", "check_judgement", "check_outcome", "close_round", "evidence", "judge_round",
    "link_of", "metric", "parameters", "prepare", "replay_audit", "round_work", "warm_up",
]  # fmt: skip

torch.set_num_threads(settings.HYPERGPU.compute_threads)


def warm_up() -> None:
    """Load what the first job would otherwise wait for: on the CPU alone, since workers are forked after it, and CUDA that was
    begun before a fork is lost in it."""
    spec = JobSpec()
    dataset = load_dataset(spec.data, files={})
    model = build_model(spec.model, dataset.info, seed=spec.seed)
    evaluate(model, parameter_shapes(model), flatten(dict(model.named_parameters())), dataset.eval)
