"""The agent as a process, with its real broker and Celery worker, against a coordinator that can fail it."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict

import psutil
import pytest
from conftest import AgentProcess
from fake_coordinator import DOMAIN, NODE_ID, OPERATOR, FakeCoordinator, Version
from lineage import lineage

from trainer.data import load_dataset
from trainer.diloco.checkpoint import initial_params
from trainer.diloco.encoding import decode
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.eip712 import recover
from trainer.protocol.orders import Origin
from trainer.protocol.spec import JobSpec, parse_spec
from trainer.protocol.types import Receipt
from trainer.scoring.evidence import read_evidence

pytestmark = pytest.mark.processes

QUICK = parse_spec({"inner": {"steps": 20, "batch_size": 16}})
SLOW = parse_spec({"model": {"config": {"hidden": [256, 256]}}, "inner": {"steps": 600, "batch_size": 64}})
EAGER = parse_spec(
    {"model": {"config": {"hidden": [256, 192]}}, "inner": {"steps": 300, "batch_size": 64}, "network": {"overlap": "eager"}}
)
ENDLESS = parse_spec({"model": {"config": {"hidden": [256, 256]}}, "inner": {"steps": 10_000, "batch_size": 256}})


def count_of(spec: JobSpec) -> int:
    return initial_params(spec, load_dataset(spec.data, files={}).info).numel()


@pytest.fixture(scope="module")
def versions(coordinator: FakeCoordinator) -> dict[str, Version]:
    """The first version of each spec, by the spec's hash, its checkpoint ready for download."""
    return {spec.sha256(): lineage(spec, coordinator.put, length=1)[0].version for spec in (QUICK, SLOW, ENDLESS)}


@pytest.fixture
def offer(coordinator: FakeCoordinator, versions: dict[str, Version]) -> Callable:
    return lambda spec, **options: coordinator.offer(spec, versions[spec.sha256()], **options)


def test_given_an_order_when_leased_then_a_signed_receipt_for_a_decodable_artifact_comes_back(agent, coordinator, offer):
    slot = offer(QUICK)
    coordinator.until(lambda: slot.receipt)

    receipt = Receipt(**slot.receipt["receipt"])
    assert recover(DOMAIN, receipt, slot.receipt["signature"]) == agent.address
    assert (receipt.job_id, receipt.round, receipt.node_id) == (1, slot.round, NODE_ID)
    assert (receipt.units, receipt.base) == (320, "0x" + slot.version.base)
    assert receipt.artifact == "0x" + sha256_hex(slot.artifact) == "0x" + slot.committed["sha256"]
    assert slot.committed["size"] == len(slot.artifact)
    verbs = [verb for verb in slot.calls if verb != "heartbeat"]
    assert verbs == ["contribution"], "it is small: commitment, bytes and receipt at once"
    reported = [point for body in (*slot.heartbeats, slot.receipt) for point in body["losses"]]
    assert [step for step, _ in reported] == list(range(1, 21))
    assert any(decode(slot.artifact, QUICK.encoding, count=count_of(QUICK)).trace), "the trace's root is bound"
    coordinator.until(lambda: any(hello["samples_per_second"] for hello in coordinator.hellos))


def test_given_a_running_order_then_heartbeats_carry_steps_losses_and_round_trip_times(agent, coordinator, offer):
    slot = offer(SLOW)
    coordinator.until(lambda: slot.receipt)

    steps = [beat["step"] for beat in slot.heartbeats]
    assert steps == sorted(steps) and any(0 < step < 600 for step in steps)
    assert all(beat["steps"] == 600 for beat in slot.heartbeats)
    assert [verb for verb in slot.calls if verb != "heartbeat"] == ["commit", "artifact", "receipt"]
    points = [step for beat in slot.heartbeats for step, _ in beat["losses"]]
    assert len(points) > 0
    points += [step for step, _ in slot.receipt["losses"]]
    assert points == sorted(set(points)) and len(points) <= 64 and points[-1] == 600
    told = [*coordinator.told, *(beat.get("link", {}) for beat in slot.heartbeats)]
    assert all(milliseconds > 0 for link in told for milliseconds in link.get("rtt", []))
    assert any(link.get("rtt") for link in told)


