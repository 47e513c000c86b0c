from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from marketplace.chain.deploy import Terms, deploy
from marketplace.chain.signer import KeySigner
from trainer.protocol.errors import HyperGPUError


class Command(BaseCommand):
    help = "Deploys the market (and a test token, unless one is named), once, and writes the deployment file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--token", default="", help="address of the ERC-20 that pays; default: deploy the test token")
        parser.add_argument("--min-stake", type=int, default=100_000_000, help="base units per active node (default 100.000000)")
        parser.add_argument("--attestors", default="", help="comma-separated addresses; default: those of the attestor keys")
        parser.add_argument("--exit-notice", type=int, default=86_400, help="seconds from a requester's notice to its exit")
        parser.add_argument("--unbonding-time", type=int, default=86_400, help="seconds until a stake can be taken out")

    def handle(self, *args: Any, **options: Any) -> None:
        given = [address.strip() for address in options["attestors"].split(",") if address.strip()]
        try:
            keys = [] if given else settings.HYPERGPU.attestor_keys
            attestors = given or [KeySigner(key, chain_id=settings.HYPERGPU.chain_id).address for key in keys]
            terms = Terms(
                min_stake=options["min_stake"], attestors=attestors, quorum=settings.HYPERGPU.quorum,
                exit_notice=options["exit_notice"], unbonding_time=options["unbonding_time"],
            )  # fmt: skip
            deployment, new = deploy(terms=terms, token=options["token"])
        except HyperGPUError as error:
            raise CommandError(str(error)) from error
        what = "deployed" if new else "already there, nothing done"
        self.stdout.write(f"{what}: market {deployment['market']}, token {deployment['token']}, chain {deployment['chainId']}")
