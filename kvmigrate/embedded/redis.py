"""A Redis server: the one that the environment names, or one of our own."""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.process import GuardedProcess, free_port, last_lines
from kvmigrate.errors import ServerError

URL_VARIABLES = ("KVM_REDIS_URL", "KVMIGRATE_TEST_REDIS")
"""Environment variables that name a running server, in the order in which they are asked."""

_PORT_TRIES = 5


class RedisServer:
    """A Redis server. A context manager: leaving it closes the server.

    Attributes:
        url: Of logical database 0; of an owned server it holds the password.

        owned: Whether this object started the server and will stop it. What is in
            a server that is not owned belongs to somebody else.
    """

    def __init__(self, url: str, process: GuardedProcess | None = None) -> None:
        """Use `find`, `start` or `at` instead."""
        self.url = url
        self.owned = process is not None
        self._process = process

    @classmethod
    def find(cls) -> Self | None:
        """Return the server that the environment names, else start one, else ``None`` if no program is there.

        Raises:
            ServerError: a program is there and did not start.
        """
        for variable in URL_VARIABLES:
            if url := os.environ.get(variable):
                return cls.at(url)
        return cls.start() if find_redis() else None

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the running server behind *url*; `close` leaves it running."""
        return cls(url)

    @classmethod
    def start(
        cls, data_dir: Path | None = None, *, settings: Mapping[str, str] | None = None, timeout_s: float = 20.0
    ) -> Self:
        """Start a server on a free port of 127.0.0.1 with a generated password.

        It stops with `close`, when this program ends, and when this program is killed.

        Args:
            data_dir: Where it keeps its append-only file; started again there, it has
                the same data. Without it nothing is kept.

            settings: As in ``redis.conf``.

            timeout_s: How long the server may take to answer, loading its data included.

        Raises:
            ServerError: no Redis was found, or it did not start; nothing is left running.
        """
        program = find_redis()
        if program is None:
            raise ServerError(
                "no Redis server was found on this machine",
                hint="install redis-server, or name a running one with KVM_REDIS_URL",
            )
        folder = (data_dir or Path(tempfile.mkdtemp(prefix="kvmigrate-redis-"))).absolute()
        junk = None if data_dir else folder
        kept = {"appendonly": "no" if junk else "yes", **(settings or {})}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            process, url = _launch(program, folder, kept, junk=junk, timeout_s=timeout_s)
        except BaseException as exc:
            if junk:
                shutil.rmtree(junk, ignore_errors=True)
            if isinstance(exc, OSError):
                raise ServerError(
                    f"cannot use {folder} for a Redis server: {exc}",
                    hint="choose another folder, or name a running server with KVM_REDIS_URL",
                ) from exc
            raise
        return cls(url, process)

    @property
    def version(self) -> str:
        """The server's version, such as ``7.0.15``."""
        with redis.Redis.from_url(self.url) as client:
            return str(client.info("server")["redis_version"])

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


def _launch(
    program: Path, folder: Path, settings: Mapping[str, str], *, junk: Path | None, timeout_s: float
) -> tuple[GuardedProcess, str]:
    """Start the server, wait until it answers, return its URL; a port that was taken meanwhile is replaced."""
    log = folder / "server.log"
    said = ""
    for _ in range(_PORT_TRIES):
        port, password = free_port(), secrets.token_hex(24)
        config = _write_config(folder, {"port": str(port), "requirepass": password, **settings})
        log.write_text("")
        process = GuardedProcess([str(program), str(config)], log=log, stop=signal.SIGTERM, junk=junk)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        if _answers(process, url, timeout_s):
            return process, url
        process.stop()
        said = last_lines(log)
        if "bind" not in said:
            break
    raise ServerError(
        f"Redis ({program}) did not start in {folder}: {said or 'it said nothing'}",
        hint="free what its log names, or name a running server with KVM_REDIS_URL",
    )


def _write_config(folder: Path, settings: Mapping[str, str]) -> Path:
    """Write the configuration: in a file the password is not seen in the list of processes."""
    lines = {"bind": "127.0.0.1", "dir": f'"{folder}"', "save": '""', "daemonize": "no", **settings}
    config = folder / "kvmigrate-redis.conf"
    config.touch(mode=0o600)
    config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    return config


def _answers(process: GuardedProcess, url: str, timeout_s: float) -> bool:
    """Return whether the server lets us in before it ends or *timeout_s* is over."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.is_running():
        try:
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                client.ping()
        except redis.RedisError:  # not listening yet, or loading its data
            time.sleep(0.02)
        else:
            return True
    return False
