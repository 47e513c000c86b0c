"""THE table: what follows what. Read top to bottom, it is the life of a contribution.

work order, leased -> local steps -> pseudo-gradient -> commitment -> upload, signed receipt -> checks -> score
-> aggregation, outer step, checkpoint -> batch -> attestation -> settleRound -> credit, final on chain

The steps on the operator's machine are in trainer/operator; those of HTTP requests (lease, commit, upload, receipt) are
marketplace/training/services/{leases,intake}.py. Each event goes to the browsers by itself (marketplace/events).
"""

from __future__ import annotations

from marketplace.chain.projections import register as on_chain
from marketplace.events.services import follow_up
from marketplace.events.sweeping import STALLED
from marketplace.jobs import services as jobs
from marketplace.operators import services as operators
from marketplace.settlement import selectors as settlement_rows
from marketplace.settlement import services as settlement
from marketplace.settlement import tasks as settlement_tasks
from marketplace.training import selectors as training_rows
from marketplace.training import tasks as training


def connect() -> None:
    # An event -> the tasks that follow once it is committed.
    follow_up("job.funded", training.start_job)
    follow_up("job.started", training.open_round)
    follow_up("round.opened", training.nudge_nodes)
    follow_up("contribution.received", training.check_contribution)
    follow_up("contribution.checked", training.close_round_if_complete)
    follow_up("contribution.rejected", training.close_round_if_complete)
    follow_up("assignment.failed", training.close_round_if_complete)
    follow_up("round.closed", training.aggregate_round)
    follow_up("round.aggregated", settlement_tasks.build_batch, training.open_next_round)
    follow_up("payment.attesting", settlement_tasks.attest)
    follow_up("round.settled", settlement_tasks.close_job)
    follow_up("round.abandoned", settlement_tasks.close_job_of_round)
    follow_up("job.stopped", settlement_tasks.close_job)
    follow_up("job.failed", settlement_tasks.close_job)

    # A final log of the contract -> what it changes here, in the transaction that moves the indexer's cursor.
    on_chain(
        "NodeRegistered",
        lambda log: operators.record_registration(
            node_id=log.args["node_id"],
            operator=log.args["operator"],
            hot_key=log.args["hot_key"],
            expires_at=log.args["expires_at"],
        ),
    )
    on_chain(
        "HotKeyDelegated",
        lambda log: operators.record_delegation(
            node_id=log.args["node_id"], hot_key=log.args["hot_key"], expires_at=log.args["expires_at"]
        ),
    )
    on_chain("NodeRetired", lambda log: operators.record_retirement(node_id=log.args["node_id"]))
    on_chain("StakeAdded", lambda log: operators.record_stake(operator=log.args["operator"], added=log.args["amount"]))
    on_chain("UnstakeRequested", lambda log: operators.record_stake(operator=log.args["operator"], added=-log.args["amount"]))
    on_chain(
        "BidsCancelled", lambda log: operators.record_bids_cancelled(node_id=log.args["node_id"], min_nonce=log.args["min_nonce"])
    )
    on_chain("CreditWithdrawn", lambda log: operators.record_withdrawal(node_id=log.args["node_id"], amount=log.args["amount"]))
    on_chain(
        "JobCreated",
        lambda log: jobs.record_creation(
            chain_id=log.args["job_id"],
            requester=log.args["requester"],
            spec=log.args["spec"],
            escrow=log.args["escrow"],
            max_rate=log.args["max_rate"],
        ),
    )
    on_chain("JobFunded", lambda log: jobs.record_funding(chain_id=log.args["job_id"], escrow=log.args["escrow"]))
    on_chain(
        "BidTaken",
        lambda log: jobs.record_seat(
            chain_id=log.args["job_id"], node_id=log.args["node_id"], rate=log.args["rate"], capacity=log.args["capacity"]
        ),
    )
    on_chain(
        "ContributionSettled",
        lambda log: operators.record_earning(node_id=log.args["node_id"], units=log.args["units"], amount=log.args["amount"]),
    )
    on_chain("RoundSettled", lambda log: jobs.record_spending(chain_id=log.args["job_id"], amount=log.args["total"]))
    on_chain(
        "RoundSettled",
        lambda log: settlement.record_settlement(
            chain_job_id=log.args["job_id"], number=log.args["round"], tx_hash=log.tx_hash, block=log.block
        ),
    )
    on_chain("JobClosed", lambda log: jobs.record_closing(chain_id=log.args["job_id"], refund=log.args["refund"]))

    # A state of our own transaction -> what it changes here, in the transaction that finds it out.
    for state in ("sent", "included", "failed"):
        on_chain(
            f"intent.{state}",
            lambda intent: settlement.record_intent(
                key=intent.key, state=intent.state, tx_hash=intent.tx_hash or "", block=intent.block, reason=intent.reason or ""
            ),
        )

    # Rows that should have moved by now (their worker or the broker died) -> the task that moves them.
    STALLED[:] = [
        (training_rows.stalled_jobs, training.start_job),
        (training_rows.stalled_contributions, training.check_contribution),
        (training_rows.stalled_rounds, training.aggregate_round),
        (settlement_rows.unbatched_rounds, settlement_tasks.build_batch),
        (settlement_rows.stalled_batches, settlement_tasks.attest),
        (settlement_rows.unclosed_jobs, settlement_tasks.close_job),
    ]
