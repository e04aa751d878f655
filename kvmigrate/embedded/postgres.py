"""A PostgreSQL server of our own, started from the programs of a wheel or of the distribution."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier

from kvmigrate.embedded.binaries import PostgresBinaries, can_be_entered, find_postgres, readable_by_all
from kvmigrate.embedded.process import GuardedProcess, free_port, last_lines, plain_environment
from kvmigrate.errors import ServerError

NOBODY_UID = 65534
"""PostgreSQL refuses to run as root; root runs it as this user, which every system has."""

THROWAWAY_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "32MB",
        "autovacuum_naptime": "5min",
    }
)
"""Settings for data that may be lost with the machine's power: faster, and small in memory."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # No socket file: its path has a length limit that temporary folders reach.
    "unix_socket_directories": "",
    "wal_level": "logical",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_PORT_TRIES = 5
_TELLS_ITERATIONS = 16
_OWN_FILES = {"data", "password", "server.log"}


class PostgresServer:
    """A PostgreSQL server to create databases in. A context manager: leaving it closes the server.

    Attributes:
        url: Of the database ``postgres``, as a superuser; it holds the password.

        owned: Whether this object started the server and will stop it.
    """

    def __init__(self, url: str, process: GuardedProcess | None = None) -> None:
        """Use `start` or `at` instead."""
        self.url = url
        self.owned = process is not None
        self._process = process
        self._version = ""

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the running server behind *url*; `close` leaves it running."""
        return cls(url)

    @classmethod
    def start(
        cls, data_dir: Path | None = None, *, settings: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> Self:
        """Start a server on a free port of 127.0.0.1 with a generated password.

        It stops with `close`, when this program ends, and when this program is killed.

        Args:
            data_dir: Where the data lives and stays; started again there, the server
                has the same data and password. Without it the data is temporary.

            settings: As in ``postgresql.conf``; see also `THROWAWAY_SETTINGS`.

            timeout_s: How long the server may take to answer, crash recovery included.

        Raises:
            ServerError: no PostgreSQL was found, or it did not start; nothing is left running.
        """
        if sys.platform == "win32":
            raise ServerError("embedded servers need Linux or macOS", hint="name a running server with --target")
        uid = None if os.geteuid() else NOBODY_UID
        binaries = find_postgres()
        if uid is not None:
            binaries = readable_by_all(binaries)
        folder = _folder(data_dir, uid)
        junk = folder if data_dir is None else None
        try:
            if uid is not None:
                os.chown(folder, uid, uid)
            launch = _Launch(binaries, folder, _init_data(binaries, folder, uid), uid, junk)
            process, url = launch.run({**_SETTINGS, **_stretched(binaries, 4096), **(settings or {})}, timeout_s)
        except BaseException as exc:
            if junk:
                shutil.rmtree(junk, ignore_errors=True)
            if isinstance(exc, OSError):
                raise _cannot_use(folder, exc) from exc
            raise
        return cls(url, process)

    @property
    def version(self) -> str:
        """The server's version, such as ``18.6``."""
        if not self._version:
            with psycopg.connect(self.url) as connection:
                self._version = connection.info.parameter_status("server_version") or "unknown"
        return self._version

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create database *name* as a copy of *template* and return its URL."""
        statement = SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop_database(self, name: str) -> None:
        """Drop database *name* if it exists, ending every session in it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    def close(self) -> None:
        """Stop the server if it is owned, and remove temporary data. Safe to call twice."""
        if self._process is not None:
            self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _folder(data_dir: Path | None, uid: int | None) -> Path:
    """Return a folder for the server that its user can reach; a named one must be empty or from an earlier start."""
    if data_dir is None:
        parent = Path(tempfile.gettempdir())
        if uid is not None and not can_be_entered(parent / "any"):
            parent = Path("/var/tmp")  # noqa: S108  (mkdtemp makes the name unpredictable and the folder private)
        return Path(tempfile.mkdtemp(prefix="kvmigrate-pg-", dir=parent))
    folder = data_dir.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        strangers = sorted({path.name for path in folder.iterdir()} - _OWN_FILES)
        reachable = uid is None or can_be_entered(folder)
    except OSError as exc:
        raise _cannot_use(folder, exc) from exc
    if strangers:
        raise ServerError(
            f"{folder} holds {strangers[0]!r}, which no server of kvmigrate put there",
            hint="name an empty or a new folder for the server's data",
        )
    if not reachable:
        raise ServerError(
            f"{folder} lies in a folder that only root can enter, and PostgreSQL does not run as root",
            hint="choose a data folder elsewhere, or run as a user other than root",
        )
    return folder


