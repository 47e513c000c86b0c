"""The installed version, also when run from a source tree that was never installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    try:
        return version("hypergpu")
    except PackageNotFoundError:
        return "0+source"


VERSION = installed_version()
