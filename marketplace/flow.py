"""THE table: what follows what. Read top to bottom, it is the life of a contribution.

work order, leased -> local steps -> pseudo-gradient -> commitment -> upload, signed receipt -> checks -> score
-> aggregation, outer step, checkpoint -> batch -> attestation -> settleRound -> credit, final on chain -> by chance: replay audit
-> proven false: a case at the court, its committee, the pay taken back

The steps on the operator's machine are in trainer/operator; those of HTTP requests (lease, commit, upload, receipt) are
marketplace/training/services/{leases,intake}.py. Each event goes to the browsers by itself (marketplace/events).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from marketplace.chain.projections import LogEntry
from marketplace.chain.projections import register as on_chain
from marketplace.common.driving import STALL
from marketplace.events.services import follow_up
from marketplace.events.sweeping import STALLED
from marketplace.jobs import services as jobs
from marketplace.operators import services as operators
from marketplace.settlement import selectors as settlement_rows
from marketplace.settlement import tasks as settlement
from marketplace.settlement.services import attestations, cases, closures, epochs, finality
from marketplace.training import selectors as training_rows
from marketplace.training import tasks as training
from marketplace.training.services import recording, rounds, seats

log = logging.getLogger(__name__)


def args(record: Callable[..., None], *names: str, **renamed: str) -> Callable[[LogEntry], None]:
    """A handler that calls `record` with these arguments of the log; `renamed` maps a parameter to the log's name for it."""
    wanted = {name: name for name in names} | renamed
    return lambda log: record(**{parameter: log.args[name] for parameter, name in wanted.items()})


ASK_SECONDS = 30
"""A question that no worker has taken by then is dropped: it is asked again meanwhile."""


class Ask:
    """A task for every attestor whose part is missing, on that attestor's own queue: its worker alone has its key. The
    messages carry row ids, never a score."""

    def __init__(self, task: Any, *, missing: Callable[..., list[str]]) -> None:
        self.task, self.missing = task, missing

    def delay(self, **refs: Any) -> None:
        for attestor in self.missing(**refs):
            self.task.apply_async(kwargs=refs, queue=f"attest.{attestor.lower()}", expires=ASK_SECONDS)


class Again:
    """A task of a worker that computes, for rows that seem lost. They may only wait for one: what none has taken by the time
    that it is asked again is dropped, so that the queue stays as long as there are rows."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def delay(self, **refs: Any) -> None:
        self.task.apply_async(kwargs=refs, expires=STALL.total_seconds())


class AtOnce:
    """A task done where its event was committed, since a round waits for it: a broker and another worker in between take longer
    than the task. What fails here goes to the broker after all."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def delay(self, **refs: Any) -> None:
        try:
            self.task(**refs)
        except Exception:
            log.exception("%s is handed to a worker", self.task.name)
            self.task.delay(**refs)


ask_to_attest = Ask(settlement.attest, missing=attestations.press)
ask_to_close = Ask(settlement.attest_closure, missing=closures.unsigned)
ask_to_vote = Ask(settlement.serve, missing=cases.press)


