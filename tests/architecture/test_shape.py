"""The shape of the code: small modules, side effects in one place, no pickle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
SIDE_EFFECTS = re.compile(r"\.(delay|apply_async|on_commit)\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
SOURCES = ("marketplace", "trainer", "scripts", "tests")


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts)


def names(paths: Iterator[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def test_no_module_is_longer_than_400_lines():
    long = [path for path in modules(*SOURCES) if len(path.read_text().splitlines()) > MAX_LINES]
    assert names(iter(long)) == []


def test_no_source_of_page_or_contracts_is_longer_than_400_lines():
    generated = {ROOT / "frontend/src/chain/abi.ts", ROOT / "frontend/src/api/schema.d.ts"}
    found = [
        *(ROOT / "frontend/src").rglob("*.ts"),
        *(ROOT / "frontend/src").rglob("*.tsx"),
        *(ROOT / "contracts/src").rglob("*.sol"),
    ]
    long = [path for path in found if path not in generated and len(code_lines(path)) > MAX_LINES]
    assert names(iter(sorted(long))) == []


def code_lines(path: Path) -> list[str]:
    """Lines that are not comments: an interface may explain itself at length."""
    return [line for line in path.read_text().splitlines() if not line.strip().startswith(("//", "/*", "*"))]


def test_tasks_start_only_from_events_and_the_table():
    """A write records a fact with emit(); what follows is in flow.py. Nothing else starts tasks or hooks on commit."""
    allowed = re.compile(r"^marketplace/(events/.*|flow)\.py$|^marketplace/events/")
    found = [
        name
        for path, name in zip(modules("marketplace"), names(modules("marketplace")), strict=True)
        if SIDE_EFFECTS.search(path.read_text())
    ]
    assert [name for name in found if not allowed.match(name)] == []
    assert found, "the pattern finds nothing any more"


def test_nothing_is_left_for_later():
    assert names(path for path in modules("marketplace", "trainer", "scripts") if UNFINISHED.search(path.read_text())) == []


@pytest.mark.parametrize("module", ["pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"])
def test_nothing_unpickles(module):
    importers = [path for path in modules("marketplace", "trainer", "scripts") if module in imported(path)]
    assert names(iter(importers)) == []


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