def test_given_a_finished_order_whose_lease_was_lost_when_leased_again_then_its_artifact_is_handed_in(agent, coordinator, offer):
    lost = offer(QUICK, round=1000)
    lost.stale_at = "contribution"
    coordinator.until(lambda: lost.stale)
    made = {path.name for path in agent.home.artifacts.iterdir()}
    again = offer(QUICK, round=1000)
    coordinator.until(lambda: again.receipt)

    assert {path.name for path in agent.home.artifacts.iterdir()} == made
    assert again.committed["sha256"] in made


def test_given_a_worker_killed_in_the_middle_of_a_round_then_it_goes_on_from_disk_and_two_versions_later_from_the_checkpoint(
    agent, coordinator
):
    versions = [step.version for step in lineage(SLOW, coordinator.put, length=4)]
    coordinator.served.clear()
    first = coordinator.offer(SLOW, versions[0], round=0, job_id=2)
    coordinator.until(lambda: first.receipt)
    second = coordinator.offer(SLOW, versions[1], round=1, job_id=2)
    coordinator.until(lambda: second.step > 0)
    agent.worker().send_signal(signal.SIGKILL)
    coordinator.until(lambda: second.receipt)
    assert coordinator.served == [versions[1].delta], "the first version follows from the seed, the step is fetched once"

    fourth = coordinator.offer(SLOW, versions[3], round=3, job_id=2)
    coordinator.until(lambda: fourth.receipt)
    assert coordinator.served == [versions[1].delta, versions[3].checkpoint]
    bases = [slot.receipt["receipt"]["base"] for slot in (first, second, fourth)]
    assert bases == ["0x" + versions[number].base for number in (0, 1, 3)]


def test_given_the_outer_steps_that_it_has_missed_then_it_takes_these_instead_of_the_checkpoint(agent, coordinator):
    """Those that lead to another version, or are none, cost it the checkpoint."""
    versions = [step.version for step in lineage(QUICK, coordinator.put, length=5)]
    steps = [{"parent": version.parent, "delta": version.delta} for version in versions]
    coordinator.served.clear()
    for number, missed in ((0, []), (3, steps[1:4]), (4, [{"parent": "../../key", "delta": 5}])):
        slot = coordinator.offer(QUICK, versions[number], round=number, job_id=5, missed=missed)
        coordinator.until(lambda slot=slot: slot.receipt)
        assert slot.receipt["receipt"]["base"] == "0x" + versions[number].base
    assert coordinator.served == [version.delta for version in versions[1:]]


def test_given_audits_then_they_are_answered_after_an_order_unless_urgent_or_without_one_and_a_lost_trace_stops_nothing(
    agent, coordinator, offer, until
):
    slot = offer(QUICK)
    coordinator.until(lambda: slot.receipt)
    artifact = slot.committed["sha256"]
    answered, failed = agent.events("audit.answered"), agent.events("audit.failed")
    with coordinator.changed:
        coordinator.audits = [
            {"audit_id": 1, "artifact": artifact, "segment": 0, "deadline_seconds": 600},
            {"audit_id": 2, "artifact": "ab" * 32, "segment": 0, "deadline_seconds": 0.1},
        ]
    following = offer(QUICK)
    coordinator.until(lambda: following.receipt)
    with coordinator.changed:
        coordinator.audits = [{"audit_id": 3, "artifact": artifact, "segment": 1, "deadline_seconds": 60}]
        coordinator.changed.notify_all()
    coordinator.until(lambda: 3 in coordinator.evidence)

    assert set(coordinator.evidence) - {4} == {1, 3}  # another test's is 4
    until(lambda: agent.events("audit.answered") == answered + 2)
    assert agent.events("audit.failed") == failed + 1
    told = re.findall(r'"event": "(order\.handed_in|audit\.\w+)"', agent.log.read_text())
    assert told[-5:] == ["order.handed_in", "audit.failed", "order.handed_in", "audit.answered", "audit.answered"]
    assert read_evidence(coordinator.evidence[3], count=count_of(QUICK)).segment == 1


