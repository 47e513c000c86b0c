"""Rows of payments, and the events that show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from marketplace.events.services import emit
from marketplace.jobs.models import Seat
from marketplace.operators.models import Node
from marketplace.settlement.models import Batch, Payment
from marketplace.settlement.serializers import payment_json
from marketplace.training.models import Contribution
from trainer.protocol.packing import reward


def create_payments(batch: Batch, contributions: list[Contribution]) -> list[Payment]:
    """One for each contribution of the batch. What it is worth, the attestors will say."""
    nodes = [contribution.node_id for contribution in contributions]
    rates = dict(Seat.objects.filter(job_id=batch.round.job_id, node_id__in=nodes).values_list("node_id", "rate"))
    operators = dict(Node.objects.filter(pk__in=nodes).values_list("pk", "operator_id"))
    return Payment.objects.bulk_create(
        Payment(
            contribution=contribution, batch=batch, node_id=contribution.node_id, units=contribution.units,
            rate=rates[contribution.node_id], operator=operators[contribution.node_id],
        )
        for contribution in contributions
    )  # fmt: skip


def price_payments(batch: Batch, qualities: dict[int, int]) -> None:
    """What each payment of the batch comes to, at the quality of its node."""
    payments = list(Payment.objects.filter(batch=batch, node_id__in=qualities))
    for payment in payments:
        payment.quality = qualities[payment.node_id]
        payment.amount = reward(units=payment.units, rate=int(payment.rate), quality=payment.quality)
    Payment.objects.bulk_update(payments, ["quality", "amount"])


def move_payments(batch: Batch, state: str, **changes: Any) -> None:
    """Payments that are final, or lost, stay what they are."""
    moving = Payment.objects.filter(batch=batch).exclude(state__in=[Payment.State.FINAL, Payment.State.FAILED])
    moving.update(state=state, **changes)
    tell(batch, f"payment.{state}")


def tell(batch: Batch, type: str, **changes: Any) -> None:
    """The batch's payments as they are now: one event for the job, one for each operator in it."""
    payments = Payment.objects.filter(batch=batch).select_related("contribution__round").order_by("node_id")
    rows = rows_by_operator(payments)
    emit(
        type,
        topics=[f"job.{batch.round.job_id}", "market"],
        changes={"payments": [row for mine in rows.values() for row in mine], **changes},
        refs={"batch_id": batch.pk},
    )
    for operator, mine in rows.items():
        emit(type, topics=[f"operator.{operator.lower()}"], changes={"payments": mine}, follow=False)


def rows_by_operator(payments: Iterable[Payment]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for payment in payments:
        rows[payment.operator].append(payment_json(payment))
    return rows
