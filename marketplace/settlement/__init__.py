"""From accepted contributions to credits on chain: batches, attestations, payments, refunds."""
