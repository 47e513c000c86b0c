"""Writes of supply: what the chain says of nodes, what nodes say of themselves, and bids."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from marketplace.chain.services import domain
from marketplace.common.models import clamped
from marketplace.common.tasks import each
from marketplace.common.times import from_unix, iso
from marketplace.events.services import emit, gauge
from marketplace.operators import selectors
from marketplace.operators.models import Bid, Node, Operator, RequestNonce
from marketplace.operators.serializers import bid_json, node_json
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.requests import MAX_SKEW_SECONDS
from trainer.protocol.types import Bid as SignedBid


def announce(node: Node, type: str = "node.changed") -> None:
    """Tell the pages the node as it is now; call inside the transaction of the change."""
    node.refresh_from_db()
    emit(type, topics=selectors.topics_of(node), changes={"nodes": [node_json(node)]})


def announce_all(node_ids: Sequence[int]) -> None:
    """As `announce`, in one event for each page, since there can be hundreds."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for node in Node.objects.filter(pk__in=node_ids).select_related("operator").order_by("id"):
        row = node_json(node)
        for topic in selectors.topics_of(node):
            rows[topic].append(row)
    for topic, nodes in rows.items():
        emit("node.changed", topics=[topic], changes={"nodes": nodes})


# What the chain says. Each runs in the indexer's transaction, once per log.


def record_registration(*, node_id: int, operator: str, hot_key: str, expires_at: int) -> None:
    Operator.objects.get_or_create(address=operator)
    Node.objects.create(id=node_id, operator_id=operator, hot_key=hot_key, key_expires_at=from_unix(expires_at))
    announce(Node.objects.get(pk=node_id), "node.registered")


def record_delegation(*, node_id: int, hot_key: str, expires_at: int) -> None:
    Node.objects.filter(pk=node_id).update(hot_key=hot_key, key_expires_at=from_unix(expires_at))
    announce(Node.objects.get(pk=node_id))


def record_retirement(*, node_id: int) -> None:
    Node.objects.filter(pk=node_id).update(retired=True)
    announce(Node.objects.get(pk=node_id))


def record_unstaking(*, operator: str, amount: int) -> None:
    record_stake(operator=operator, added=-amount)


def record_stake(*, operator: str, added: int) -> None:
    """`added` is negative when stake left."""
    owner, _ = Operator.objects.select_for_update().get_or_create(address=operator)
    Operator.objects.filter(pk=operator).update(stake=owner.stake + added)
    for node in Node.objects.filter(operator_id=operator):
        announce(node)


def record_earning(*, node_id: int, units: int, quality: int, amount: int) -> None:
    """One settled receipt. Told by `announce_earnings`, with the others of its batch."""
    node = Node.objects.select_for_update().get(pk=node_id)
    Node.objects.filter(pk=node_id).update(
        earned=node.earned + amount, credit=node.credit + amount, units=clamped(node.units + units), rounds=node.rounds + 1,
        quality_sum=node.quality_sum + quality, untold_earning=True,
    )  # fmt: skip


def announce_earnings() -> None:
    """A batch's receipts are read: tell its nodes."""
    paid = list(Node.objects.filter(untold_earning=True).values_list("pk", flat=True))
    Node.objects.filter(pk__in=paid).update(untold_earning=False)
    announce_all(paid)


def record_award(*, node_id: int, amount: int) -> None:
    """A dispute found that the node is owed more."""
    node = Node.objects.select_for_update().get(pk=node_id)
    Node.objects.filter(pk=node_id).update(earned=node.earned + amount, credit=node.credit + amount)
    announce(Node.objects.get(pk=node_id))


def record_slashing(*, node_id: int, from_credit: int, from_stake: int) -> None:
    """A proven fault: taken from the node's credit first, then from its operator's stake."""
    node = Node.objects.select_for_update().get(pk=node_id)
    Node.objects.filter(pk=node_id).update(credit=node.credit - from_credit, faults=node.faults + 1)
    record_stake(operator=node.operator_id, added=-from_stake)


def record_withdrawal(*, node_id: int, amount: int) -> None:
    node = Node.objects.select_for_update().get(pk=node_id)
    Node.objects.filter(pk=node_id).update(credit=node.credit - amount)
    announce(Node.objects.get(pk=node_id))


def record_bids_cancelled(*, node_id: int, min_nonce: int) -> None:
    Node.objects.filter(pk=node_id).update(min_bid_nonce=clamped(min_nonce))
    for bid in Bid.objects.filter(node_id=node_id, nonce__lt=min_nonce, state=Bid.State.OPEN).select_related("node"):
        bid.state = Bid.State.CANCELLED
        bid.save(update_fields=["state"])
        emit("bid.cancelled", topics=selectors.topics_of(bid.node), changes={"bids": [bid_json(bid)]})


