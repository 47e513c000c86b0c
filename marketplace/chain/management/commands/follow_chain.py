from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from marketplace.chain.follower import follow, pass_once
from trainer.protocol.errors import HyperGPUError


class Command(BaseCommand):
    help = "Sends what the outbox promises and reads what the market says, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="one pass, then exit; fails when the chain cannot be read")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"]:
            try:
                pass_once()
            except HyperGPUError as error:
                raise CommandError(str(error)) from error
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        follow(stop)
