"""A service, a relay and a release manager as programs over servers that fail, and what must hold at the end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import redis

from kvmigrate.config import Settings
from kvmigrate.errors import AmbiguousWriteError, KVMigrateError
from kvmigrate.migration import Migration
from tests.faults.live_books import Written, disagreements, read_books
from tests.faults.live_servers import LiveServers
from tests.faults.live_writer import CLIENTS, ORDERS, Book

MAPPING = Path(__file__).with_name("live_mapping.yaml")
WRITER = Path(__file__).with_name("live_writer.py")
_PROGRAM = "import sys; from kvmigrate.cli.start import start; sys.exit(start())"
_PATIENCE_S = 120.0
_TORN = """
SELECT count(*) FROM orders AS o
WHERE o.lines <> (SELECT count(*) FROM order_lines AS l WHERE l.order_id = o.id)
    OR EXISTS (SELECT FROM order_lines AS l WHERE l.order_id = o.id AND l.writer <> o.writer)
"""


class Ran(Exception):  # noqa: N818 - how a command ended, raised where it should have ended well
    """A command that ended otherwise than it should."""


class LiveStand:
    """All programs of one migration. A context manager: leaving it ends them.

    Attributes:
        torn: How often an order and its lines were seen to come from two writes; polled all the time.
    """

    def __init__(self, folder: Path, *, writers: int = 3, seed: int = 1) -> None:
        """Start servers; nothing is in them yet."""
        self.servers = LiveServers(folder / "servers")
        self._folder, self._count = folder, writers
        self.chance = random.Random(seed)
        self._writers: list[subprocess.Popen[bytes]] = []
        self._relay: subprocess.Popen[bytes] | None = None
        self._seed = seed * 1000
        self.torn = self.polls = 0
        self._ended = threading.Event()
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._books = folder / "books"
        self._books.mkdir()

    def __enter__(self) -> Self:
        self._poller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._poller.join(10)
        for program in [*self._writers, *([self._relay] if self._relay else [])]:
            program.kill()
            program.wait()
        self.servers.close()

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a command to its end and return its report. Raises `Ran` where its code is not 0."""
        with self._program(*arguments, "--json") as program:
            out, said = program.communicate(timeout=_PATIENCE_S)
        if program.returncode:
            raise Ran(f"{' '.join(arguments)}: {program.returncode}: {out.decode()} {said.decode()[-2000:]}")
        report: dict[str, Any] = json.loads(out)
        return report

    def killed_command(self, *arguments: str, after_s: float) -> None:
        """Run a command, and kill it after a while if it still runs."""
        with self._program(*arguments, "--json") as program:
            try:
                program.communicate(timeout=after_s)
            except subprocess.TimeoutExpired:
                program.kill()
                program.communicate()

    def stage(self) -> str:
        """Return the stage."""
        return str(self.command("stage", "show")["stage"])

    def start_writers(self, *, seconds: float = 3600.0) -> None:
        """Start all writers, or those that are not running."""
        self._writers = [program for program in self._writers if program.poll() is None]
        while len(self._writers) < self._count:
            self._seed += 1
            book = self._books / f"{self._seed}.jsonl"
            self._writers.append(
                subprocess.Popen(
                    [sys.executable, str(WRITER), str(book), str(seconds), str(self._seed)],
                    env={**self.servers.environment, "KVMIGRATE_MAPPING": str(MAPPING), "PYTHONPATH": "."},
                    stderr=subprocess.DEVNULL,
                )
            )

    def stop_writers(self) -> None:
        """End all writers in order: what they are about is in their books."""
        for program in self._writers:
            program.send_signal(signal.SIGINT)
        for program in self._writers:
            program.wait(_PATIENCE_S)
        self._writers = []

    def kill_writer(self) -> None:
        """Kill one writer wherever it is, and start another."""
        victim = self.chance.choice(self._writers)
        victim.kill()
        victim.wait()
        self.start_writers()

    def start_relay(self) -> None:
        """Start the relay."""
        with (self._folder / "relay.log").open("ab") as log:
            self._relay = self._popen("relay", stdout=log, stderr=log)

    def kill_relay(self) -> None:
        """Kill the relay wherever it is, and start another."""
        assert self._relay is not None
        self._relay.kill()
        self._relay.wait()
        self.start_relay()

    def stop_relay(self) -> int:
        """Ask the relay to end; return its code."""
        assert self._relay is not None
        self._relay.terminate()
        code = self._relay.wait(_PATIENCE_S)
        self._relay = None
        return code

    @contextmanager
    def own_store(self, name: str) -> Iterator[tuple[Any, Book]]:
        """A store of this process, past the proxies, with a book."""
        settings = Settings(self.servers.redis.url, self.servers.postgres.url, MAPPING)
        file = self._books / f"{name}.jsonl"
        with Migration.open(settings) as migration, file.open("a", encoding="utf-8") as lines:
            yield migration.store, Book(lines, f"{name}-{time.monotonic_ns()}")

    def calm(self) -> None:
        """Write what lets every waiting item in: all clients, each with an address of its own."""
        with self.own_store("calm") as (store, book):
            for kind in ("clients", "client"):
                for number in range(CLIENTS):
                    name, key = book.next(), f"{kind}:{number}"
                    value = None if kind == "clients" else {"name": name, "email": f"own{number}@example.com"}
                    book.begin(key, value)
                    try:
                        result = store.delete(key) if value is None else store.put(key, value)
                        book.end("ok", result.version, mirrored=result.mirrored)
                    except AmbiguousWriteError:
                        book.end("ambiguous")
                    except KVMigrateError as exc:
                        book.end(f"refused: {exc}")

    def writes(self) -> list[Written]:
        """Return everything that anybody wrote, as the books have it."""
        return read_books(sorted(self._books.glob("*.jsonl")))

    def held_by_store(self) -> Mapping[str, Any]:
        """Return what Redis holds of the mapping's keys."""
        with redis.Redis.from_url(self.servers.redis.url) as client:
            keys = [key for key in client.scan_iter(count=1000) if not key.startswith(b"kvm:")]
            return {key.decode(): json.loads(value) for key in keys if (value := client.get(key)) is not None}

    def check(self) -> None:
        """Assert that nothing was lost, invented, torn or brought back: by the books, by both stores, by the proof."""
        self.command("relay", "--once", "--seconds", "60")
        writes, held = self.writes(), self.held_by_store()
        acknowledged = [write for write in writes if write.outcome == "ok"]
        assert len(acknowledged) > ORDERS, "nobody wrote anything"
        assert [] == disagreements(writes, held)
        report = self.command("verify")
        assert (0, 0, 0) == (report["missing"], report["extra"], report["different"]), report
        assert report["compared"] > 0
        assert 0 == self.torn
        assert self.polls > 0

    def _poll(self) -> None:
        while not self._ended.wait(0.05):
            try:
                with psycopg.connect(self.servers.postgres.url, autocommit=True, connect_timeout=2) as connection:
                    while not self._ended.wait(0.02):
                        [(torn,)] = connection.execute(_TORN).fetchall()
                        self.torn += int(torn)
                        self.polls += 1
            except psycopg.Error:
                continue  # not there yet, or being restarted

    @contextmanager
    def _program(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        program = self._popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield program
        finally:
            if program.poll() is None:
                program.kill()
                program.wait()

    def _popen(self, *arguments: str, stdout: Any, stderr: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments, "--mapping", str(MAPPING)],
            stdout=stdout,
            stderr=stderr,
            env=self.servers.environment,
        )
