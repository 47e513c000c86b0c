"""Writes of what is measured of nodes and their links: what agents say, and what the coordinator sees itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from django.core.cache import cache
from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel, ConfigDict, Field

from marketplace.operators.facts import Quantity, summary
from marketplace.operators.models import Measurement, Node
from trainer.network import estimators
from trainer.network.estimators import Estimate
from trainer.network.facts import Source, architecture_of
from trainer.protocol.spec import JobSpec

MOST_POINTS = 64
"""Of one quantity's history."""
MOST_PEERS = 16
"""Peers whose round trips, and ways by whom, are kept of one node."""
TIMED_BYTES = 2**20
"""What is sent may lie in buffers on its way: shorter files are not timed from here."""
DOWNLOAD_SECONDS = 3600
"""What is left of a download that began longer ago belongs to another one."""
CLOCK_SECONDS = 1e-6
"""What came in one piece came at once: the least that is said of it."""
LATE_SECONDS = 10
"""A node that takes so long to follow an answer was busy with something else."""
MOST_BYTES = 2**50
"""No file is longer."""
BELIEVED = 0.5
"""Part of the time that the coordinator saw pass which a node's word on its computing may fall to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """`fold` takes the estimate so far to the next."""

    quantity: str
    fold: Callable[[Estimate | None], Estimate]
    source: Source
    claimed: bool
    of: str = ""


class LinkReport(BaseModel):
    """What an agent says of its link since it last did: `rtt` of small requests in milliseconds; `up` and `down` as [bytes,
    seconds] of each file; `loss` as [segments sent again, segments sent], by the kernel's count, by timed probes or as it is
    emulated; `reconnects` since the agent's start; `peers`: milliseconds to other nodes' endpoints, `shared`: [bytes,
    seconds] of a file from there, by node."""

    model_config = ConfigDict(extra="ignore")

    rtt: list[float] = Field(default=[], max_length=32)
    up: list[tuple[int, float]] = Field(default=[], max_length=32)
    down: list[tuple[int, float]] = Field(default=[], max_length=32)
    loss: tuple[int, int] | None = None
    probed: bool = False
    emulated: bool = False
    reconnects: int | None = Field(default=None, ge=0, le=10**9)
    peers: dict[int, float] = Field(default={}, max_length=32)
    shared: dict[int, tuple[int, float]] = Field(default={}, max_length=32)


def claims(report: LinkReport) -> Iterable[Sample]:
    """The samples in a node's report that can be true at all."""
    for milliseconds in report.rtt:
        if 0 < milliseconds < 1e6:
            yield round_trip(milliseconds / 1000, claimed=True)
    for quantity, files in ((Quantity.UP, report.up), (Quantity.DOWN, report.down)):
        for size, seconds in files:
            if carried(size, seconds):
                yield transfer(quantity, size=size, seconds=seconds, claimed=True)
    if report.loss is not None and 0 <= report.loss[0] <= report.loss[1] and 0 < report.loss[1] < 10**9:
        hits, trials = report.loss
        fold = partial(estimators.part, hits=hits, trials=trials)
        source: Source = "emulated" if report.emulated else "probe" if report.probed else "kernel"
        yield Sample(quantity=Quantity.LOSS, fold=fold, source=source, claimed=True)
    if report.reconnects is not None:
        count = Estimate(value=report.reconnects, samples=1)
        yield Sample(quantity=Quantity.RECONNECTS, fold=lambda _: count, source="heartbeat", claimed=True)
    for peer, milliseconds in report.peers.items():
        if 0 < milliseconds < 1e6:
            fold = partial(estimators.smoothed, sample=milliseconds / 1000)
            yield Sample(quantity=Quantity.PEER_RTT, of=str(peer), fold=fold, source="peer", claimed=True)
    for peer, (size, seconds) in report.shared.items():
        if carried(size, seconds):
            yield transfer(Quantity.DOWN, size=size, seconds=seconds, claimed=True, of=str(peer))


def carried(size: int, seconds: float) -> bool:
    """Whether any link can have carried so many bytes in so many seconds."""
    return 0 < size < MOST_BYTES and 0 < seconds < 1e6


def round_trip(seconds: float, *, claimed: bool) -> Sample:
    return Sample(quantity=Quantity.RTT, fold=partial(estimators.smoothed, sample=seconds), source="heartbeat", claimed=claimed)


def transfer(quantity: str, *, size: int, seconds: float, claimed: bool, of: str = "") -> Sample:
    fold = partial(estimators.rate, amount=size, seconds=seconds)
    return Sample(quantity=quantity, of=of, fold=fold, source="transfer", claimed=claimed)


