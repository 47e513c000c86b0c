"""The only door to torch: the coordinator closes rounds through it, and attestors compute them again with the same code."""

from __future__ import annotations

import torch

from trainer.diloco.evidence import (
    check_chain,
    check_counts_once,
    check_judgement,
    check_outcome,
    evidence,
    link_of,
    round_work,
)
from trainer.diloco.round import check, close_round, judge_round, metric, parameters, prepare
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import JobSpec
from trainer.scoring.auditing import replay_audit

__all__ = [
    "check", "check_chain", "check_counts_once", "check_judgement", "check_outcome", "close_round", "evidence", "judge_round",
    "link_of", "metric", "parameters", "prepare", "replay_audit", "round_work", "warm_up",
]  # fmt: skip

torch.set_num_threads(1)  # workers are many; each computes small rounds


def warm_up() -> None:
    """Load what the first job would otherwise wait for."""
    prepare(JobWork(spec=JobSpec(), files={}))