def test_given_a_job_that_overlaps_then_the_next_order_is_begun_before_it_comes_and_an_audit_is_answered_meanwhile(
    agent, coordinator, until
):
    versions = [step.version for step in lineage(EAGER, coordinator.put, length=2)]
    first = coordinator.offer(EAGER, versions[0], round=0, job_id=3)
    coordinator.until(lambda: first.receipt)
    audit = {"audit_id": 4, "artifact": first.committed["sha256"], "segment": 0, "deadline_seconds": 60}
    with coordinator.changed:
        coordinator.audits = [audit]
        coordinator.changed.notify_all()
    coordinator.until(lambda: 4 in coordinator.evidence)
    worker = agent.worker()
    before = worker.cpu_times().user
    until(lambda: worker.cpu_times().user > before + 0.2)
    second = coordinator.offer(EAGER, versions[1], round=1, job_id=3)
    coordinator.until(lambda: second.receipt)

    assert versions[1].delta in coordinator.served and versions[1].checkpoint not in coordinator.served
    assert agent.worker() == worker
    assert second.receipt["receipt"]["base"] == "0x" + versions[1].base and second.receipt["receipt"]["units"] == 300 * 64
    reported = [step for body in (*second.heartbeats, second.receipt) for step, _ in body["losses"]]
    assert reported == sorted(set(reported)) and reported[-1] == 300

    def ahead() -> list[int]:
        said = [json.loads(line) for line in agent.log.read_text().splitlines() if '"order.handed_in"' in line]
        return [line["ahead"] for line in said if line["job_id"] == 3]

    until(lambda: len(ahead()) == 2)
    assert ahead()[0] == 0 < ahead()[1] <= 300


def test_given_an_order_that_the_coordinator_did_not_sign_then_it_is_refused_and_the_next_one_done(agent, coordinator, offer):
    forged = offer(QUICK, key="0x" + "33" * 32)
    honest = offer(QUICK)
    coordinator.until(lambda: honest.receipt)

    assert forged.failure["code"] == "order.wrong_signer"
    assert forged.calls == ["fail"]


def test_given_a_checkpoint_whose_bytes_are_not_its_hash_then_it_is_refused(agent, coordinator):
    sha256 = coordinator.put(b"promised")
    coordinator.blobs[sha256] = b"delivered"
    slot = coordinator.offer(QUICK, Version("ab" * 32, sha256))
    coordinator.until(lambda: slot.failure)

    assert slot.failure["code"] == "artifact.hash_mismatch"
    assert not list(agent.home.cache.glob(f"*{sha256}*"))


@pytest.mark.parametrize("child", ["worker", "broker"])
def test_given_a_child_killed_in_the_middle_of_an_order_then_it_is_restarted_and_the_order_ends(agent, coordinator, offer, child):
    slot = offer(SLOW)
    coordinator.until(lambda: slot.step > 0)
    victim = getattr(agent, child)()
    victim.send_signal(signal.SIGKILL)
    coordinator.until(lambda: slot.receipt)

    assert slot.fence == 1
    assert agent.worker().is_running() and victim not in agent.children()


def test_given_an_agent_killed_in_the_middle_then_nothing_of_it_survives_and_its_next_start_finishes_the_order(
    agent, coordinator, offer, until
):
    slot = offer(SLOW)
    coordinator.until(lambda: slot.step > 0)
    children = agent.children()
    agent.process.kill()
    agent.process.wait()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), seconds=10)
    agent.start()
    coordinator.until(lambda: slot.receipt)

    assert slot.fence == 2 and slot.receipt["fence"] == 2


def test_given_a_fence_that_went_stale_then_the_work_is_dropped_unreported_and_other_work_is_done(
    agent, coordinator, offer, until
):
    dropped = agent.events("order.dropped")
    slot = offer(ENDLESS)
    coordinator.until(lambda: slot.step > 0)
    worker = agent.worker()
    with coordinator.changed:
        slot.stale = True
    following = offer(QUICK)
    coordinator.until(lambda: following.receipt)

    assert agent.events("order.dropped") == dropped + 1
    assert set(slot.calls) == {"heartbeat"}
    assert agent.worker() == worker, "a run that stops when asked keeps its process"


def test_given_a_cancelled_order_then_the_worker_stops_and_takes_the_next(agent, coordinator, offer):
    slot = offer(ENDLESS)
    coordinator.until(lambda: slot.step > 0)
    with coordinator.changed:
        slot.cancel = True
    following = offer(QUICK)
    coordinator.until(lambda: following.receipt)

    assert slot.receipt is None and slot.failure is None


