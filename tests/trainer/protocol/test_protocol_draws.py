"""Draws of audits: the same for everybody, as often as the rate says, and nothing of them is up to those who are drawn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.protocol.draws import audit_digest, audit_rate, count_of, drawn_segments
from trainer.protocol.spec import AuditSpec

PLACE = {"block_hash": "0x" + "ab" * 32, "market": "0x" + "cd" * 20, "job_id": 7, "round": 3, "node_id": 12}


def digest(**changes: object) -> bytes:
    return audit_digest(**(PLACE | changes))  # type: ignore[arg-type]


def test_the_digest_is_that_of_its_fields_in_order():
    assert digest().hex() == "fde86780281fdc93a55d55a1b59d4de5eeeea91cf1ece5ec7cc4375d39742726"
    others = [
        digest(block_hash="0x" + "ac" * 32), digest(market="0x" + "ce" * 20), digest(job_id=8), digest(round=4),
        digest(node_id=13),
    ]  # fmt: skip
    assert len({digest(), *others}) == 6


def test_newcomers_are_audited_more_often():
    spec = AuditSpec(rate=0.1, newcomer_rate=0.5, newcomer_rounds=4)
    assert [audit_rate(spec, rounds=done) for done in (0, 3, 4, 100)] == [0.5, 0.5, 0.1, 0.1]
    assert [audit_rate(spec, rounds=done, late=True) for done in (0, 100)] == [0.5, 0.5], "and whoever is late"
    assert audit_rate(AuditSpec(rate=0.3, newcomer_rate=0.1), rounds=100, late=True) == 0.3


def test_the_rate_is_the_share_of_rounds_that_is_audited():
    spec = AuditSpec(stride=5, segments=1)
    drawn = sum(bool(drawn_segments(digest(round=number), spec, steps=40, rate=0.1)) for number in range(20_000))
    assert 1_830 <= drawn <= 2_170, "four standard deviations around 2,000"
    assert not drawn_segments(digest(), spec, steps=40, rate=0.0)
    assert drawn_segments(digest(), spec, steps=40, rate=1.0)


def test_every_segment_is_drawn_about_equally_often():
    spec = AuditSpec(stride=5, segments=1)
    found = [drawn_segments(digest(round=number), spec, steps=38, rate=1.0)[0] for number in range(8_000)]
    assert set(found) == set(range(8)), "38 steps are seven segments of 5 and one of 3"
    assert all(abs(found.count(segment) - 1_000) < 130 for segment in range(8)), "four standard deviations"


@given(steps=st.integers(1, 10_000), stride=st.integers(1, 1_000), segments=st.integers(1, 64), number=st.integers(0, 2**40))
def test_segments_are_different_ones_that_there_are(steps: int, stride: int, segments: int, number: int):
    spec = AuditSpec(stride=stride, segments=segments)
    found = drawn_segments(digest(round=number), spec, steps=steps, rate=1.0)
    assert found == sorted(set(found))
    assert len(found) == min(segments, count_of(spec, steps))
    assert all(0 <= segment < count_of(spec, steps) for segment in found)
    assert (count_of(spec, steps) - 1) * stride < steps <= count_of(spec, steps) * stride
