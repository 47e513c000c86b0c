"""Writes of training: rounds (open, close), leases, intake (commit, upload, receipt), verdicts (checks, aggregation)."""
