"""Runs every detector of Slither. Reads solc's standard JSON input, writes what was found as JSON.

Started by scripts/analyze_contracts.py with the Python of Slither's own environment, in contracts/.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import sys
from typing import Any

from crytic_compile import CryticCompile
from crytic_compile.platform.solc_standard_json import SolcStandardJson
from slither import Slither
from slither.detectors import all_detectors
from slither.detectors.abstract_detector import AbstractDetector

LOCATION = re.compile(r" ?\([^()]*\.sol#[\d-]+\)")
UNREAD = re.compile(r"Impossible to generate IR for (\S+) \((\S+?)#")


class Unread(logging.Handler):
    """Functions that Slither could not read. It only logs them, and then finds nothing in them."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if match := UNREAD.search(record.getMessage()):
            self.functions.add((match[1], match[2]))


def main() -> None:
    source, unread = json.load(sys.stdin), Unread()
    logging.getLogger("ContractSolcParsing").addHandler(unread)
    logging.getLogger("CryticCompile").setLevel(logging.ERROR)
    slither = Slither(CryticCompile(SolcStandardJson(source), solc="bin/solc"), filter_paths=["node_modules"])
    for detector in vars(all_detectors).values():
        if inspect.isclass(detector) and issubclass(detector, AbstractDetector):
            slither.register_detector(detector)
    found = [finding(result) for results in slither.run_detectors() for result in results]
    found += [
        {"impact": "Unknown", "check": "not-analysed", "what": f"Slither cannot read {name}", "text": f"{name} in {path}"}
        for name, path in sorted(unread.functions)
        if not path.startswith("node_modules/")
    ]
    json.dump(found, sys.stdout)


def finding(result: dict[str, Any]) -> dict[str, str]:
    """`what` is the first line without line numbers, so that it lasts through edits elsewhere in the file."""
    text = result["description"].strip()
    what = LOCATION.sub("", text.splitlines()[0]).strip().removesuffix(":")
    return {"impact": result["impact"], "check": result["check"], "what": what, "text": text}


if __name__ == "__main__":
    main()
