"""Attest, and close jobs."""

from __future__ import annotations

from django.conf import settings
from eth_account import Account

from marketplace.chain.services import domain
from marketplace.common.tasks import task
from marketplace.settlement import services
from marketplace.settlement.attesting import disagreement
from marketplace.settlement.models import Batch
from marketplace.training import selectors
from trainer.protocol import eip712


@task()
def build_batch(round_id: int) -> None:
    services.build_batch(round_id=round_id)


@task()
def attest(batch_id: int) -> None:
    """Recompute the round from its artifacts; sign for it, or say where it differs."""
    from marketplace.training import engine  # noqa: PLC0415  (the one door to torch, kept out of web processes)

    batch = Batch.objects.select_related("round__job").get(pk=batch_id)
    if batch.state != Batch.State.ATTESTING:
        return
    work = selectors.round_work(batch.round)
    refusal = disagreement(batch, work, engine.judge_round(work), score_seed=engine.score_seed(work))
    message = services.attestation_message(batch)
    for key in settings.HYPERGPU.attestor_keys:
        secret = key.get_secret_value()
        services.record_attestation(
            batch_id=batch_id,
            attestor=Account.from_key(secret).address,
            signature="" if refusal else eip712.sign(domain(), message, secret),
            refusal=refusal,
            quorum=settings.HYPERGPU.quorum,
        )


@task()
def close_job(job_id: int) -> None:
    services.close_if_settled(job_id=job_id)


@task()
def close_job_of_round(round_id: int) -> None:
    services.close_if_settled(job_id=selectors.job_of_round(round_id))