def _cannot_use(folder: Path, why: OSError) -> ServerError:
    return ServerError(
        f"cannot use {folder} for a PostgreSQL server: {why}",
        hint="choose another folder, or name a running server instead of an embedded one",
    )


def _init_data(binaries: PostgresBinaries, folder: Path, uid: int | None) -> str:
    """Create the data unless it is there; return the superuser's password."""
    secret = folder / "password"
    if (folder / "data" / "PG_VERSION").exists() and secret.exists():
        return secret.read_text().strip()
    password = secrets.token_hex(24)
    secret.touch(mode=0o600)
    secret.write_text(password + "\n")
    if uid is not None:
        os.chown(secret, uid, uid)
    # Stretching at each connection is for passwords that people think of; this one is random.
    options = [part for name, value in _stretched(binaries, 1).items() for part in ("-c", f"{name}={value}")]
    # fmt: off
    command = [
        binaries.program("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-E", "UTF8",
        "--locale", "C.UTF-8" if sys.platform == "linux" else "C",
        "-A", "scram-sha-256", "--pwfile", str(secret), "--no-sync", "--no-instructions", *options,
    ]
    # fmt: on
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            env=plain_environment(),
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    except (OSError, subprocess.SubprocessError) as exc:
        detail = (getattr(exc, "stderr", "") or str(exc)).strip()
        raise ServerError(
            f"initdb failed in {folder}: {detail}",
            hint="check free space and permissions there, or name a running server instead",
        ) from exc
    return password


def _stretched(binaries: PostgresBinaries, iterations: int) -> dict[str, str]:
    """Return the setting of how often a new password is hashed, where the server has it."""
    return {"scram_iterations": str(iterations)} if int(binaries.version.split(".")[0]) >= _TELLS_ITERATIONS else {}


class _Launch(NamedTuple):
    """Everything that one start of a server needs."""

    binaries: PostgresBinaries
    folder: Path
    password: str
    uid: int | None
    junk: Path | None

    def run(self, settings: Mapping[str, str], timeout_s: float) -> tuple[GuardedProcess, str]:
        """Start the server, wait until it answers, return its URL; a port that was taken meanwhile is replaced."""
        log = self.folder / "server.log"
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        said = ""
        for _ in range(_PORT_TRIES):
            port = free_port()
            log.write_text("")
            command = [self.binaries.program("postgres"), "-D", str(self.folder / "data"), "-p", str(port), *options]
            process = GuardedProcess(command, log=log, stop=signal.SIGINT, uid=self.uid, junk=self.junk)
            url = f"postgresql://postgres:{self.password}@127.0.0.1:{port}/postgres"
            if _answers(process, url, timeout_s):
                return process, url
            process.stop()
            said = last_lines(log)
            if "could not bind" not in said:
                break
        raise ServerError(
            f"PostgreSQL {self.binaries.version} did not start in {self.folder}: {said or 'it said nothing'}",
            hint="free what its log names; data of another major version must be dumped with that version first",
        )


def _answers(process: GuardedProcess, url: str, timeout_s: float) -> bool:
    """Return whether the server lets us in before it ends or *timeout_s* is over."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.is_running():
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return True
    return False
