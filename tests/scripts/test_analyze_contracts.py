"""Slither's findings against their explanations: neither a new finding nor an old explanation goes unseen."""

from __future__ import annotations

from scripts.analyze_contracts import compare

EXPLAINED = {
    "checks": {"timestamp": "days"},
    "finding": [{"check": "unused-return", "what": ["f() ignores g()"] * 2, "why": "..."}],
}


def finding(check: str, what: str) -> dict[str, str]:
    return {"impact": "Medium", "check": check, "what": what, "text": f"{what} (src/F.sol#1)"}


KNOWN = [finding("timestamp", "f() uses timestamp"), *[finding("unused-return", "f() ignores g()")] * 2]


def test_what_is_explained_is_no_problem():
    assert compare(KNOWN, EXPLAINED) == []


def test_a_new_finding_of_another_check_is_a_problem():
    (problem,) = compare([*KNOWN, finding("reentrancy-eth", "f()")], EXPLAINED)
    assert problem.startswith("Medium reentrancy-eth: f() (src/F.sol#1)\n    not explained")


def test_one_more_of_a_kind_is_a_problem():
    assert len(compare([*KNOWN, finding("unused-return", "f() ignores g()")], EXPLAINED)) == 3


def test_an_explanation_of_nothing_is_a_problem():
    assert compare(KNOWN[:2], EXPLAINED) == ["unused-return: explained, but not found: f() ignores g()"]
    assert compare(KNOWN[1:], EXPLAINED) == ["timestamp: the check is explained, but finds nothing"]
