"""Batches, closures and cases: the coordinator asks, each attestor's own worker, with its own key, answers."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import transaction

from marketplace.chain.services import domain
from marketplace.chain.signer import private_key
from marketplace.common.tasks import slow_task, task
from marketplace.settlement import attesting
from marketplace.settlement.attestor import Attestor
from marketplace.settlement.models import Batch, Closure
from marketplace.settlement.selectors import fixed, statement
from marketplace.settlement.services import attestations, batches, cases, closures, epochs
from marketplace.training import selectors
from marketplace.training.models import Case
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import commitments_hash, pack_scores

log = logging.getLogger(__name__)


def this_attestor() -> Attestor | None:
    """Who this worker attests for; None in a worker without a key. Raises as `signer.KeySigner`."""
    env = settings.HYPERGPU
    if not env.attestor_key.get_secret_value():
        return None
    return Attestor(private_key(env.attestor_key), domain=domain(), home=env.state_dir / "attestors")


# The coordinator's.


@task()
def build_batches(round_id: int) -> None:
    batches.build_batches(round_id=round_id)


@task()
def press_batch(batch_id: int) -> None:
    """Go on without the attestors that are late."""
    attestations.press(batch_id=batch_id)


@task()
def queue_batches(job_id: int) -> None:
    """Something that settlements waited for has happened."""
    with transaction.atomic():
        batches.queue_in_order(job_id)


@task()
def send_batch_again(batch_id: int) -> None:
    batches.send_again(batch_id=batch_id)


@task()
def begin_epoch(epoch: int) -> None:
    epochs.begin_epoch(epoch=epoch)


@task()
def open_cases(round_id: int) -> None:
    cases.open_cases(round_id=round_id)


@task()
def send_case_again(case_id: int) -> None:
    cases.send_again(case_id=case_id)


@task()
def close_job(job_id: int) -> None:
    closures.lapse_records(job_id=job_id)
    closures.begin_closure(job_id=job_id)


@task()
def close_job_of_round(round_id: int) -> None:
    close_job(job_id=selectors.job_of_round(round_id))


# An attestor's.


@slow_task()
def attest(batch_id: int) -> None:
    """This attestor's next step in a batch: commit to its scores; once the list of commitments is fixed, sign and show."""
    me = this_attestor()
    batch = Batch.objects.select_related("round__job", "epoch").get(pk=batch_id)
    member = batch.epoch.member(me.address) if me else None
    if me is None or member is None or batch.state != Batch.State.ATTESTING:
        return
    try:
        if batch.commitments is None:
            commit(me, batch)
        elif member in fixed(batch):
            show(me, batch, member)
    except HyperGPUError as refusal:
        if refusal.code == attesting.TOO_EARLY:
            return  # asked again, and nothing is said against the batch
        log.warning("%s does not attest batch %s: %s", me.address, batch_id, refusal)
        attestations.record_refusal(batch_id=batch_id, epoch=batch.epoch_id, attestor=me.address, reason=refusal.message)


def commit(me: Attestor, batch: Batch) -> None:
    said = statement(batch)
    scores = me.kept_scores(said)
    commitment = me.commitment(said, scores) if scores is not None else me.commit(said, pack_scores(attesting.scores(batch, me)))
    attestations.record_commitment(batch_id=batch.pk, epoch=said.epoch, attestor=me.address, commitment=commitment)


def show(me: Attestor, batch: Batch, member: int) -> None:
    """Raises HyperGPUError `attestation.lost` when the listed commitment is not one that this attestor can open."""
    said, listed = statement(batch), fixed(batch)
    scores = me.kept_scores(said)
    if scores is None or me.commitment(said, scores) != listed[member]:
        raise HyperGPUError("attestation.lost", "The scores that it has committed to are not in its folder any more.")
    signature = me.sign(said, commitments_hash(listed))
    salt = "0x" + me.salt(said).hex()
    attestations.record_opening(batch_id=batch.pk, attestor=me.address, salt=salt, scores=scores, signature=signature)


@task()
def attest_closure(job_id: int) -> None:
    """Sign that a job is settled, if this attestor finds the same."""
    me, found = this_attestor(), closures.closing(job_id=job_id)
    closure = Closure.objects.filter(job_id=job_id, state=Closure.State.SIGNING).select_related("job", "epoch").first()
    if me is None or closure is None or found != (closure.rounds, int(closure.spent)):
        return
    signature = me.sign_closure(closures.message(closure))
    closures.record_signature(closure_id=closure.pk, attestor=me.address, signature=signature)


@slow_task()
def serve(case_id: int) -> None:
    """This attestor's next step in a committee: look, commit; once all have, reveal."""
    from marketplace.settlement import committee  # noqa: PLC0415  (its engine is the one door to torch, its wallet to web3)

    me = this_attestor()
    case = Case.objects.select_related("contribution__round__job").get(pk=case_id)
    if me is None or case.state != Case.State.VOTING:
        return
    try:
        committee.serve(me, case)
    except HyperGPUError as refusal:
        log.warning("%s does not vote in case %s: %s", me.address, case.chain_id, refusal)
