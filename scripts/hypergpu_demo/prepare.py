"""Database and contracts in one process: Django is loaded once. Run by stack.py with the settings in the environment."""

import os

import django
from django.core.management import call_command


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=1)
    call_command("deploy_contracts")
    call_command("join_attestors")


if __name__ == "__main__":
    main()
