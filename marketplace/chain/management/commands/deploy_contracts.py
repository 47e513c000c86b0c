from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from marketplace.chain.deploy import deploy
from marketplace.chain.terms import UNIT, Terms, default_terms
from trainer.protocol.errors import HyperGPUError


class Command(BaseCommand):
    help = "Deploys the contracts (and a test token, unless one is named), once, and writes the deployment file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--token", default="", help="address of the ERC-20 that pays; default: the chain's USDC, or the test token"
        )
        parser.add_argument("--min-stake", type=int, default=100 * UNIT, help="base units per active node (default 100.000000)")
        parser.add_argument("--attestors", default="", help="comma-separated addresses that may join as attestors")
        parser.add_argument("--challenge-window", type=int, help="seconds in which a settled round may be disputed")
        parser.add_argument("--dispute-time", type=int, help="most seconds of a dispute")
        parser.add_argument("--timelock-delay", type=int, help="seconds between the proposal of a change and its effect")
        parser.add_argument("--guardian", default="", help="who may pause, for a while (default: the deployer)")
        parser.add_argument("--arbiter", default="", help="who decides appeals (default: the deployer)")
        parser.add_argument("--coordinator", default="", help="who consents to seats (default: the settings' coordinator key)")
        parser.add_argument("--release", default="1", help="another word gives other addresses")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            terms = chosen_terms(options)
            token = options["token"] or settings.HYPERGPU.chain.usdc
            deployment, new = deploy(terms=terms, token=token, release=options["release"])
        except HyperGPUError as error:
            raise CommandError(str(error)) from error
        what = "deployed" if new else "already there, nothing done"
        self.stdout.write(f"{what}: market {deployment['market']}, token {deployment['token']}, chain {deployment['chainId']}")


def chosen_terms(options: dict[str, Any]) -> Terms:
    env = settings.HYPERGPU
    admitted = tuple(address.strip() for address in options["attestors"].split(",") if address.strip())
    named = {
        "challenge_window": options["challenge_window"], "dispute_time": options["dispute_time"],
        "delay": options["timelock_delay"],
    }  # fmt: skip
    profile = replace(env.chain, **{name: value for name, value in named.items() if value is not None})
    terms = default_terms(profile, min_stake=options["min_stake"], admitted=admitted)
    return replace(terms, guardian=options["guardian"], arbiter=options["arbiter"], coordinator=options["coordinator"])
