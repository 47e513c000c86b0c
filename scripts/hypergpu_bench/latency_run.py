"""The process that hands in: `settlement_latency` starts it with the settings of a running stack in its environment."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import django


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--jobs", "--nodes", "--rounds", "--seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")
    django.setup()
    from scripts.hypergpu_bench.latency_rounds import measured  # noqa: PLC0415  (Django is ready now)

    found = measured(jobs=options.jobs, nodes=options.nodes, rounds=options.rounds, seed=options.seed)
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
