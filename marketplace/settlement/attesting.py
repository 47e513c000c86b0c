"""Where an attestor's own result differs from what it is asked to sign."""

from __future__ import annotations

from marketplace.settlement.models import Batch
from marketplace.training.results import Verdict
from trainer.protocol.packing import unpack_receipts

QUALITY_TOLERANCE = 100
"""Basis points: other hardware sums floats in another order."""


def disagreement(batch: Batch, verdicts: list[Verdict]) -> str:
    """Empty when every receipt of the batch has the quality that the recomputation gives; else what is wrong."""
    claimed = {receipt.node_id: receipt.quality for receipt in unpack_receipts(bytes(batch.packed))}
    found = {verdict.node_id: verdict.quality for verdict in verdicts if verdict.quality is not None}
    if set(claimed) != set(found):
        return f"nodes {sorted(set(claimed) ^ set(found))} are in only one of batch and recomputation"
    for node_id, quality in claimed.items():
        if abs(quality - found[node_id]) > QUALITY_TOLERANCE:
            return f"node {node_id} has quality {quality} in the batch, {found[node_id]} recomputed"
    return ""
