from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from marketplace.chain.attestors import join_attestors
from trainer.protocol.errors import HyperGPUError


class Command(BaseCommand):
    help = "Bonds and registers the attestor of HYPERGPU_ATTESTOR_KEY with the admin's wallet, and begins the first epoch."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            attestors = join_attestors([settings.HYPERGPU.attestor_key])
        except HyperGPUError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"epoch {attestors['epoch']}: {len(attestors['members'])} attestors, quorum {attestors['quorum']}")
