"""What is measured of nodes: bounded, with age and source, and a node's word never moves what the coordinator saw."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from marketplace.artifacts import store
from marketplace.common.arrival import Arrival
from marketplace.jobs.models import Job
from marketplace.operators import links
from marketplace.operators.facts import ASSUMED, OWN_VIEW, Quantity, facts_of
from marketplace.operators.links import MOST_PEERS, MOST_POINTS, TIMED_BYTES, LinkReport
from marketplace.operators.models import Measurement, Node
from marketplace.operators.peers import peers_of
from marketplace.training import views
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.services import intake, rounds
from tests.marketplace.training.conftest import job, nodes, open_round  # noqa: F401
from tests.marketplace.training.work import commit, hand_in, lease, train, upload
from tests.marketplace.world import TestNode, register
from trainer.network.facts import NodeFacts, architecture_of
from trainer.protocol.spec import JobSpec

pytestmark = pytest.mark.django_db
SPEC = JobSpec()
EXAGGERATED = {"rtt": [0.001], "up": [[10**9, 0.01]], "down": [[10**9, 0.01]], "loss": [0, 10**6], "reconnects": 0}


def facts(*ids: int) -> list[NodeFacts]:
    return facts_of(list(Node.objects.filter(pk__in=ids).order_by("id")), SPEC)


def test_given_nothing_measured_then_facts_are_assumed_and_say_so() -> None:
    register(1)
    (known,) = facts(1)
    assert (known.up.value, known.up.source, known.up.samples) == (ASSUMED[Quantity.UP], "assumed", 0)


def test_given_one_way_of_a_link_then_the_other_is_assumed_in_proportion() -> None:
    register(1)
    links.record_report(node_id=1, report=LinkReport(up=[(20_000, 1.0)]))
    (known,) = facts(1)
    assert (known.down.value, known.down.source) == (pytest.approx(100_000), "assumed")
    links.record_report(node_id=1, report=LinkReport(down=[(30_000, 1.0)]))
    assert (facts(1)[0].down.value, facts(1)[0].down.source) == (pytest.approx(30_000), "transfer")


def test_given_an_emulated_links_loss_then_it_is_called_so() -> None:
    register(1)
    links.record_report(node_id=1, report=LinkReport(loss=(10_000, 10**6), emulated=True))
    (known,) = facts(1)
    assert (known.loss.value, known.loss.source) == (pytest.approx(0.01), "emulated")


def test_given_a_heartbeats_report_then_it_is_known_with_source_and_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "POLL_SECONDS", 0)
    node = register(1)
    said = {"rtt": [100.0, 140.0], "up": [[50_000, 1.0]], "loss": [3, 300], "reconnects": 2}
    node.call("POST", "/agent/v1/leases", {"link": said})
    (known,) = facts(1)
    assert known.rtt_s.value == pytest.approx(0.105)
    assert known.rtt_s.deviation == pytest.approx(0.0475)
    assert (known.rtt_s.source, known.rtt_s.claimed, known.rtt_s.samples) == ("heartbeat", True, 2)
    assert (known.up.value, known.up.source) == (pytest.approx(50_000), "transfer")
    assert (known.loss.value, known.loss.source) == (pytest.approx(0.01), "kernel")
    assert node.row.measured["reconnects"]["value"] == 2


def test_given_an_exaggerated_claim_then_what_the_coordinator_measured_stays() -> None:
    register(1)
    seen = [
        links.round_trip(0.2, claimed=False), links.transfer(Quantity.UP, size=10**6, seconds=4, claimed=False),
        links.transfer(Quantity.DOWN, size=10**7, seconds=5, claimed=False),
    ]  # fmt: skip
    links.record(node_id=1, samples=[*seen, *links.speeds(SPEC, units=1000, said=9, seen=10)])
    before = facts(1)
    for _ in range(20):
        links.record_report(node_id=1, report=LinkReport.model_validate(EXAGGERATED))

    (known,) = after = facts(1)
    assert [(one.rtt_s.value, one.up.value, one.down.value, one.samples_per_second.value) for one in after] == [
        (one.rtt_s.value, one.up.value, one.down.value, one.samples_per_second.value) for one in before
    ]
    assert not known.up.claimed
    assert known.loss.claimed, "which the coordinator cannot see"


def test_given_an_impossible_speed_then_it_counts_within_what_was_seen() -> None:
    register(1)
    links.record(node_id=1, samples=links.speeds(SPEC, units=1000, said=0.001, seen=10))
    assert facts(1)[0].samples_per_second.value == pytest.approx(1000 / 5)
    register(2)
    links.record(node_id=2, samples=links.speeds(SPEC, units=1000, said=500, seen=10))
    assert facts(2)[0].samples_per_second.value == pytest.approx(1000 / 10)


def test_given_an_old_view_then_the_nodes_newer_word_counts() -> None:
    register(1)
    old = timezone.now() - 2 * OWN_VIEW
    links.record(node_id=1, samples=[links.round_trip(0.2, claimed=False)], at=old)
    assert facts(1)[0].rtt_s.age_s == pytest.approx(2 * OWN_VIEW.total_seconds(), abs=5)
    links.record(node_id=1, samples=[links.round_trip(0.1, claimed=True)])
    assert (facts(1)[0].rtt_s.value, facts(1)[0].rtt_s.claimed) == (pytest.approx(0.1), True)


def test_given_months_of_samples_then_history_is_bounded_and_reaches_back() -> None:
    register(1)
    first = timezone.now() - timedelta(days=60)
    for number in range(90):
        links.record(node_id=1, samples=[links.round_trip(0.1, claimed=True)], at=first + timedelta(hours=15 * number))
    row = Measurement.objects.get(node_id=1)
    assert len(row.history) == MOST_POINTS
    assert row.history[0][0] == pytest.approx(first.timestamp(), abs=1)
    assert row.samples == 90


def test_given_many_peers_then_the_newest_are_kept() -> None:
    register(1)
    for peer in range(MOST_PEERS + 5):
        links.record_report(node_id=1, report=LinkReport(peers={peer: 5.0}))
    kept = Measurement.objects.filter(quantity=Quantity.PEER_RTT)
    assert sorted(int(row.of) for row in kept) == list(range(5, MOST_PEERS + 5))


def test_given_a_newcomer_then_its_benchmark_is_scaled_by_what_the_others_did() -> None:
    for number, benchmark in ((1, 1000.0), (2, 4000.0)):
        register(number)
        Node.objects.filter(pk=number).update(samples_per_second=benchmark, samples_at=timezone.now())
    links.record(node_id=1, samples=links.speeds(SPEC, units=100, said=10, seen=10))

    old, new = facts(1, 2)
    assert (old.samples_per_second.value, old.samples_per_second.source) == (pytest.approx(10), "work")
    assert (new.samples_per_second.value, new.samples_per_second.source) == (pytest.approx(40), "benchmark")


def test_given_speeds_of_one_architecture_then_they_say_nothing_of_another() -> None:
    register(1)
    links.record(node_id=1, samples=links.speeds(SPEC, units=100, said=10, seen=10))
    wider = JobSpec.model_validate({"model": {"config": {"hidden": [512]}}})
    assert architecture_of(wider) != architecture_of(SPEC)
    assert facts_of([Node.objects.get(pk=1)], wider)[0].samples_per_second.source == "assumed"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that have passed on the coordinator's clock, as far as downloads see it."""
    ahead, started = [0.0], time.time()
    monkeypatch.setattr(links, "time", SimpleNamespace(time=lambda: started + ahead[0]))
    yield ahead
    cache.clear()


