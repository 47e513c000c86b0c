"""The product's settings for a process that a test starts, on that test's database."""

import os

from marketplace.config.settings import *  # noqa: F403

DATABASES["default"]["NAME"] = os.environ["HYPERGPU_TEST_DATABASE"]  # noqa: F405