def speeds(spec: JobSpec, *, units: int, said: float, seen: float) -> Iterable[Sample]:
    """Of an order of `units` samples: `said` are the seconds of its steps by the node's word, `seen` those that passed between
    its lease and its commitment. The latter hold transfers and waiting too, so the word counts between BELIEVED of them and
    all."""
    architecture = architecture_of(spec)

    def sample(seconds: float, *, claimed: bool) -> Sample:
        fold = partial(estimators.rate, amount=units, seconds=seconds)
        return Sample(quantity=Quantity.SPEED, of=architecture, fold=fold, source="work", claimed=claimed)

    if said > 0 and math.isfinite(said):
        yield sample(said, claimed=True)
    if seen > 0:
        yield sample(min(max(said, BELIEVED * seen), seen), claimed=False)


# Writes.


def record(*, node_id: int, samples: Iterable[Sample], at: datetime | None = None) -> None:
    """Fold samples into what is known of a node."""
    samples, now = list(samples), at or timezone.now()
    if not samples:
        return
    with transaction.atomic():
        Node.objects.select_for_update().get(pk=node_id)  # one at a time: folding is reading and writing
        rows = {(row.quantity, row.of, row.claimed): row for row in Measurement.objects.filter(node_id=node_id)}
        changed = {}
        for sample in samples:
            key = (str(sample.quantity), sample.of, sample.claimed)
            row = rows.setdefault(key, Measurement(node_id=node_id, quantity=key[0], of=key[1], claimed=key[2]))
            known = Estimate(value=row.value, deviation=row.deviation, samples=row.samples) if row.samples else None
            estimate = sample.fold(known)
            row.value, row.deviation, row.samples = estimate.value, estimate.deviation, estimate.samples
            row.source, row.at = sample.source, now
            changed[key] = row
        for row in changed.values():
            points = [(at, value) for at, value in row.history] + [(round(now.timestamp(), 1), float(f"{row.value:.4g}"))]
            row.history = estimators.thinned(points, now=now.timestamp(), most=MOST_POINTS)
        fields = ["source", "value", "deviation", "samples", "at", "history"]
        Measurement.objects.bulk_update([row for row in changed.values() if row.pk], fields)
        Measurement.objects.bulk_create([row for row in changed.values() if not row.pk])
        for quantity in (Quantity.PEER_RTT, Quantity.UP, Quantity.DOWN):
            peers = sorted((row for row in rows.values() if row.quantity == quantity and row.of), key=lambda row: row.at)
            Measurement.objects.filter(pk__in=[row.pk for row in peers[:-MOST_PEERS]]).delete()
        Node.objects.filter(pk=node_id).update(measured=summary(rows.values()))


def record_report(*, node_id: int, report: LinkReport) -> None:
    """What an agent says of its link."""
    record(node_id=node_id, samples=claims(report))


def record_upload(*, node_id: int, size: int, seconds: float, turnaround: float | None) -> None:
    """A file came from the node within `seconds`; `turnaround` are those from our answer to the node's next request, which it
    sends at once: a round trip, and what the node took to sign it."""
    samples = [transfer(Quantity.UP, size=size, seconds=max(seconds, CLOCK_SECONDS), claimed=False)] if size else []
    if turnaround is not None and 0 < turnaround < LATE_SECONDS:
        samples.append(round_trip(turnaround, claimed=False))
    record(node_id=node_id, samples=samples)


def record_gathered(*, node_id: int, by: int, size: int, seconds: float, fell_back: bool) -> None:
    """An upload that was to go by way of node `by` is here, `seconds` after it could begin. One that `fell_back` to the direct
    way says more than those before it: what trying that way costs now."""
    sample = transfer(Quantity.UP, size=size, seconds=max(seconds, CLOCK_SECONDS), claimed=False, of=str(by))
    fold = sample.fold
    record(node_id=node_id, samples=[replace(sample, fold=lambda _: fold(None)) if fell_back else sample])


def begin_download(*, node_id: int, sha256: str) -> None:
    """A node asks for a file, or for a range of it: its first request begins the download."""
    began, sent = download_keys(node_id, sha256)
    cache.add(began, time.time(), DOWNLOAD_SECONDS)
    cache.add(sent, 0, DOWNLOAD_SECONDS)


def record_download(*, node_id: int, sha256: str, size: int, sent: int) -> None:
    """`sent` bytes of a file of `size` have gone to the node in one answer, which may be one of several at once. Once all have
    gone, they say how fast its link was from the first request on, whatever broke meanwhile. Each process that serves counts
    what it has sent itself: what several have sent together is not timed."""
    keys = download_keys(node_id, sha256)
    try:
        total = cache.incr(keys[1], sent)
    except ValueError:  # begun too long ago
        return
    if total < size or (began := cache.get(keys[0])) is None:
        return
    cache.delete_many(keys)
    if size >= TIMED_BYTES:
        seconds = max(time.time() - began, CLOCK_SECONDS)
        record(node_id=node_id, samples=[transfer(Quantity.DOWN, size=size, seconds=seconds, claimed=False)])


def download_keys(node_id: int, sha256: str) -> tuple[str, str]:
    """Of the cache: when it began, and how many bytes have gone."""
    return f"download-began:{node_id}:{sha256}", f"download-sent:{node_id}:{sha256}"
