#!/usr/bin/env python3
"""Runs Slither over the contracts and compares what it finds with contracts/slither/explained.toml.

    scripts/analyze_contracts.py        exit 1 when a finding is not explained there, or an explanation is of no use any more

Slither lives in an environment of its own under .state/slither, made at the first run from contracts/slither/requirements.txt.
It reads what the compiler reads: the sources of every deployable contract, and npm's solc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.compile_contracts import CONTRACTS, DEPLOYABLES, ROOT, standard_input

HOME = ROOT / ".state" / "slither"
REQUIREMENTS = CONTRACTS / "slither" / "requirements.txt"
EXPLAINED = CONTRACTS / "slither" / "explained.toml"


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    findings = analyze()
    problems = compare(findings, tomllib.loads(EXPLAINED.read_text("utf-8")))
    print("\n".join(problems) or f"{len(findings)} findings, all explained in {EXPLAINED.relative_to(ROOT)}")
    return 1 if problems else 0


def analyze() -> list[dict[str, str]]:
    """Every finding: `impact`, `check`, `what` (without line numbers), `text`."""
    source = standard_input(DEPLOYABLES)
    source["settings"]["outputSelection"] = {"*": {"": ["ast"]}}
    done = subprocess.run(
        [str(slither_python()), "slither/run.py"],
        cwd=CONTRACTS,
        input=json.dumps(source),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"Slither failed:\n{done.stderr}")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def slither_python() -> Path:
    """The interpreter of Slither's environment, which is made anew when its requirements change."""
    python, stamp = HOME / "bin" / "python", HOME / "requirements.sha256"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        venv.create(HOME, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--retries", "2", "-r", str(REQUIREMENTS)]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"Slither cannot be installed; it needs PyPI once:\n{done.stderr}")
        stamp.write_text(wanted)
    return python


def compare(findings: list[dict[str, str]], explained: dict[str, Any]) -> list[str]:
    """What is found and not explained, and what is explained and not found, in words. An explanation is of a check and the
    first lines of findings, in which `*` stands for anything."""
    known = [(each["check"], what, pattern(what)) for each in explained["finding"] for what in each["what"]]
    problems = [
        f"{each['impact']} {each['check']}: {each['text']}\n"
        f"    not explained; in {EXPLAINED.name} it would be: what = {each['what']!r}"
        for each in findings
        if not any(check == each["check"] and form.fullmatch(each["what"]) for check, _, form in known)
    ]
    problems += [
        f"{check}: explained, but not found: {what}"
        for check, what, form in known
        if not any(check == each["check"] and form.fullmatch(each["what"]) for each in findings)
    ]
    return problems


def pattern(what: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, what.split("*"))))


if __name__ == "__main__":
    sys.exit(main())
