"""A PostgreSQL of our own on a Unix socket, made for one run and thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.hypergpu_test.debian import apt_install
from scripts.hypergpu_test.stages import MissingError

FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=60"
"""Nothing here has to survive a power cut."""


@contextmanager
def temporary_postgres() -> Iterator[Mapping[str, str]]:
    """Environment with HYPERGPU_DATABASE_URL. Raises MissingError where there is no PostgreSQL and none can be installed."""
    programs = find_programs()
    user = unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="hypergpu-pg-") as folder:
        data = Path(folder) / "data"
        if user:
            shutil.chown(folder, user)
        as_user(user, [str(programs / "initdb"), "-D", str(data), "-U", "hypergpu", "-A", "trust", "-E", "UTF8", "--no-sync"])
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} {FAST}"
        pg_ctl = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-s"]
        as_user(user, [*pg_ctl, "-l", f"{folder}/log", "-o", options, "start"])
        try:
            yield {"HYPERGPU_DATABASE_URL": f"postgresql://hypergpu@/postgres?host={folder}"}
        finally:
            as_user(user, [*pg_ctl, "-m", "immediate", "stop"])


def find_programs() -> Path:
    """Folder of initdb and pg_ctl: of PATH, else the newest of Debian's."""
    for attempt in (False, True):
        if attempt:
            apt_install("postgresql", what="PostgreSQL")
        if found := shutil.which("initdb"):
            return Path(found).resolve().parent
        if debian := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])):
            return debian[-1].parent
    raise MissingError("PostgreSQL is missing: its package put no initdb where Debian keeps it.")


def unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: then the name of a user that it may run as."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def as_user(user: str | None, command: list[str]) -> None:
    if user:
        account = pwd.getpwnam(user)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    else:
        identity = {}
    done = subprocess.run(  # type: ignore[call-overload]
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **identity,
    )
    if done.returncode:
        raise MissingError(f"PostgreSQL does not start: {' '.join(command)}: {done.stdout.strip()[-300:]}")
