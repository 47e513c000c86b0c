"""Benchmarks, each a name. Started by scripts/bench."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.hypergpu_bench.catalogue import BENCHES, run
from scripts.hypergpu_bench.report import show, write
from scripts.hypergpu_demo.stack import ROOT
from scripts.hypergpu_demo.supervise import StackError


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the product.")
    parser.add_argument("name", nargs="?", choices=sorted(BENCHES), help="without a name: a list of all")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: shows that it works, proves no goal")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if not options.name:
        for name, bench in sorted(BENCHES.items()):
            print(f"{name:22} {bench.measures}")
        return 0
    signal.signal(signal.SIGTERM, interrupt)  # leave no process behind
    target = options.json and options.json.absolute()
    os.chdir(ROOT)
    command = shlex.join(["./scripts/bench", options.name, *(["--quick"] if options.quick else [])])
    try:
        result = run(options.name, command=command, quick=options.quick)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if target:
        write(result, target)  # before anything can go wrong on the screen
    show(result)
    return 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
