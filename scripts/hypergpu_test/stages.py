"""A stage is a few commands that run quietly: one line with its seconds when they pass, everything they said when not."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOGS = ROOT / ".state" / "test"
TAIL_LINES = 400
"""Of a failed command; the whole is in its log."""
CLOSING = (
    re.compile(r"^(?:\d+ failed, )?\d+ passed.* in .*$", re.MULTILINE),  # pytest
    re.compile(r"^Ran \d+ test suites.*$", re.MULTILINE),  # forge
    re.compile(r"^\s*Tests\s+.*passed.*$", re.MULTILINE),  # vitest
)
FAILURES = re.compile(r"^(?:\[FAIL|FAILED |ERROR |\s*FAIL |.*: error[: ]).*$")
"""Lines that name what failed, in pytest, forge, vitest and compilers. They come first: whoever keeps a part of the output
keeps these."""
RERUN = re.compile(r"^RERUN .*$", re.MULTILINE)
"""A test that passed when it ran again, as pytest-rerunfailures names it. Not a failure, and not to be forgotten."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class MissingError(Exception):
    """Something the stage needs is not here and could not be installed; the message names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """`folder` is relative to the clone."""

    argv: Sequence[str]
    folder: str = "."
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """`around` prepares what the commands need and yields environment for them."""

    name: str
    commands: Sequence[Command]
    slow: bool = False
    around: Callable[[], AbstractContextManager[Mapping[str, str]]] = lambda: nullcontext({})


def run_all(stages: Sequence[Stage]) -> int:
    """Every stage in order, whatever fails. The exit code."""
    LOGS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    failed = [stage.name for stage in stages if not run_stage(stage)]
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    passed = f"{len(stages) - len(failed)} of {len(stages)} stages passed in {minutes} min {seconds:02d} s"
    print(f"\n{passed}" + (f"; failed: {', '.join(failed)}" if failed else ""), flush=True)
    return 1 if failed else 0


def run_stage(stage: Stage) -> bool:
    began = time.monotonic()
    closing: list[str] = []
    try:
        with stage.around() as extra:
            for number, command in enumerate(stage.commands):
                log = LOGS / f"{stage.name.replace(' ', '-')}-{number}.log"
                if not run_command(command, extra, log):
                    report(stage.name, began, passed=False)
                    show_failure(command, log)
                    return False
                closing += closing_lines(log)
    except MissingError as error:
        report(stage.name, began, passed=False)
        print(f"    {error}", flush=True)
        return False
    report(stage.name, began, passed=True, closing=closing)
    return True


def run_command(command: Command, extra: Mapping[str, str], log: Path) -> bool:
    env = {**os.environ, **extra, **command.env}
    with log.open("wb") as output:
        done = subprocess.run(
            list(command.argv),
            cwd=ROOT / command.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    return done.returncode == 0


def closing_lines(log: Path) -> list[str]:
    """The lines with which a test runner sums up, and the tests that it ran twice."""
    text = COLOURS.sub("", log.read_text(errors="replace"))
    closing = [match.group().strip(" =") for pattern in CLOSING for match in list(pattern.finditer(text))[-1:]]
    return closing + RERUN.findall(text)


def report(name: str, began: float, *, passed: bool, closing: Sequence[str] = ()) -> None:
    line = f"{'ok  ' if passed else 'FAIL'}  {name:<34} {time.monotonic() - began:6.1f} s"
    print(line + (f"   {' | '.join(closing)}" if closing else ""), flush=True)


def show_failure(command: Command, log: Path) -> None:
    lines = COLOURS.sub("", log.read_text(errors="replace")).splitlines()
    print(f"    $ {' '.join(command.argv)}   (in {command.folder}, log {log.relative_to(ROOT)})")
    for line in [*filter(FAILURES.match, lines), *lines[-TAIL_LINES:]]:
        print(f"    {line}")
    print(flush=True)
