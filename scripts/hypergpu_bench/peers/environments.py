"""An environment of its own for each peer, made on the first run from pinned requirements."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from scripts.hypergpu_bench.report import ROOT
from scripts.hypergpu_demo.supervise import StackError

REQUIREMENTS = Path(__file__).parent
ENVIRONMENTS = ROOT / ".state" / "peers"


def python_of(name: str) -> str:
    """The interpreter of the environment `name`; an empty one is the product's own. Raises StackError when it cannot be made."""
    if not name:
        return sys.executable
    folder, wanted = ENVIRONMENTS / name, REQUIREMENTS / f"{name}.txt"
    made, python = folder / "made-of.txt", folder / "bin" / "python"
    if not made.exists() or made.read_bytes() != wanted.read_bytes():
        make(folder, wanted)
        shutil.copyfile(wanted, made)
    return str(python)


def make(folder: Path, requirements: Path) -> None:
    began = time.monotonic()
    sys.stderr.write(f"Installing {requirements.stem} into {folder} (once; some minutes)\n")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{requirements.stem}.log"
    with log.open("w") as output:
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off", "-r", str(requirements)],
        ):
            if subprocess.run(command, stdout=output, stderr=output, check=False).returncode:
                raise StackError(f"{requirements.stem} could not be installed: {last_line(log)} (log: {log})")
    sys.stderr.write(f"  {requirements.stem} is installed after {time.monotonic() - began:.0f} s\n")


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "its log is empty"
