"""The GPU worker process: loads torch, warms it up, then takes one order at a time from the agent's local broker."""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path

import torch
from celery.signals import worker_ready

from trainer.operator.benchmark import device_facts
from trainer.operator.broker import QUEUE, READY, connect, make_app
from trainer.operator.config import Home
from trainer.operator.processes import end_with_parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Started by `hypergpu agent`, not by hand.")
    parser.add_argument("--home", required=True)
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--agent-pid", required=True, type=int)
    parser.add_argument("--broker-pid", required=True, type=int)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    threading.Thread(target=end_with_parent, args=(options.agent_pid, options.broker_pid), daemon=True).start()
    if options.threads is not None:
        torch.set_num_threads(max(1, options.threads))
    facts = device_facts(Home(Path(options.home)))

    @worker_ready.connect(weak=False)
    def announce(**_: object) -> None:
        connect(options.socket).rpush(READY, json.dumps(facts))

    app = make_app(options.socket)
    app.conf.include = ["trainer.operator.tasks"]
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool=solo", "--concurrency=1", f"--queues={QUEUE}", "--loglevel=WARNING", *alone])


if __name__ == "__main__":
    main()