# What audits and rounds say.


def rate(ranking: Sequence[Sequence[int]]) -> None:
    """One match of nodes, groups of equals, best first. Call once a round, inside the transaction of its end; the caller tells.

    The rows are locked, since the rounds of several jobs may end at once.
    """
    from trainer.scoring.rating import Rating, rated  # noqa: PLC0415  (web processes have no use for it)

    ids = [node_id for group in ranking for node_id in group]
    rows = {node.pk: node for node in Node.objects.select_for_update().filter(pk__in=ids).order_by("pk")}
    known = {
        pk: Rating(node.rating_mu, node.rating_sigma)
        for pk, node in rows.items()
        if node.rating_mu is not None and node.rating_sigma is not None
    }
    for pk, rating in rated(known, ranking).items():
        rows[pk].rating_mu, rows[pk].rating_sigma = rating.mu, rating.sigma
    Node.objects.bulk_update(rows.values(), ["rating_mu", "rating_sigma"], batch_size=500)


def suspend(*, node_id: int, until: datetime, reason: str) -> None:
    """No rounds for the node until then; it comes back by itself. Call inside the transaction of the finding."""
    Node.objects.filter(pk=node_id).update(suspended_until=until, suspension_reason=reason[:300])
    announce(Node.objects.get(pk=node_id), "node.suspended")


# What nodes say.


def spend_request_nonce(*, hot_key: str, nonce: str) -> None:
    """Raises HyperGPUError `request.replayed` when this signed request was seen before."""
    try:
        with transaction.atomic():
            RequestNonce.objects.create(hot_key=hot_key, nonce=nonce)
    except IntegrityError as error:
        raise HyperGPUError("request.replayed", "This signed request was already used; sign a new one.") from error


def greet(
    *, node: Node, device: str, software: dict[str, Any], samples_per_second: float | None, name: str = "", endpoint: str = ""
) -> Node:
    """A node's agent has started: remember what it runs on."""
    now = timezone.now()
    with transaction.atomic():
        Node.objects.filter(pk=node.pk).update(
            device=device[:120], software=software, name=name[:80], endpoint=endpoint, last_seen=now, announced="online",
            samples_per_second=samples_per_second, samples_at=now if samples_per_second is not None else None,
        )  # fmt: skip
        announce(node)
    return node


def hear(*, node: Node) -> None:
    """A sign of life, at most one write a second; announced as a fact when the node comes back, else as a gauge."""
    now = timezone.now()
    if node.announced == "online" and node.last_seen and now - node.last_seen < timedelta(seconds=1):
        return
    Node.objects.filter(pk=node.pk).update(last_seen=now, uptime=heard(node.uptime, since=node.last_seen, now=now))
    came_back = Node.objects.filter(pk=node.pk).exclude(announced="online")
    with transaction.atomic():
        if came_back.update(announced="online"):
            announce(node)
            return
    node.refresh_from_db()
    gauge("node.heartbeat", topics=selectors.topics_of(node), key=str(node.pk), changes={"nodes": [node_json(node)]})


UPTIME_MEMORY = timedelta(days=1)
"""Of the time in which a node was heard, what is this old counts 1/e of what is now."""


def heard(uptime: float, *, since: datetime | None, now: datetime) -> float:
    """The part of the time in which a node was heard, after a sign of life that follows the one of `since`. A gap longer than
    an online node leaves was silence, all of it."""
    if since is None or now <= since:
        return uptime
    kept = math.exp(-((now - since) / UPTIME_MEMORY))
    was_online = now - since <= timedelta(seconds=settings.HYPERGPU.offline_seconds)
    return uptime * kept + (1 - kept) * was_online


def note_health(*, health: Mapping[int, dict[str, Any]]) -> None:
    """How a round's plan judged its nodes. Call inside the transaction that opens it."""
    for node_id, value in health.items():
        Node.objects.filter(pk=node_id).update(health=value)


def note_parts(*, parts: Mapping[int, dict[str, Any]]) -> None:
    """What nodes were given in a round, and what it took them. Call inside the transaction of the change."""
    for node_id, value in parts.items():
        Node.objects.filter(pk=node_id).update(part=value)


def announce_silent_nodes() -> int:
    """Tell the pages which nodes have gone offline; returns how many."""
    return each(Node.objects.filter(announced="online", last_seen__lt=selectors.online_since()), announce_silence)