def connect() -> None:
    # An event -> the tasks that follow once it is committed.
    follow_up("job.drafted", training.size_job)
    follow_up("job.funded", training.start_job)
    follow_up("job.started", training.open_round)
    follow_up("round.opened", AtOnce(training.nudge_nodes))
    follow_up("round.extended", AtOnce(training.nudge_nodes))
    follow_up("contribution.received", training.check_contribution)
    follow_up("contribution.recorded", settlement.queue_batches)
    follow_up("contribution.checked", AtOnce(training.close_round_if_complete))
    follow_up("contribution.rejected", training.close_round_if_complete)
    follow_up("assignment.failed", training.close_round_if_complete)
    follow_up("round.closed", training.aggregate_round)
    follow_up("round.aggregated", AtOnce(training.open_next_round), settlement.build_batches, training.evaluate_round)
    follow_up("payment.attesting", ask_to_attest)
    follow_up("batch.committed", ask_to_attest)
    follow_up("round.settled", settlement.close_job, training.record_waiting_contributions)
    follow_up("audit.requested", training.nudge_audited_nodes)
    follow_up("audit.answered", training.replay_audit)
    follow_up("audit.judged", settlement.open_cases)
    follow_up("case.voting", ask_to_vote)
    follow_up("round.abandoned", settlement.close_job_of_round)
    follow_up("job.stopped", settlement.close_job)
    follow_up("job.failed", settlement.close_job)
    follow_up("job.closing", ask_to_close)

    # A final log of the contract -> what it changes here, in the transaction that moves the indexer's cursor.
    on_chain("EpochBegun", epochs.record_epoch)
    for gone in ("AttestorLeaving", "AttestorSlashed"):
        on_chain(f"registry.{gone}", epochs.record_attestor_gone)
    on_chain("NodeRegistered", args(operators.record_registration, "node_id", "operator", "hot_key", "expires_at"))
    on_chain("HotKeyDelegated", args(operators.record_delegation, "node_id", "hot_key", "expires_at"))
    on_chain("NodeRetired", args(operators.record_retirement, "node_id"))
    on_chain("StakeAdded", args(operators.record_stake, "operator", added="amount"))
    on_chain("UnstakeRequested", args(operators.record_unstaking, "operator", "amount"))
    on_chain("BidsCancelled", args(operators.record_bids_cancelled, "node_id", "min_nonce"))
    on_chain("JobCreated", args(jobs.record_creation, "requester", "spec", "escrow", "max_rate", chain_id="job_id"))
    on_chain("JobFunded", args(jobs.record_funding, "escrow", chain_id="job_id"))
    on_chain("BidTaken", args(jobs.record_seat, "node_id", "rate", "capacity", chain_id="job_id"))
    on_chain("ContributionRecorded", args(jobs.record_recording, "round", "node_id", "units", chain_id="job_id"))
    on_chain("ContributionRecorded", recording.record_recording)
    on_chain("ContributionRecorded", finality.show_recording)
    for ended in ("ContributionSettled", "RecordLapsed", "RecordDropped"):
        on_chain(ended, args(jobs.record_release, "round", "node_id", chain_id="job_id"))
    on_chain("ContributionSettled", args(operators.record_earning, "node_id", "units", "quality", "amount"))
    on_chain("RoundSettled", args(jobs.record_spending, chain_id="job_id", amount="total"))
    on_chain("ContributionSettled", finality.record_payment)
    on_chain("RoundSettled", finality.record_settlement)
    on_chain("RoundSettled", args(operators.announce_earnings))
    on_chain("RoundAccepted", args(rounds.record_acceptance, "round", chain_id="job_id"))
    on_chain("CreditAwarded", args(operators.record_award, "node_id", "amount"))
    on_chain("CreditAwarded", args(jobs.record_spending, "amount", chain_id="job_id"))
    on_chain("NodeSlashed", args(operators.record_slashing, "node_id", "from_credit", "from_stake"))
    on_chain("NodeSlashed", args(jobs.record_restitution, chain_id="job_id", amount="restitution"))
    on_chain("court.CaseOpened", cases.record_opening)
    on_chain("court.CommitteeDrawn", cases.record_committee)
    for vote in ("VoteCommitted", "VoteRevealed"):
        on_chain(f"court.{vote}", cases.record_vote)
    on_chain("court.CaseDecided", cases.record_decision)
    on_chain("court.CaseAppealed", cases.record_appeal)
    on_chain("court.CaseRuled", cases.record_ruling)
    on_chain("court.CaseExecuted", cases.record_execution)
    on_chain("NodeSlashed", cases.record_slashing)
    on_chain("Paused", args(finality.record_pause, "new_jobs_until", "settlement_until"))
    on_chain("Unpaused", args(finality.record_unpause))
    on_chain("CreditWithdrawn", args(operators.record_withdrawal, "node_id", "amount"))
    on_chain("JobExitRequested", args(jobs.record_exit_notice, chain_id="job_id"))
    on_chain("JobClosed", args(seats.release_seats, chain_id="job_id"))
    on_chain("JobClosed", args(jobs.record_closing, "refund", chain_id="job_id"))

    # A state of our own transaction -> what it changes here, in the transaction that finds it out.
    for state in ("sent", "included", "failed"):
        on_chain(f"intent.{state}", finality.record_intent)
    on_chain("intent.failed", closures.record_failed_closure)
    on_chain("intent.failed", seats.record_failed_seat)
    on_chain("intent.failed", cases.record_intent)

    # Rows that should have moved by now (their worker or the broker died) -> the task that moves them.
    STALLED[:] = [
        (training_rows.stalled_drafts, Again(training.size_job)),
        (training_rows.stalled_jobs, Again(training.start_job)),
        (training_rows.stalled_contributions, Again(training.check_contribution)),
        (training_rows.stalled_rounds, Again(training.aggregate_round)),
        (training_rows.unmeasured_rounds, Again(training.evaluate_round)),
        (training_rows.drawable_rounds, training.draw_audits),
        (training_rows.suspect_rounds, training.audit_suspects),
        (training_rows.stalled_audits, Again(training.replay_audit)),
        (training_rows.unrecorded_contributions, training.record_contribution),
        (settlement_rows.due_epochs, settlement.begin_epoch),
        (settlement_rows.unbatched_rounds, settlement.build_batches),
        (settlement_rows.ripe_batches, settlement.press_batch),
        (settlement_rows.stalled_batches, ask_to_attest),
        (settlement_rows.due_batches, settlement.send_batch_again),
        (settlement_rows.unopened_cases, settlement.open_cases),
        (settlement_rows.due_cases, settlement.send_case_again),
        (settlement_rows.open_cases, ask_to_vote),
        (settlement_rows.unclosed_jobs, settlement.close_job),
        (settlement_rows.unsigned_closures, ask_to_close),
    ]
