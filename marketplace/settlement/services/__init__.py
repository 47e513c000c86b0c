"""Writes of settlement: payments (rows and their events), attestations (commit, fix, open), batches (build, queue, send
again), finality (what the chain says), epochs (sets of attestors), closures (the end of a job's money)."""
