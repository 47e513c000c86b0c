"""A worker of the product with the paper engine in the place of torch: `python -m scripts.hypergpu_bench.paper_worker worker ...`
takes the options of `celery -A marketplace.config`."""

from __future__ import annotations

import sys

from celery.__main__ import main

import marketplace.training
from scripts.hypergpu_bench import paper_engine

if __name__ == "__main__":
    sys.modules["marketplace.training.engine"] = paper_engine
    marketplace.training.engine = paper_engine  # type: ignore[attr-defined]
    sys.argv = ["celery", "-A", "marketplace.config", *sys.argv[1:]]
    sys.exit(main())
