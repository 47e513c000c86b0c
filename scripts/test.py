"""Everything that proves the product, from lint to a browser. Started by scripts/test."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.hypergpu_test.debian import chromium
from scripts.hypergpu_test.postgres import temporary_postgres
from scripts.hypergpu_test.stages import ROOT, Command, Stage, run_all

PYTHON = sys.executable
BIN = str(Path(PYTHON).parent)


def python(*argv: str, **env: str) -> Command:
    return Command(argv=[PYTHON, *argv], env=env)


def tool(name: str, *argv: str) -> Command:
    """A program of the Python environment."""
    return Command(argv=[f"{BIN}/{name}", *argv])


AGAIN = ("--reruns", "1", "-rR")
"""A test that fails is run once more and named: what hangs on a machine's moment is told from what is broken."""


def pytest(*argv: str) -> Command:
    """Over all cores, at most eight. Tests that start the product's processes share one of them: they time each other out."""
    return python("-m", "pytest", "-n", "logical", "--maxprocesses", "8", "--dist", "loadgroup", *AGAIN, *argv)


def npm(folder: str, *argv: str) -> Command:
    return Command(argv=["npm", "run", "--silent", *argv], folder=folder)


def npx(folder: str, *argv: str) -> Command:
    return Command(argv=["npx", "--no-install", *argv], folder=folder)


def forge(*argv: str) -> Command:
    found = subprocess.run(
        ["node", "bin/foundry.js", "forge"], cwd=ROOT / "contracts", capture_output=True, text=True, check=True
    )
    return Command(argv=[found.stdout.strip(), *argv], folder="contracts")


def generated_schema() -> list[Command]:
    """Regenerate what is generated, beside the committed files, and compare."""
    fresh, types = ROOT / ".state" / "test" / "openapi.yaml", ROOT / ".state" / "test" / "schema.d.ts"
    return [
        python("manage.py", "spectacular", "--validate", "--fail-on-warn", "--file", str(fresh)),
        Command(argv=["diff", "-u", "openapi.yaml", str(fresh)]),
        npx("frontend", "openapi-typescript", "../openapi.yaml", "-o", str(types)),
        Command(argv=["diff", "-u", "frontend/src/api/schema.d.ts", str(types)]),
    ]


@contextmanager
def browser() -> Iterator[Mapping[str, str]]:
    """Chromium and the packages that drive it."""
    folder = ROOT / "tests" / "browser"
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
    yield {"HYPERGPU_CHROMIUM": chromium()}


STAGES = [
    Stage(
        name="lint",
        commands=[tool("ruff", "check", "."), tool("ruff", "format", "--check", "."), tool("lint-imports", "--no-cache")],
    ),
    Stage(name="types", commands=[tool("mypy")]),
    Stage(name="page lint and types", commands=[npm("frontend", "lint"), npx("frontend", "tsc", "--noEmit")]),
    Stage(
        name="generated files",
        commands=[
            python("scripts/compile_contracts.py", "--check"),
            python("-m", "trainer.protocol.vectors", "--check"),
            python("manage.py", "makemigrations", "--check", "--dry-run"),
            *generated_schema(),
        ],
    ),
    Stage(name="pytest on SQLite", commands=[pytest("-m", "not browser")]),
    Stage(
        name="pytest on PostgreSQL",
        commands=[pytest("tests/marketplace", "tests/chain", "tests/flow", "-m", "not browser")],
        slow=True,
        around=temporary_postgres,
    ),
    Stage(name="contracts", commands=[forge("fmt", "--check"), forge("test")]),
    Stage(name="slither", commands=[python("scripts/analyze_contracts.py")]),
    Stage(name="vitest", commands=[npm("frontend", "test")]),
    Stage(name="browser", commands=[python("-m", "pytest", "tests/browser", "-m", "browser", *AGAIN)], slow=True, around=browser),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test", description="Run every check.")
    parser.add_argument("--fast", action="store_true", help="leave out PostgreSQL and the browser")
    parser.add_argument("stages", nargs="*", help="only these: " + ", ".join(repr(stage.name) for stage in STAGES))
    options = parser.parse_args()
    unknown = set(options.stages) - {stage.name for stage in STAGES}
    if unknown:
        parser.error(f"no stage is called {', '.join(sorted(unknown))}")
    os.chdir(ROOT)
    chosen = [stage for stage in STAGES if not options.stages or stage.name in options.stages]
    return run_all([stage for stage in chosen if not (options.fast and stage.slow)])


if __name__ == "__main__":
    sys.exit(main())
