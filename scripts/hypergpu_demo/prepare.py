"""Database and contracts in one process: Django is loaded once. Run by stack.py with the settings in the environment
and the attestors' keys, one a line, on standard input."""

import os
import sys

import django
from django.core.management import call_command
from eth_account import Account
from pydantic import SecretStr


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=1)
    keys = [SecretStr(line.strip()) for line in sys.stdin if line.strip()]
    call_command("deploy_contracts", attestors=",".join(Account.from_key(key.get_secret_value()).address for key in keys))
    from marketplace.chain.attestors import join_attestors  # noqa: PLC0415  (Django first)

    join_attestors(keys)


if __name__ == "__main__":
    main()