def test_given_a_round_that_closed_in_the_middle_then_the_work_goes_on_and_is_signed_for_the_next(
    agent, coordinator, offer, versions
):
    slot = offer(SLOW)
    coordinator.until(lambda: slot.step > 0)
    with coordinator.changed:
        after = coordinator.offer(SLOW, versions[QUICK.sha256()], round=slot.round + 1)
        after.origin = Origin(round=slot.round, **asdict(slot.version))
        slot.carried_into = after
    coordinator.until(lambda: after.receipt)

    receipt = Receipt(**after.receipt["receipt"])
    assert (receipt.round, receipt.base) == (slot.round + 1, "0x" + after.version.base)
    assert (receipt.units, after.receipt["receipt"]["artifact"]) == (600 * 64, "0x" + slot.committed["sha256"])
    assert recover(DOMAIN, receipt, after.receipt["signature"]) == agent.address
    assert (slot.calls.count("commit"), after.calls) == (1, ["receipt"]), "trained, committed and uploaded once"
    assert agent.events("order.carried") == 1


def test_given_other_work_under_the_name_of_late_work_then_it_is_not_signed_for(agent, coordinator, offer, versions):
    slot = offer(QUICK)
    with coordinator.changed:
        after = coordinator.offer(QUICK, versions[SLOW.sha256()], round=slot.round + 1)
        after.origin = Origin(round=slot.round, **asdict(versions[SLOW.sha256()]))
        after.is_over, slot.carried_into = True, after
    coordinator.until(lambda: slot.failure)
    assert slot.failure["code"] == "order.other_work"
    assert after.receipt is None


def test_given_a_worker_that_does_not_stop_when_cancelled_then_it_is_replaced(agent, coordinator, offer):
    slot = offer(ENDLESS)
    coordinator.until(lambda: slot.step > 0)
    worker = agent.worker()
    worker.suspend()
    with coordinator.changed:
        slot.cancel = True
    following = offer(QUICK)
    coordinator.until(lambda: following.receipt)

    assert agent.worker() != worker


def test_given_a_web_server_that_is_down_in_the_middle_then_the_order_still_ends(agent, coordinator, offer, until):
    unreachable = agent.events("coordinator.unreachable")
    slot = offer(SLOW)
    coordinator.until(lambda: slot.step > 0)
    coordinator.stop()
    until(lambda: agent.events("coordinator.unreachable") > unreachable)
    coordinator.start()
    coordinator.until(lambda: slot.receipt)

    assert slot.fence == 1


def test_given_sigterm_in_the_middle_of_an_order_then_it_is_given_back_and_everything_stops(agent, coordinator, offer):
    slot = offer(ENDLESS)
    coordinator.until(lambda: slot.step > 0)
    children = agent.children()
    started = time.monotonic()

    assert agent.stop() == 0
    assert time.monotonic() - started < 30
    assert slot.failure["code"] == "agent.stopped"
    assert not any(child.is_running() for child in children)


def test_given_an_unregistered_key_then_the_agent_says_where_to_register_and_goes_on_when_it_is(coordinator, tmp_path, until):
    newcomer = AgentProcess(tmp_path, coordinator.url)
    newcomer.start()
    until(lambda: newcomer.events("agent.waiting"))
    assert f'"link": "{coordinator.url}/operate?hot_key={newcomer.address}"' in newcomer.log.read_text()
    with coordinator.changed:
        coordinator.registered[newcomer.address] = NODE_ID + 2

    until(lambda: newcomer.events("agent.greeted"))
    assert newcomer.stop() == 0


def test_given_a_running_agent_when_another_starts_in_its_home_then_it_is_refused(agent, until):
    until(lambda: agent.events("agent.started") > 0)
    other = AgentProcess(agent.home.root, agent.url)
    other.start()

    assert other.process.wait(60) == 1
    assert "agent.already_running" in agent.log.read_text()
    assert agent.is_running


def test_given_another_coordinator_than_the_first_then_the_agent_refuses_to_work_for_it(coordinator, tmp_path):
    stranger = AgentProcess(tmp_path, coordinator.url)
    coordinator.registered[stranger.address] = NODE_ID + 1
    stranger.home.pin.write_text(json.dumps({"coordinator": OPERATOR, "chain_id": 31337, "contract": DOMAIN.contract}))
    stranger.start()

    assert stranger.process.wait(60) == 1
    assert stranger.events("agent.failed") == 1 and "coordinator.changed" in stranger.log.read_text()
    assert not stranger.home.children.exists()


def test_given_no_work_then_torch_is_in_the_worker_only(agent, coordinator, offer):
    slot = offer(QUICK)
    coordinator.until(lambda: slot.receipt)

    def loads_torch(process: psutil.Process) -> bool:
        return any("libtorch" in region.path for region in process.memory_maps())

    assert loads_torch(agent.worker())
    assert not loads_torch(psutil.Process(agent.process.pid))
