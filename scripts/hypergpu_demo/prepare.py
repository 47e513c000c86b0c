"""Database and contracts in one process: Django is loaded once. Run by stack.py with the settings in the environment
and the attestors' keys, one a line, on standard input."""

import os
import sys

import django
from django.core.management import call_command
from eth_account import Account
from pydantic import SecretStr

BONDS = 10


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=1)
    keys = [SecretStr(line.strip()) for line in sys.stdin if line.strip()]
    call_command("deploy_contracts", attestors=",".join(Account.from_key(key.get_secret_value()).address for key in keys))
    from marketplace.chain.attestors import join_attestors  # noqa: PLC0415  (Django first)

    join_attestors(keys)
    give_bonds()


def give_bonds() -> None:
    """Test money with which the challenger can open a few cases at the court."""
    from django.conf import settings  # noqa: PLC0415  (Django first)

    from marketplace.chain.services import market_view  # noqa: PLC0415
    from marketplace.chain.wallet import send  # noqa: PLC0415

    key = settings.HYPERGPU.challenger_key.get_secret_value()
    challenger = str(Account.from_key(key).address)
    wanted = BONDS * int(settings.HYPERGPU.deployment["terms"]["court"]["bond"])
    if market_view("balanceOf", challenger, contract="token", block="latest") < wanted:
        send(key, "mint", [challenger, wanted], contract="token", wait_final=False)


if __name__ == "__main__":
    main()
