"""docs/benchmarks/README.md: what the committed results say, so that no number in it is typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.hypergpu_bench.report import ROOT, number

FOLDER = ROOT / "docs" / "benchmarks"
HEAD = """# Benchmarks

What was measured, and the command that measures it again. Each result is the JSON file of that name in this folder, as
`--json` wrote it; this page is made of them by `python -m scripts.hypergpu_bench.documents`.
"""


def page() -> str:
    results = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    return "\n".join([HEAD, *(line for result in results for line in section(result))])


def section(result: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield f"## {result['name']}\n\n    {result['command']} --json docs/benchmarks/{result['name']}.json\n"
    yield from (f"- {sentence}" for sentence in result["conditions"])
    yield f'- Seeds: {", ".join(str(seed) for seed in result["seeds"])}. "low" and "high" are {result["spread"]}.'
    yield f"- Versions: {versions}.\n"
    yield "| figure | value | unit | goal | low | high |\n|---|---:|---|---:|---:|---:|"
    for name, figure in result["figures"].items():
        value, goal, low, high = (number(figure[part]) for part in ("value", "goal", "low", "high"))
        yield f"| `{name}` | {value} | {figure['unit']} | {goal} | {low} | {high} |"
    if (FOLDER / f"{result['name']}.png").is_file():
        yield f"\n![{result['name']}]({result['name']}.png)"
    yield ""


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "README.md"
    target.write_text(page(), "utf-8")
