"""The end of a job's money: when all of it is settled, attestors say so, and the rest goes back."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.chain.services import domain, enqueue
from marketplace.events.services import emit
from marketplace.jobs.models import Job, Seat
from marketplace.settlement.models import Batch, Closure, ClosureSignature
from marketplace.settlement.selectors import current_set
from marketplace.settlement.services.batches import group_of
from marketplace.training.models import Round
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import JobClosure

LAPSE_SLACK = timedelta(seconds=30)
"""Between the chain's clock and ours."""
NOTHING = "0x" + "00" * 32


def closing(*, job_id: int) -> tuple[int, int] | None:
    """Settled rounds and base units spent of a job that has ended and of which nothing is to come any more, else None.
    What the coordinator asks for, and what each attestor finds out for itself before it signs."""
    job = Job.objects.get(pk=job_id)
    if job.state not in Job.ENDED or job.chain_id is None or Seat.objects.filter(job=job, recorded_round__isnull=False).exists():
        return None
    rounds = Round.objects.filter(job=job)
    lost = Batch.objects.filter(round__job=job, state=Batch.State.FAILED).values("round_id")
    if rounds.exclude(state__in=[Round.State.SETTLED, Round.State.ABANDONED]).exclude(pk__in=lost).exists():
        return None
    return rounds.filter(state=Round.State.SETTLED).count(), int(job.spent)


def lapse_records(*, job_id: int) -> None:
    """Free what is reserved for records that nobody paid or claimed in time: they would keep the job from closing."""
    job = Job.objects.get(pk=job_id)
    over = timezone.now() - challenge_window() - LAPSE_SLACK
    old = Round.objects.filter(job=job, state=Round.State.SETTLED, settled_at__lt=over)
    for seat in Seat.objects.filter(job=job, recorded_round__in=old.values("number")):
        key = f"lapse:{domain().contract}:{job.chain_id}:{seat.recorded_round}:{seat.node_id}"
        enqueue(key=key, function="lapseRecord", args=[job.chain_id, seat.node_id])


def challenge_window() -> timedelta:
    return timedelta(seconds=int(settings.HYPERGPU.deployment["terms"]["market"]["challengeWindow"]))


def begin_closure(*, job_id: int) -> None:
    """Ask attestors to sign the end of a job, if it can be closed. Idempotent."""
    found = closing(job_id=job_id)
    if found is None:
        return
    epoch = current_set()
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        # What does not hold any more is not signed any further: another epoch, or money that moved meanwhile.
        stale = Closure.objects.filter(job=job, state=Closure.State.SIGNING).exclude(epoch=epoch, rounds=found[0], spent=found[1])
        stale.update(state=Closure.State.REFUSED)
        if Closure.objects.filter(job=job).exclude(state=Closure.State.REFUSED).exists():
            return
        key = f"close:{domain().contract}:{job.chain_id}:{Closure.objects.filter(job=job).count()}"
        Closure.objects.create(job=job, epoch=epoch, rounds=found[0], spent=found[1], intent_key=key, driven_at=timezone.now())
        emit("job.closing", topics=[f"job.{job_id}"], changes={}, refs={"job_id": job_id})


def unsigned(*, job_id: int) -> list[str]:
    """Addresses of the attestors whose signature a closure still waits for."""
    closure = Closure.objects.filter(job_id=job_id, state=Closure.State.SIGNING).select_related("epoch").first()
    if closure is None:
        return []
    signed = set(closure.signatures.values_list("member", flat=True))
    return [address for member, address in enumerate(closure.epoch.members) if member not in signed]


def message(closure: Closure) -> JobClosure:
    return JobClosure(job_id=closure.job.chain_id or 0, rounds=closure.rounds, spent=int(closure.spent), epoch=closure.epoch_id)


def record_signature(*, closure_id: int, attestor: str, signature: str) -> None:
    """Keep an attestor's signature; with a quorum the job is closed on chain. Idempotent.

    Raises HyperGPUError `attestation.wrong_signer`.
    """
    with transaction.atomic():
        closure = Closure.objects.select_related("job", "epoch").select_for_update(of=("self",)).get(pk=closure_id)
        member = closure.epoch.member(attestor)
        if member is None or closure.state != Closure.State.SIGNING:
            return
        if eip712.recover(domain(), message(closure), signature) != attestor:
            raise HyperGPUError("attestation.wrong_signer", f"{attestor} did not sign this closure.")
        ClosureSignature.objects.get_or_create(closure=closure, member=member, defaults={"signature": signature})
        signed = list(closure.signatures.order_by("member"))
        if len(signed) >= closure.epoch.quorum:
            Closure.objects.filter(pk=closure.pk).update(state=Closure.State.QUEUED)
            attestations = [{"member": one.member, "salt": NOTHING, "scores": "0x", "signature": one.signature} for one in signed]
            said = message(closure)
            args = [said.job_id, said.rounds, said.spent, said.epoch, attestations]
            enqueue(key=closure.intent_key, function="closeJob", args=args, group=group_of(said.job_id))


def record_failed_closure(intent: Intent) -> None:
    """The chain refused to close the job; the sweep tries again."""
    Closure.objects.filter(intent_key=intent.key).update(state=Closure.State.REFUSED)
