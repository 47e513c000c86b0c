"""Programs of the test run that are not Python or npm packages."""

from __future__ import annotations

import os
import shutil
import subprocess

from scripts.hypergpu_test.stages import MissingError

CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def apt_install(package: str, *, what: str) -> None:
    """Raises MissingError with what to do, where this user or system cannot install it."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingError(f"{what} is missing. Install it (Debian: apt-get install {package}) or run scripts/test --fast.")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", package]):
        if subprocess.run(command, env=env, check=False, **quiet).returncode and command[1] == "install":  # type: ignore[call-overload]
            raise MissingError(f"{what} is missing, and apt-get install {package} failed.")


def chromium() -> str:
    """Path of a Chromium; installs Debian's when there is none."""
    for attempt in (False, True):
        if attempt:
            apt_install("chromium", what="Chromium")
        for name in CHROMIUM:
            if path := shutil.which(name):
                return path
    raise MissingError("Chromium is missing: apt-get install chromium put no program in PATH.")
