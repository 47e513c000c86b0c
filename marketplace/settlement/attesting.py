"""Where an attestor's own result differs from what it is asked to sign."""

from __future__ import annotations

import json

from marketplace.artifacts import store
from marketplace.settlement.models import Batch
from marketplace.training.results import RoundWork, Verdict
from trainer.protocol.packing import unpack_receipts

QUALITY_TOLERANCE = 100
"""Basis points: other hardware sums floats in another order."""


def disagreement(batch: Batch, work: RoundWork, verdicts: list[Verdict], *, score_seed: str) -> str:
    """Empty when the evidence names this round's inputs and every receipt of the batch is for a contribution that the
    recomputation accepts, with its artifact, its units and its quality; else what is wrong."""
    evidence = json.loads(store.read(batch.evidence))
    if (evidence["base"], evidence["round"], evidence["score_seed"]) != (work.base, work.number, score_seed):
        return "the evidence is of another round"
    handed_in = {submission.node_id: submission for submission in work.submissions}
    found = {verdict.node_id: verdict.quality for verdict in verdicts if verdict.quality is not None}
    for receipt in unpack_receipts(bytes(batch.packed)):
        quality = found.get(receipt.node_id)
        if quality is None:
            return f"node {receipt.node_id} is in the batch, but the recomputation refuses its contribution"
        submission = handed_in[receipt.node_id]
        if (receipt.artifact, receipt.units) != ("0x" + submission.artifact, submission.units):
            return f"node {receipt.node_id} handed in another artifact, or other units, than the batch says"
        if abs(receipt.quality - quality) > QUALITY_TOLERANCE:
            return f"node {receipt.node_id} has quality {receipt.quality} in the batch, {quality} recomputed"
    return ""
