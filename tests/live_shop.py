"""A shop whose stages are moved while writers write, over any Redis: a cluster, or the master that Sentinel names."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kvmigrate import Migration
from kvmigrate.config import Settings
from kvmigrate.dualwrite.store import Store
from kvmigrate.errors import AmbiguousWriteError, CheckFailedError, KVMigrateError
from kvmigrate.model import Authority, Stage
from kvmigrate.stages import Stages
from kvmigrate.stores.redis_fence import RedisFencedStore
from tests.faults.live_books import Book, disagreements, read_books

MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text, required: true}
    primary_key: [id]
  counter:
    keys: ["counter:{id}"]
    table: counters
    columns:
      id:   {key: id, type: text}
      hits: {path: hits, type: bigint, required: true}
    primary_key: [id]
"""
PATIENCE_S = 90.0
WAIVED = {"processes": "all of them are in this test", "commands": "transactions end here"}

Writer = Callable[[Path, threading.Event], None]
"""Writes until it is told to stop, and keeps a book in that file."""


class Shop:
    """A Redis with items from before, the tables, a relay, and writers that keep books.

    Attributes:
        client: Of the Redis, past kvmigrate; it is left open.
    """

    def __init__(
        self, source: str, client: Any, database: str, folder: Path, stack: ExitStack, *, replicas: int = 0
    ) -> None:
        self.client, self._folder, self._stack = client, folder, stack
        mapping = folder / "mapping.yaml"
        mapping.write_text(MAPPING)
        self.settings = Settings(source, database, mapping, wait_replicas=replicas)
        self.migration = stack.enter_context(Migration.open(self.settings))
        self.writing = stack.enter_context(Migration.open(self.settings))
        self.store = RedisFencedStore(source, scope=self.migration.mapping.name)
        stack.callback(self.store.close)
        self.books: list[Path] = []

    def fill(self) -> None:
        """Write items as the application did before it knew of any migration."""
        for n in range(100):
            self.client.set(f"client:{n + 1000}", json.dumps({"name": f"c{n}"}))

    def stages(self) -> Stages:
        """What moves the stages, on connections of its own."""
        return self._stack.enter_context(self.migration.stages())

    def advance(self, *stages: Stage) -> None:
        """Go forward; a gate that wants something which comes by itself is asked again."""
        for stage in stages:
            until(lambda stage=stage: self._advanced(stage), fails=CheckFailedError)  # type: ignore[misc]  # bound now

    def _advanced(self, stage: Stage) -> bool:
        with self.migration.stages() as moving:
            return moving.advance(stage, why="test", overrides=WAIVED).after is stage

    def rollback(self, to: Stage) -> None:
        """Go back; a relay that is at work on both sides is let do it first."""
        until(lambda: self._rolled_back(to), fails=CheckFailedError)

    def _rolled_back(self, to: Stage) -> bool:
        with self.migration.stages() as moving:
            return moving.rollback(to, why="test").after is to

    @contextmanager
    def relay(self) -> Iterator[None]:
        """Run a relay until the block ends."""
        stop = threading.Event()
        relay = self.migration.relay(stop)
        thread = threading.Thread(target=relay.run, args=[lambda _: None])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def writers(self, kinds: Sequence[Writer] | None = None) -> Iterator[None]:
        """Let writers write until the block ends: by default two, each with the one store."""
        kinds = [self.write_through_store] * 2 if kinds is None else kinds
        stop = threading.Event()
        files = [self._folder / f"book-{len(self.books) + n}" for n in range(len(kinds))]
        for file in files:
            file.touch()
        self.books += files
        threads = [threading.Thread(target=kind, args=[file, stop]) for kind, file in zip(kinds, files, strict=True)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def written(self) -> int:
        """How many writes were accepted so far."""
        return sum(write.outcome == "ok" for write in read_books(self.books))

    def write_on(self, more: int = 30) -> None:
        """Wait until so many more writes were accepted."""
        before = self.written()
        until(lambda: self.written() >= before + more)

    def write_on_each(self, more: int = 5) -> None:
        """Wait until each of the writers of now had so many more writes accepted."""
        before = {file: self._accepted(file) for file in self.books}
        for file in self.books:
            until(lambda file=file: self._accepted(file) >= before[file] + more)  # type: ignore[misc]  # bound now

    def _accepted(self, file: Path) -> int:
        return sum(write.is_acknowledged for write in read_books([file]))

    def write_through_store(self, file: Path, stop: threading.Event) -> None:
        """Write through `Migration.store`."""
        chance = random.Random(file.name)
        with file.open("a", encoding="utf-8") as opened:
            book = Book(opened, file.name)
            while not stop.is_set():
                try:
                    write_one(self.writing.store, book, chance)
                except AmbiguousWriteError:
                    book.end("ambiguous")
                except KVMigrateError as exc:
                    book.end(f"refused: {type(exc).__name__}: {exc}")
                    time.sleep(0.02)

    def held(self) -> dict[str, Any]:
        """Return what the Redis holds under the keys that writers write."""
        keys = {write.key for write in read_books(self.books)}
        found = {key: self.client.get(key) for key in keys}
        return {key: json.loads(value) for key, value in found.items() if value is not None}

    def check(self) -> None:
        """Both sides hold the last accepted writes."""
        until(lambda: not self.store.marks())
        assert [] == disagreements(read_books(self.books), self.held())
        until(self.is_same)

    def is_same(self) -> bool:
        """Whether the tables have every item; what they have is the same."""
        report = self.migration.verify(processes=1)
        assert (0, 0) == (report.extra, report.different), report
        return report.missing == 0

    def authorities(self) -> set[Authority | None]:
        """At which authorities shards are; ``None`` for one without a fence."""
        return {fence and fence.authority for fence in self.store.fences().values()}


def write_one(store: Store, book: Book, chance: random.Random) -> None:
    """Do one write of a few keys that all writers share, and note what became of it."""
    name, key = book.next(), f"client:{chance.randrange(40)}"
    if chance.random() < 0.2:
        key = f"counter:{chance.randrange(4)}"
        book.begin(key, "+1")
        result = store.update(key, lambda found: {"hits": (found or {"hits": 0})["hits"] + 1})
    elif chance.random() < 0.2:
        book.begin(key, None)
        result = store.delete(key)
    else:
        book.begin(key, {"name": name})
        result = store.put(key, {"name": name})
    book.end("ok", result.version, mirrored=result.mirrored)


def until(come: Callable[[], object], *, fails: type[Exception] | None = None) -> None:
    """Wait for a moment that must come; what it *fails* with meanwhile is no end."""
    end = time.monotonic() + PATIENCE_S
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            if come():
                return
        except Exception as exc:
            if fails is None or not isinstance(exc, fails):
                raise
            last = exc
        time.sleep(0.1)
    raise AssertionError(f"it does not come: {last}")