def announce_silence(node: Node) -> bool:
    with transaction.atomic():
        moved = Node.objects.filter(pk=node.pk, announced="online").update(announced="offline")
        if moved:
            announce(node)
    return bool(moved)


def join_job(*, node_id: int, job_id: int) -> None:
    """The node has a seat: the job's page follows it. Call inside the transaction of the seat."""
    node = Node.objects.get(pk=node_id)
    Node.objects.filter(pk=node_id).update(jobs=sorted({*node.jobs, job_id}))
    announce(node)


def leave_job(*, node_id: int, job_id: int) -> None:
    node = Node.objects.get(pk=node_id)
    choices = {other: choice for other, choice in node.choices.items() if other != str(job_id)}
    Node.objects.filter(pk=node_id).update(jobs=[other for other in node.jobs if other != job_id], choices=choices)


def forget_job(*, job_id: int) -> None:
    """It is over: no node is to say any more why it works for it, or does not."""
    for node_id in Node.objects.filter(choices__has_key=str(job_id)).values_list("pk", flat=True):
        leave_job(node_id=node_id, job_id=job_id)


def note_choices(*, job_id: int, choices: Mapping[int, dict[str, Any]]) -> None:
    """By node whether a job takes it, and why (taken, code, text). Call inside the transaction of the seats. Pages hear of it
    when the decision is another one, not when its figures are."""
    key, at, told = str(job_id), iso(timezone.now()), []
    for node in Node.objects.filter(pk__in=choices.keys()):
        before, now = node.choices.get(key, {}), choices[node.pk]
        if any(before.get(name) != value for name, value in now.items()):
            Node.objects.filter(pk=node.pk).update(choices=node.choices | {key: now | {"at": at}})
        if (before.get("taken"), before.get("code")) != (now["taken"], now["code"]):
            told.append(node.pk)
    announce_all(told)


def assign_work(*, node_ids: Sequence[int], working_on: dict[str, int] | None) -> None:
    """What the nodes are shown to be doing; call inside the transaction that changes it."""
    if Node.objects.filter(pk__in=node_ids).update(working_on=working_on):
        announce_all(node_ids)


# Bids.


def post_bid(*, message: SignedBid, signature: str) -> Bid:
    """Keep a bid that its operator's wallet signed. Posting the same again answers the same.

    Raises HyperGPUError `bid.unknown_node`, `bid.no_stake`, `bid.expired`, `bid.stale_nonce`, `bid.wrong_signer`, `signature.*`.
    """
    node = Node.objects.select_related("operator").filter(pk=message.node_id).first()
    if node is None or node.retired:
        raise HyperGPUError("bid.unknown_node", f"Node {message.node_id} is not registered; register it on chain first.")
    if node.operator.stake <= 0:
        raise HyperGPUError("bid.no_stake", "The operator has no stake; add stake on chain before bidding.")
    if message.expires_at <= timezone.now().timestamp():
        raise HyperGPUError("bid.expired", "The bid has expired; sign one with a later time.")
    if message.nonce < node.min_bid_nonce:
        raise HyperGPUError("bid.stale_nonce", f"Bids of this node need a nonce of at least {node.min_bid_nonce}.")
    if eip712.recover(domain(), message, signature) != node.operator_id:
        raise HyperGPUError("bid.wrong_signer", f"Only the operator's wallet {node.operator_id} bids for node {node.pk}.")
    with transaction.atomic():
        bid, created = Bid.objects.get_or_create(
            signature=signature,
            defaults={
                "node": node,
                "chain_job_id": message.job_id,
                "rate": message.rate,
                "capacity": message.capacity,
                "expires_at": from_unix(message.expires_at),
                "nonce": message.nonce,
            },
        )
        if created:
            emit("bid.posted", topics=selectors.topics_of(node), changes={"bids": [bid_json(bid)]})
    return bid


def withdraw_bid(*, bid_id: int) -> None:
    """The chain does not take this bid: no job tries it again."""
    for bid in Bid.objects.filter(pk=bid_id, state=Bid.State.OPEN).select_related("node"):
        bid.state = Bid.State.CANCELLED
        bid.save(update_fields=["state"])
        emit("bid.cancelled", topics=selectors.topics_of(bid.node), changes={"bids": [bid_json(bid)]})


def forget_old_requests() -> None:
    """Nonces that no clock accepts any more."""
    RequestNonce.objects.filter(at__lt=timezone.now() - timedelta(seconds=4 * MAX_SKEW_SECONDS)).delete()


def heartbeat_settings() -> dict[str, Any]:
    return {"heartbeat_seconds": settings.HYPERGPU.heartbeat_seconds, "max_artifact_bytes": settings.HYPERGPU.max_artifact_bytes}
