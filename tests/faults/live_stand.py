"""A service, a relay and a release manager as programs over servers that fail, and what must hold at the end."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import psycopg
import redis

from kvmigrate.cli.main import run
from kvmigrate.config import Settings
from kvmigrate.dualwrite.store import Store
from kvmigrate.migration import Migration
from tests.faults.live_books import Book, Written, disagreements, read_books
from tests.faults.live_gate import Gate
from tests.faults.live_programs import PATIENCE_S, REPOSITORY, Program, Programs
from tests.faults.live_rows import TORN, read_rows, rows_against_books
from tests.faults.live_servers import LiveServers
from tests.faults.live_sight import LiveSight
from tests.faults.live_work import CLIENTS, Wanted, own_client
from tests.faults.live_writer import write_one

MAPPING = Path(__file__).with_name("live_mapping.yaml")
NODE_WRITER = Path(__file__).with_name("live_writer.mjs")
_LIBRARY = REPOSITORY / "kvmigrate" / "stores" / "kvmigrate.lua"
_POLL_S = 0.02
_BLIND = "SELECT count(*) FROM kvmigrate.process WHERE NOT live_seen"


class Ran(Exception):  # noqa: N818 - how a command ended, raised where it should have ended well
    """A command that ended otherwise than it should.

    Attributes:
        report: What it printed, an object.
    """

    def __init__(self, arguments: Sequence[str], code: int, report: dict[str, Any], said: str) -> None:
        super().__init__(f"{' '.join(arguments)}: {code}: {report} {said[-2000:]}")
        self.code, self.report = code, report


class LiveStand(LiveSight):
    """All programs of one migration over servers that others may use afterwards. A context manager: it ends them.

    Attributes:
        books: A folder, for each writer a file.

        torn: How often an order and its lines were seen to come from two writes; polled all the time.
    """

    def __init__(self, servers: LiveServers, programs: Programs, folder: Path, *, writers: int, seed: int) -> None:
        """Nothing runs yet; *writers* is how many `start_writers` keeps running, in plain Python."""
        super().__init__(servers)
        self._programs, self.folder = programs, folder
        self._count, self.chance, self._seed = writers, random.Random(seed), seed * 1000
        self.writers: list[Program] = []
        self._book_of: dict[Program, Path] = {}
        self._relay: Program | None = None
        self.books = folder / "books"
        self.books.mkdir()
        self.gate = Gate(self.books)
        self.torn = self.polls = 0
        self._ended = threading.Event()
        self._poller = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._poller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._poller.join(10)
        for program in [*self.writers, *([self._relay] if self._relay else [])]:
            program.send(signal.SIGCONT)
            program.kill()

    # What a release manager types.

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a command to its end and return its report. Raises `Ran` where its code is not 0."""
        out, said = io.StringIO(), io.StringIO()
        environment = {**self.servers.environment, "KVMIGRATE_MAPPING": str(MAPPING)}
        with mock.patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(said):
            code = run([*arguments, "--json"])
        report: dict[str, Any] = json.loads(out.getvalue() or "{}")
        if code:
            raise Ran(arguments, code, report, said.getvalue())
        return report

    def refused(self, *arguments: str) -> Ran:
        """Run a command that has to end otherwise than well; return how."""
        try:
            report = self.run(*arguments)
        except Ran as exc:
            return exc
        raise AssertionError(report)

    def move(self, way: str, to: str, *more: str, patience_s: float = 30.0) -> dict[str, Any]:
        """Move the stage, again and again for a while where something is in the way; return the report."""
        end = time.monotonic() + patience_s
        if way == "advance" and not self.writers and "--override" not in more:
            more = (*more, "--override", "processes", "--why", "nobody writes now")
        while True:
            try:
                return self.run("stage", way, "--to", to, "--yes", *more)
            except Ran:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.5)

    def killed_controller(self, way: str, to: str, *, at: int = 0, after_s: float | None = None) -> Program:
        """Run a controller that is killed after step *at*, or after a while; return it when it has ended."""
        program = self._start("controller", way, to, str(at))
        if after_s is not None:
            time.sleep(after_s)
            program.kill()
        program.wait()
        return program

    def forget_controller(self) -> None:
        """Let the time pass after which a controller that was killed is not waited for any more."""
        with self.servers.connection() as connection:
            connection.execute("UPDATE kvmigrate.lease SET until = now() WHERE name LIKE '%controller'")

    # Programs.

    def start_writers(self) -> None:
        """Start as many writers as there should be."""
        self.writers = [program for program in self.writers if program.code is None]
        while len(self.writers) < self._count:
            self.start_writer("writer")

    def start_writer(self, kind: str) -> Program:
        """Start one writer of a kind, with a book of its own."""
        self._seed += 1
        return self._is_writer(self._start(kind, str(self.books / f"{self._seed}.jsonl"), str(self._seed)))

    def start_node_writer(self) -> Program | None:
        """Start a writer in Node; ``None`` where there is no Node."""
        program = shutil.which("node")
        if program is None:
            return None
        self._seed += 1
        book = str(self.books / f"{self._seed}.jsonl")
        arguments = [program, str(NODE_WRITER), book, str(self._seed), self.servers.source, "live", str(_LIBRARY)]
        return self._is_writer(self._start("program", *arguments))

    def book_of(self, writer: Program) -> Path:
        """Return the book of a writer."""
        return self._book_of[writer]

    def _is_writer(self, program: Program) -> Program:
        self.writers.append(program)
        book = self._book_of[program] = self.books / f"{self._seed}.jsonl"
        # A book may be read before its writer, which takes seconds to start on a busy machine, opens it.
        book.touch()
        return program

    def kill_writer(self) -> None:
        """Kill one writer wherever it is, and start another."""
        self.chance.choice(self.writers).kill()
        self.start_writers()

    def stop_writers(self) -> None:
        """End all writers between two writes."""
        with self.gate.closed():
            for program in self.writers:
                program.kill()
        self.writers = []

    def start_relay(self) -> None:
        """Start the relay."""
        self._relay = self._start("kvmigrate", "relay")

    def kill_relay(self) -> None:
        """Kill the relay wherever it is, and start another."""
        assert self._relay is not None
        self._relay.kill()
        self.start_relay()

    def stop_relay(self) -> int:
        """Ask the relay to end; return its code."""
        assert self._relay is not None
        relay, self._relay = self._relay, None
        return relay.stop()

    # What both sides hold.

    @contextmanager
    def own_store(self, name: str, *, proxied: bool = False) -> Iterator[tuple[Store, Book]]:
        """A store of this process with a book, past the proxies unless *proxied*."""
        servers = self.servers
        sides = (servers.source, servers.target) if proxied else (servers.redis.url, servers.database)
        file = self.books / f"{name}.jsonl"
        with Migration.open(Settings(*sides, MAPPING)) as migration, file.open("a", encoding="utf-8") as lines:
            yield migration.store, Book(lines, f"{name}-{time.monotonic_ns()}")

    def write(self, *wanted: Wanted, proxied: bool = False) -> None:
        """Write as the application does, noted in a book."""
        with self.own_store("test", proxied=proxied) as (store, book):
            for each in wanted:
                book.next()
                write_one(store, book, each)

    def seed(self, items: Mapping[str, Any]) -> None:
        """Let the store hold items from before anybody migrated; the books know them."""
        begun = time.monotonic()
        with redis.Redis.from_url(self.servers.redis.url) as client, client.pipeline() as pipeline:
            for key, value in items.items():
                pipeline.set(key, json.dumps(value))
            pipeline.execute()
        ended = time.monotonic()
        with (self.books / "seed.jsonl").open("a", encoding="utf-8") as lines:
            book = Book(lines, "seed")
            for key, value in items.items():
                book.note(Written(f"seed {key}", key, value, "ok", None, begun, ended))

    def calm(self) -> None:
        """Let every waiting item in, and keep writers from making others wait."""
        self.gate.keep_plain(plain=True)
        clients = [own_client(number, "calm") for number in range(CLIENTS)]
        with self.gate.closed():
            self.write(*(Wanted(f"clients:{number}", None) for number in range(CLIENTS)), *clients)
        self.run("relay", "--once", "--seconds", "60")

    def writes(self) -> list[Written]:
        """Return everything that anybody wrote, as the books have it."""
        return read_books(sorted(self.books.glob("*.jsonl")))

    def written_on(self, more: int = 30) -> None:
        """Wait until the writers were told of so many more writes that they are done."""
        begun = time.monotonic()

        def count() -> int:
            return sum(write.is_acknowledged and write.begun > begun for write in self.writes())

        self.wait_for(lambda: count() >= more, f"{more} writes are acknowledged")

    def wait_for(self, is_so: Callable[[], bool], what: str, *, seconds: float = PATIENCE_S) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, f"not within {seconds:g} s: {what}; {self.place()} {self.fence()}"
            time.sleep(_POLL_S)

    def all_saw_live(self) -> None:
        """Wait until every process that writes or relays has seen that the authority may move."""

        def saw() -> bool:
            with self.servers.connection() as connection:
                return connection.execute(_BLIND).fetchall() == [(0,)]

        self.wait_for(saw, "every process saw the stage live")

    # What must hold.

    def check(
        self, *, counts: Callable[[Written], bool] = lambda _: True, before: Mapping[str, Any] | None = None
    ) -> None:
        """Assert that nothing was lost, invented, torn or brought back: by the books, by the rows, by the proof.

        Args:
            counts: Which writes of the books count: a server lost the others.

            before: What was there before them; nothing by default.
        """
        with self.gate.closed():
            self.wait_for(self.owes_nothing, "nothing is owed")
            self.run("relay", "--once", "--seconds", "60")
            writes = [Written("before", key, value, "ok", ended=0.0) for key, value in (before or {}).items()]
            writes += filter(counts, self.writes())
            assert sum(write.is_acknowledged for write in writes) > CLIENTS, "nobody wrote anything"
            wrong = disagreements(writes, self.held_by_store())
            assert [] == wrong, wrong
            self.check_rows(writes)
            report = self.run("verify")
        assert (0, 0, 0) == (report["missing"], report["extra"], report["different"]), report
        assert report["compared"] > 0
        self.check_torn()

    def check_rows(self, writes: Sequence[Written]) -> None:
        """Assert that the rows are what these books allow."""
        with self.servers.connection() as connection:
            wrong = rows_against_books(writes, read_rows(connection))
        assert [] == wrong, wrong

    def check_torn(self) -> None:
        """Assert that nobody ever saw half an order."""
        assert 0 == self.torn
        assert self.polls > 0

    def check_single(self) -> None:
        """Assert that not both sides are open: the fence is read before and after the control row."""
        first, place, second = self.fence(), self.place(), self.fence()
        if first == second:
            assert not (first.get("a") == "K" and place.authority == "T"), (first, place)

    def _start(self, kind: str, *arguments: str) -> Program:
        environment = {**self.servers.environment, "KVMIGRATE_MAPPING": str(MAPPING)}
        log = self.folder / f"{kind.split(maxsplit=1)[0]}.log"
        return self._programs.start(kind, *arguments, environment=environment, log=log)

    def _poll(self) -> None:
        while not self._ended.wait(0.05):
            try:
                with psycopg.connect(self.servers.database, autocommit=True, connect_timeout=2) as connection:
                    while not self._ended.wait(0.05):
                        [(torn,)] = connection.execute(TORN).fetchall()
                        self.torn += int(torn)
                        self.polls += 1
            except psycopg.Error:
                continue  # not there yet, or being restarted
