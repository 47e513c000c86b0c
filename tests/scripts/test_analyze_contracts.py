"""Slither's findings against their explanations: neither a new finding nor an old explanation goes unseen."""

from __future__ import annotations

from scripts.analyze_contracts import compare

EXPLAINED = {
    "finding": [
        {"check": "timestamp", "what": ["*"], "why": "days"},
        {"check": "unused-return", "what": ["f(uint256[]) ignores *"], "why": "..."},
    ]
}


def finding(check: str, what: str) -> dict[str, str]:
    return {"impact": "Medium", "check": check, "what": what, "text": f"{what} (src/F.sol#1)"}


KNOWN = [finding("timestamp", "f() uses timestamp"), finding("unused-return", "f(uint256[]) ignores g()")]


def test_what_is_explained_is_no_problem():
    assert compare([*KNOWN, finding("unused-return", "f(uint256[]) ignores h()")], EXPLAINED) == []


def test_a_new_finding_is_a_problem():
    for new in (finding("reentrancy-eth", "f(uint256[]) ignores g()"), finding("unused-return", "g() ignores g()")):
        (problem,) = compare([*KNOWN, new], EXPLAINED)
        assert problem.startswith(f"Medium {new['check']}: {new['text']}\n    not explained")


def test_an_explanation_of_nothing_is_a_problem():
    assert compare(KNOWN[:1], EXPLAINED) == ["unused-return: explained, but not found: f(uint256[]) ignores *"]