def answered(clock: list[float], *, size: int, seconds: float, sent: int, file: str = "a") -> None:
    """A node's request for a file of `size` bytes, of which `sent` have gone within `seconds`."""
    links.begin_download(node_id=1, sha256=file)
    clock[0] += seconds
    links.record_download(node_id=1, sha256=file, size=size, sent=sent)


def test_given_small_files_then_their_sending_is_not_timed(clock: list[float]) -> None:
    register(1)
    answered(clock, size=TIMED_BYTES - 1, seconds=0.001, sent=TIMED_BYTES - 1)
    assert facts(1)[0].down.source == "assumed"
    answered(clock, size=TIMED_BYTES, seconds=0.5, sent=TIMED_BYTES, file="b")
    assert (facts(1)[0].down.value, facts(1)[0].down.claimed) == (pytest.approx(TIMED_BYTES / 0.5, rel=0.05), False)


def test_given_a_file_in_several_answers_then_all_of_them_are_timed_together_and_again_the_next_time(clock: list[float]) -> None:
    """Ranges that overlap in time, one that breaks off, and the rest of it."""
    register(1)
    for file, slower in (("a", 1), ("b", 4)):
        links.begin_download(node_id=1, sha256=file)
        answered(clock, size=4 * TIMED_BYTES, seconds=slower, sent=2 * TIMED_BYTES, file=file)
        answered(clock, size=4 * TIMED_BYTES, seconds=slower, sent=TIMED_BYTES // 2, file=file)
        assert facts(1)[0].down.samples == (0 if file == "a" else 1)
        links.record_download(node_id=1, sha256=file, size=4 * TIMED_BYTES, sent=TIMED_BYTES)
        answered(clock, size=4 * TIMED_BYTES, seconds=0, sent=TIMED_BYTES // 2, file=file)
    assert Measurement.objects.get().history[0][1] == pytest.approx(2 * TIMED_BYTES, rel=0.05)
    assert facts(1)[0].down.samples == 2
    assert facts(1)[0].down.value < 2 * TIMED_BYTES


def test_given_ranges_of_a_file_then_what_left_of_each_counts(
    open_round: Round,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "TIMED_BYTES", 1000)
    sha256 = lease(nodes[0])["order"]["checkpoint"]
    size = store.path_of(sha256).stat().st_size
    for asked, left in (("bytes=0-999", 1000), ("bytes=1000-", size - 1500), (f"bytes={size - 500}-", 500)):
        monkeypatch.setattr(views, "arrival_of", lambda request, left=left: Arrival(sent=left))
        answer = nodes[0].call("GET", f"/agent/v1/artifacts/{sha256}", Range=asked)
        clock[0] += 2
        assert not Measurement.objects.filter(quantity=Quantity.DOWN).exists()
        b"".join(answer.streaming_content)  # type: ignore[attr-defined]  # Django's test client closes the answer then
    (known,) = facts_of([nodes[0].row], SPEC)
    assert (known.down.value, known.down.claimed) == (pytest.approx(size / 6, rel=0.1), False)


def test_given_a_node_that_hangs_up_then_what_it_did_not_take_says_nothing(clock: list[float]) -> None:
    register(1)
    for _ in range(3):
        answered(clock, size=TIMED_BYTES, seconds=0.001, sent=TIMED_BYTES // 4)
    assert facts(1)[0].down.source == "assumed"


@pytest.mark.parametrize(
    "nonsense",
    [{"rtt": [-1.0]}, {"up": [[0, 1.0]]}, {"up": [[10**308, 0.001]]}, {"shared": {2: [10**152, 1.0]}}, {"loss": [5, 3]},
     {"down": [[5, float("inf")]]}],
)  # fmt: skip
def test_given_a_report_that_cannot_be_then_nothing_is_kept(nonsense: dict) -> None:
    register(1)
    links.record_report(node_id=1, report=LinkReport.model_validate(nonsense))
    assert not Measurement.objects.exists()


def test_given_an_upload_then_the_coordinator_times_its_bytes_and_the_turnaround(
    open_round: Round,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    arrival = Arrival(size=len(data), seconds=2.0, at=Assignment.objects.get(node_id=1).committed_at.timestamp() + 0.3)
    monkeypatch.setattr(views, "arrival_of", lambda request: arrival)
    upload(nodes[0], leased, data)
    assert hand_in(nodes[0], leased, data).status_code == 200

    (known,) = facts_of([nodes[0].row], open_round.job.parsed_spec)
    assert (known.up.value, known.up.claimed) == (pytest.approx(len(data) / 2), False)
    assert (known.rtt_s.value, known.rtt_s.claimed) == (pytest.approx(0.3, abs=1e-3), False)
    assert (known.samples_per_second.source, known.samples_per_second.claimed) == ("work", False)


@pytest.mark.parametrize("delay", ["fetch", "range", "lease"])
def test_given_a_node_that_asks_again_just_before_it_commits_then_its_time_counts_from_its_first_lease(
    open_round: Round,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
    job: Job,  # noqa: F811
    delay: str,
) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    Assignment.objects.filter(node_id=1).update(leased_at=timezone.now() - timedelta(seconds=100))
    if delay == "lease":
        leased = lease(nodes[0])
    else:
        headers = {"Range": "bytes=0-0"} if delay == "range" else {}
        answer = nodes[0].call("GET", f"/agent/v1/artifacts/{job.checkpoint}", **headers)
        assert b"".join(answer.streaming_content)
    assert commit(nodes[0], leased, data).status_code == upload(nodes[0], leased, data).status_code == 200
    assert hand_in(nodes[0], leased, data).status_code == 200

    row = Measurement.objects.get(node_id=1, quantity=Quantity.SPEED, claimed=False)
    assert row.value <= Contribution.objects.get(node_id=1).units / 50


@pytest.mark.parametrize("speed", ["inf", "nan", "1e400", 2e9, -1])
def test_given_a_benchmark_that_cannot_be_then_hello_is_refused(speed: str | float) -> None:
    node = register(1)
    said = {"device": "cpu", "software": {}, "samples_per_second": speed}
    assert node.call("POST", "/agent/v1/hello", said).status_code == 400
    assert node.row.samples_per_second is None


def test_given_measurements_then_pages_get_them_with_unit_source_and_history() -> None:
    register(1)
    links.record(node_id=1, samples=[links.round_trip(0.2, claimed=False), links.round_trip(0.001, claimed=True)])
    links.record_report(node_id=1, report=LinkReport(peers={2: 7.5}))
    rows = Client().get("/api/v1/nodes/1/measurements").json()["measurements"]
    assert [(row["quantity"], row["unit"], row["value"], row["claimed"]) for row in rows] == [
        ("peer_rtt", "s", 0.0075, True), ("rtt", "s", 0.2, False), ("rtt", "s", 0.001, True),
    ]  # fmt: skip
    assert [value for _, value in rows[1]["history"]] == [0.2]
    (pair,) = Client().get("/api/v1/pairs").json()["measurements"]
    assert (pair["node_id"], pair["of"], pair["source"]) == (1, "2", "peer")
    (shown,) = Client().get("/api/v1/nodes").json()["nodes"]
    assert shown["measured"]["rtt"] == {**shown["measured"]["rtt"], "value": 0.2, "claimed": False, "source": "heartbeat"}


def test_given_endpoints_then_a_lease_says_whom_to_time_and_near_ones_to_fetch_from(
    job: Job,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
) -> None:
    for node in nodes:
        where = {"endpoint": f"http://203.0.113.{node.id}:7070"}
        assert node.call("POST", "/agent/v1/hello", {"device": "cpu", "software": {}, **where}).status_code == 200
    assert peers_of(1, among=[1, 2], size=9) == {"pings": {"2": "http://203.0.113.2:7070"}}
    for node, peer in ((1, 2), (2, 1)):
        links.record_report(node_id=node, report=LinkReport(rtt=[100.0], peers={peer: 5.0}))

    assert peers_of(1, among=[1, 2], size=9) == {}, "the lowest of a region goes to the coordinator"
    assert peers_of(2, among=[1, 2], size=9) == {"sources": {"1": "http://203.0.113.1:7070"}, "size": 9}
    rounds.open_round(job_id=job.pk)
    assert lease(nodes[1])["peers"]["sources"] == {"1": "http://203.0.113.1:7070"}
    links.record_report(node_id=2, report=LinkReport(peers={1: 900.0}, rtt=[1.0] * 20))
    assert peers_of(2, among=[1, 2], size=9) == {}, "farther than the coordinator"


@pytest.mark.parametrize("endpoint", ["file:///etc/passwd", "http://a/path", "http://user@a", "http://a?x"])
def test_given_something_that_is_no_endpoint_then_hello_is_refused(endpoint: str) -> None:
    node = register(1)
    answer = node.call("POST", "/agent/v1/hello", {"device": "cpu", "software": {}, "endpoint": endpoint})
    assert answer.status_code >= 400


@pytest.mark.parametrize(("overlap", "seconds"), [("none", 4), ("eager", 10)])
def test_given_a_node_that_works_ahead_then_its_time_counts_from_the_work_before(
    open_round: Round,  # noqa: F811
    nodes: list[TestNode],  # noqa: F811
    overlap: str,
    seconds: int,
) -> None:
    """It commits at 10 and at 20 s; its second order was leased at 16 s."""
    start, running = timezone.now(), open_round.job
    running.spec = running.spec | {"network": {"overlap": overlap}}
    running.save()
    later = Round.objects.create(job=running, number=1, base="00" * 32, deadline=start + timedelta(hours=1))
    for round_, leased, committed in ((open_round, 0, 10), (later, 16, 20)):
        slot, _ = Assignment.objects.get_or_create(round=round_, node_id=1, defaults={"shard": 0, "steps": 4, "encoding": {}})
        slot.leased_at = start + timedelta(seconds=leased)
        slot.save()
        newest = Contribution.objects.create(
            assignment=slot, round=round_, node_id=1, units=32, artifact="00" * 32, size=9, signature="", seconds=9.0,
            committed_at=start + timedelta(seconds=committed),
        )  # fmt: skip
    newest.round.job.refresh_from_db()
    intake.note_speed(newest)

    row = Measurement.objects.get(node_id=1, quantity=Quantity.SPEED, claimed=False)
    assert row.value == pytest.approx(32 / min(9, seconds))
