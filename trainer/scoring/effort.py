"""How much of a round's end goes into judging it: a bounded share of what its orders trained.

A job's nodes wait while the coordinator scores, and each attestor scores again. With a fixed number of samples that was as much
work as a small order itself: 1,280 windows forward for the scores of two nodes and for what they know of their orders, where the
two trained 320 windows forward and back.
"""

from __future__ import annotations

TRAINING_PASSES = 3
"""Forward passes that a training step costs a sample: one forward, and backward about two (Kaplan et al., arXiv:2001.08361)."""
SHARE = 0.1
"""Of the round's training that its scores may cost, and again, on average over rounds, what nodes know of their orders."""
MOST_SAMPLES = {"image": 512, "bytes": 128}
"""Held-out samples to score a round on, by kind of data: more would not tell more. A round in which an update may harm is
scored on all of them, whatever its size."""
LEAST_SAMPLES = 32


def affordable(trained: int) -> float:
    """Forward passes of one sample, for orders of `trained` samples in the round."""
    return SHARE * TRAINING_PASSES * trained


def score_samples(kind: str, *, trained: int, updates: int) -> int:
    """Samples on which the base and each of `updates` are evaluated at first."""
    return max(LEAST_SAMPLES, min(MOST_SAMPLES[kind], int(affordable(trained) / (updates + 1))))


def is_looked_at(seed: str, *, passes: int, trained: int) -> bool:
    """Whether something that takes `passes` is done in this round: always where it is affordable, else so seldom that it is on
    average. `seed` (64 hex digits) draws, as it draws the batches: nobody knows it when committing, everybody can draw again."""
    return int(seed[:16], 16) < affordable(trained) / passes * 2**64
