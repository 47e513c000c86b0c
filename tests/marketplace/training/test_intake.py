"""Handing in: each thing that may not count is refused with its own code and changes nothing."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta

import pytest
import torch
from django.utils import timezone

from marketplace.artifacts import store
from marketplace.jobs.models import Job
from marketplace.training import selectors
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.tasks import check_contribution
from tests.marketplace.training.test_late_work import beat, close_without, document, finish
from tests.marketplace.training.work import at_once, commit, contribute, hand_in, lease, overdue, train, upload
from tests.marketplace.world import TestNode, wallet
from trainer.diloco.encoding import HEADER, encode
from trainer.diloco.evidence import check_chain
from trainer.diloco.round import bench
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.spec import EncodingSpec

pytestmark = pytest.mark.django_db


def refused(answer, status: int, code: str) -> None:  # type: ignore[no-untyped-def]
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content


def test_honest_work_is_received(open_round: Round, nodes: list[TestNode]) -> None:
    answer = contribute(nodes[0])
    assert answer.status_code == 200
    contribution = Contribution.objects.get()
    assert contribution.state == Contribution.State.RECEIVED
    assert Assignment.objects.get(node_id=1).state == Assignment.State.HANDED_IN
    check_contribution(contribution.pk)
    contribution.refresh_from_db()
    assert contribution.state == Contribution.State.CHECKED


def test_a_lost_answer_can_be_asked_for_again(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    first, second = hand_in(nodes[0], leased, data).json(), hand_in(nodes[0], leased, data).json()
    assert first["contribution_id"] == second["contribution_id"]
    assert Contribution.objects.count() == 1


def test_a_small_contribution_comes_in_one_request_and_may_be_repeated(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    first, again = at_once(nodes[0], leased, data), at_once(nodes[0], leased, data)
    assert (first.status_code, first.json()["state"]) == (200, "received")
    assert again.json()["contribution_id"] == first.json()["contribution_id"] == Contribution.objects.get().pk
    slot = Assignment.objects.get(node_id=1)
    assert (slot.state, slot.uploaded, slot.committed_sha256) == (Assignment.State.HANDED_IN, True, sha256_hex(data))
    assert store.read(slot.committed_sha256) == data


def test_what_is_refused_in_one_request_can_go_on_step_by_step(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    refused(at_once(nodes[0], leased, data, units=1), 422, "receipt.mismatch")
    refused(at_once(nodes[0], leased, data + b"more"), 422, "artifact.committed_other")
    assert commit(nodes[0], leased, data).status_code == upload(nodes[0], leased, data).status_code == 200
    assert hand_in(nodes[0], leased, data).status_code == 200


def test_the_bytes_of_another_node_cannot_come_in_one_request_either(open_round: Round, nodes: list[TestNode]) -> None:
    first, second = lease(nodes[0]), lease(nodes[1])
    data = train(first)
    assert commit(nodes[0], first, data).status_code == 200
    refused(at_once(nodes[1], second, data), 422, "artifact.copied")


def test_a_second_receipt_for_a_slot_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    assert hand_in(nodes[0], leased, data).status_code == 200
    refused(hand_in(nodes[0], leased, data, units=1), 409, "receipt.replayed")


def test_a_receipt_replayed_in_another_slot_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    contribute(nodes[0])
    leased = lease(nodes[1])
    data = train(leased)
    commit(nodes[1], leased, data)
    upload(nodes[1], leased, data)
    refused(hand_in(nodes[1], leased, data, node_id=1), 422, "receipt.mismatch")
    assert Contribution.objects.count() == 1


def test_a_wrong_signature_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    refused(hand_in(nodes[0], leased, data, key=wallet("stranger").key), 422, "receipt.wrong_signature")
    assert not Contribution.objects.exists()
    assert Assignment.objects.get(node_id=1).state == Assignment.State.COMMITTED


@pytest.mark.parametrize("changes", [{"job_id": 2}, {"round": 1}, {"units": 10**6}, {"base": "0x" + "00" * 32}])
def test_a_receipt_for_something_else_is_refused(open_round: Round, nodes: list[TestNode], changes: dict) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    refused(hand_in(nodes[0], leased, data, **changes), 422, "receipt.mismatch")
    assert not Contribution.objects.exists()


@pytest.mark.parametrize("missing", ["one sample", "one step", "all"])
def test_a_part_of_an_order_is_refused(open_round: Round, nodes: list[TestNode], missing: str) -> None:
    """Audits and committees replay whole steps: of other units they could not say what was attested."""
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    batch = leased["order"]["spec"]["inner"]["batch_size"]
    ordered = leased["order"]["steps"] * batch
    units = ordered - {"one sample": 1, "one step": batch, "all": ordered}[missing]
    answer = hand_in(nodes[0], leased, data, units=units)
    refused(answer, 422, "receipt.mismatch")
    assert answer.json()["data"]["fields"] == ["units"]
    assert not Contribution.objects.exists()
    assert hand_in(nodes[0], leased, data, units=ordered).status_code == 200


def test_a_stale_fence_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    former, current = lease(nodes[0]), lease(nodes[0])
    assert current["fence"] > former["fence"]
    data = train(current)
    refused(commit(nodes[0], former, data), 409, "lease.stale_fence")
    assert Assignment.objects.get(node_id=1).state == Assignment.State.LEASED
    assert commit(nodes[0], current, data).status_code == 200


def test_an_expired_lease_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    Assignment.objects.filter(node_id=1).update(lease_until=timezone.now() - timedelta(seconds=1))
    refused(commit(nodes[0], leased, train(leased)), 409, "lease.expired")


def test_another_nodes_slot_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    refused(commit(nodes[1], leased, train(leased)), 403, "assignment.not_yours")


def test_bytes_other_than_committed_are_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    refused(upload(nodes[0], leased, b"x" * len(data)), 422, "artifact.hash_mismatch")
    refused(upload(nodes[0], leased, data[:-10]), 422, "artifact.hash_mismatch")
    refused(hand_in(nodes[0], leased, data), 422, "artifact.not_committed")


def test_a_truncated_upload_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data[:-10], size=len(data))
    refused(upload(nodes[0], leased, data[:-10]), 422, "artifact.truncated")
    assert not store.path_of(sha256_hex(data[:-10])).exists()


def test_an_oversized_upload_is_refused(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    refused(commit(nodes[0], leased, data, size=2**40), 413, "artifact.too_large")
    commit(nodes[0], leased, data, size=100)
    refused(upload(nodes[0], leased, data), 413, "artifact.too_large")
    assert not store.path_of(sha256_hex(data)).exists()


def test_the_same_bytes_count_once(open_round: Round, nodes: list[TestNode]) -> None:
    leased = lease(nodes[0])
    data = train(leased)
    commit(nodes[0], leased, data)
    upload(nodes[0], leased, data)
    hand_in(nodes[0], leased, data)
    refused(commit(nodes[1], lease(nodes[1]), data), 422, "artifact.copied")


def test_two_nodes_with_one_hash_do_not_stop_the_settlement(open_round: Round, nodes: list[TestNode], job: Job) -> None:
    """Of one operator: one hands in, the other goes late and hands the same bytes in for the next round."""
    first, second = nodes
    leased, other = lease(first), lease(second)
    data = train(leased)
    assert commit(second, other, data).status_code == 200
    refused(commit(first, leased, data), 422, "artifact.copied")
    # Had both committed at once, neither would have seen the other.
    said = Assignment.objects.values("committed_sha256", "committed_size", "committed_at", "state").get(node_id=second.id)
    Assignment.objects.filter(node_id=first.id).update(**said)
    assert upload(first, leased, data).status_code == hand_in(first, leased, data).status_code == 200
    before = close_without(second, [], job)
    carried = beat(second, other).json()["lease"]
    assert upload(second, carried, data).status_code == 200
    refused(hand_in(second, carried, data), 422, "artifact.copied")
    contribute(first)
    overdue()
    check_chain(document(finish(job)), document(before), selectors.job_work(job))


def poisoned(kind: str, count: int) -> bytes:
    """Files of `count` values that are no update."""
    honest = encode(torch.full((count,), 1e-3), EncodingSpec()).data
    match kind:
        case "nan":  # the scale of the first chunk
            return honest[: HEADER.size] + b"\xff\xff" + honest[HEADER.size + 2 :]
        case "shape":
            return encode(torch.full((count + 1,), 1e-3), EncodingSpec()).data
        case "encoding":
            return encode(torch.full((count,), 1e-3), EncodingSpec(kind="bf16")).data
        case "truncated":
            return honest[:-20]
        case "zero":
            return encode(torch.zeros(count), EncodingSpec()).data
        case "huge":
            return encode(torch.full((count,), 1e3), EncodingSpec()).data
    return b"not an update at all".ljust(HEADER.size, b".")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nan", "artifact.not_finite"),
        ("shape", "artifact.wrong_shape"),
        ("encoding", "artifact.wrong_encoding"),
        ("truncated", "artifact.truncated"),
        ("zero", "contribution.empty"),
        ("huge", "contribution.norm_too_large"),
        ("garbage", "artifact.malformed"),
    ],
)
def test_what_is_no_update_is_rejected_with_its_reason(open_round: Round, nodes: list[TestNode], kind: str, code: str) -> None:
    data = poisoned(kind, bench(selectors.job_work(open_round.job)).size)
    contribute(nodes[0], data)
    contribution = Contribution.objects.get()
    check_contribution(contribution.pk)
    check_contribution(contribution.pk)
    contribution.refresh_from_db()
    assert (contribution.state, contribution.code) == (Contribution.State.REJECTED, code)
    assert contribution.quality is None


def test_an_order_is_compressed_for_who_takes_it(open_round: Round, nodes: list[TestNode]) -> None:
    plain = nodes[0].call("POST", "/agent/v1/leases", {})
    small = nodes[1].call("POST", "/agent/v1/leases", {}, **{"Accept-Encoding": "gzip"})
    assert small["Content-Encoding"] == "gzip"
    assert int(small["Content-Length"]) == len(small.content) < 0.7 * len(plain.content)
    assert json.loads(gzip.decompress(small.content)).keys() == plain.json().keys()  # type: ignore[attr-defined]
