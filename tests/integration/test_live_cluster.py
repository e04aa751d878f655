"""A live migration of a Redis Cluster: all stages there and back under writers, failovers, slots that move."""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from kvmigrate import Migration
from kvmigrate.config import Settings
from kvmigrate.cutover.controller import Controller
from kvmigrate.dualwrite.store import Store
from kvmigrate.errors import AmbiguousWriteError, CheckFailedError, FenceMissingError, KVMigrateError
from kvmigrate.model import Authority, Stage
from kvmigrate.relaying import Opener
from kvmigrate.stages import Stages, open_sides
from kvmigrate.stores.redis_fence import RedisFencedStore
from tests.faults.live_books import Book, disagreements, read_books
from tests.fix_cluster import SLOTS, Cluster, Node, only_shards, start_node

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
KEYS = (
    *(f"client:{n}" for n in (*range(40), *range(1000, 1100))),
    *(f"client:e{n}" for n in range(12)),
    *(f"counter:{n}" for n in range(4)),
)
"""Whatever is written here. The cluster has a fence in the slots of these alone: moving all 16384 takes a while."""
PATIENCE_S = 90.0
WAIVED = {"processes": "all of them are in this test"}


class Shop:
    """A cluster with items from before, the tables, a relay, and writers that keep books."""

    def __init__(self, cluster: Cluster, database: str, folder: Path, stack: ExitStack) -> None:
        self.cluster, self._folder, self._stack = cluster, folder, stack
        mapping = folder / "mapping.yaml"
        mapping.write_text(MAPPING)
        self.settings = Settings(cluster.url, database, mapping)
        self.migration = stack.enter_context(Migration.open(self.settings))
        self.writing = stack.enter_context(Migration.open(self.settings))
        self.client = stack.enter_context(cluster.client())
        self.store = RedisFencedStore(cluster.url, scope=self.migration.mapping.name)
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

    def rollback(self) -> None:
        """Go one stage back."""
        with self.migration.stages() as moving:
            moving.rollback(None, why="test")

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
    def writers(self, count: int = 2) -> Iterator[None]:
        """Let writers write until the block ends."""
        stop = threading.Event()
        files = [self._folder / f"book-{len(self.books) + n}" for n in range(count)]
        for file in files:
            file.touch()
        self.books += files
        threads = [threading.Thread(target=self._write, args=[n, file, stop]) for n, file in enumerate(files)]
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

    def _write(self, number: int, file: Path, stop: threading.Event) -> None:
        chance = random.Random(number)
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
        """Return what the cluster holds under the keys that writers write."""
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


@pytest.fixture(autouse=True)
def _few_shards(request: pytest.FixtureRequest) -> Iterator[None]:
    if not getattr(request, "param", True):
        yield
        return
    with only_shards(KEYS):
        yield


@pytest.fixture
def shop(cluster: Cluster, database: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop in stage off."""
    with ExitStack() as stack:
        yield Shop(cluster, database, tmp_path, stack)


@pytest.mark.parametrize("_few_shards", [False], indirect=True, ids=["every shard"])
def test_all_stages_there_and_back_under_writers(shop: Shop) -> None:
    """From off to rampdown and back to live: every accepted write is in both stores, whoever was the authority."""
    shop.fill()
    shop.advance(Stage.DUALWRITE)
    assert SLOTS == len(shop.store.shards())
    assert {Authority.STORE} == shop.authorities()
    with shop.writers():
        shop.write_on()
        report = shop.migration.backfill(processes=1)
        assert [] == report.errors
        assert report.first_load
        with shop.relay():
            shop.advance(Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN)
            assert {Authority.TABLES} == shop.authorities()
            shop.write_on()
            shop.rollback()
            assert {Authority.STORE} == shop.authorities()
            shop.write_on()
    with shop.relay():
        shop.check()


@contextmanager
def shop_with_replicas(database: str, folder: Path) -> Iterator[tuple[Shop, Node, Node]]:
    """A shop on a cluster of its own, one of its masters, and the replica of that one."""
    with ExitStack() as stack:
        password = secrets.token_hex(16)
        cluster = Cluster([start_node(stack, password) for _ in range(3)], password)
        replica, master = start_node(stack, password), cluster.masters[1]
        cluster.follow(replica, master)
        yield Shop(cluster, database, folder, stack), master, replica


def begun(shop: Shop) -> None:
    """Come to stage dualwrite, with all in the tables and writers that mirror."""
    shop.fill()
    shop.advance(Stage.DUALWRITE)
    assert [] == shop.migration.backfill(processes=1).errors


def test_a_replica_takes_over_while_the_store_is_open(database: str, tmp_path: Path) -> None:
    """The relay notices, begins a new epoch in every shard, and compares; nothing that was accepted is missing."""
    with shop_with_replicas(database, tmp_path) as (shop, master, replica):
        begun(shop)
        life, before = shop.store.incarnation(), epochs(shop)
        with shop.relay(), shop.writers():
            shop.write_on()
            shop.cluster.fail_over(master, replica, kills=False)
            assert life != shop.store.incarnation()
            shop.write_on()
            until(lambda: len(epochs(shop)) == 1 and min(epochs(shop)) > min(before))
            shop.write_on()
        with shop.relay():
            until(lambda: not shop.stages().show().owes_all)
            shop.check()


def test_a_master_that_dies_while_sealed_gives_the_flip_up(database: str, tmp_path: Path) -> None:
    """The store is open again everywhere, at a new epoch; once all was compared, the same flip goes through."""
    with shop_with_replicas(database, tmp_path) as (shop, master, replica), ExitStack() as stack:
        begun(shop)
        with shop.relay():
            shop.advance(Stage.SHADOW, Stage.LIVE)
            with shop.writers():
                shop.write_on()
        before = max(epochs(shop))
        opener = Opener(shop.settings.source, shop.settings.target, shop.migration.lens)
        sides = open_sides(opener, stack, replicas=0)

        def dies_once(step: str) -> None:
            if step == "seal" and replica not in shop.cluster.masters:
                assert {Authority.SEALED} == shop.authorities()
                shop.cluster.fail_over(master, replica, kills=True)

        sides.hook = dies_once
        with pytest.raises(CheckFailedError, match="given up"):
            Controller(sides, who="test").advance(Stage.RAMPDOWN, why="test", overrides=WAIVED)

        assert {Authority.STORE} == shop.authorities()
        assert before < min(epochs(shop))
        with shop.relay():
            shop.advance(Stage.RAMPDOWN)
            assert {Authority.TABLES} == shop.authorities()
            with shop.writers():
                shop.write_on()
            shop.rollback()
            shop.check()


def test_a_master_that_was_emptied_gets_its_fences_back(shop: Shop) -> None:
    """Writes of its slots wait for the relay; the tables follow what is left, and what is written then."""
    begun(shop)
    with shop.relay(), shop.writers():
        shop.write_on()
        before, keys = epochs(shop), [f"client:e{n}" for n in range(12)]
        shop.cluster.masters[0].client.flushall()
        for key in keys:
            until(lambda key=key: shop.writing.store.put(key, {"name": key}), fails=FenceMissingError)  # type: ignore[misc]  # bound now
        until(lambda: len(epochs(shop)) == 1 and min(epochs(shop)) > max(before))
    with shop.relay():
        until(lambda: not shop.stages().show().owes_all)
        until(lambda: not shop.store.marks())
        until(shop.is_same)
        assert {key: {"name": key} for key in keys} == {key: shop.writing.store.get(key) for key in keys}


def test_slots_move_under_writers(database: str, own_cluster: Cluster, tmp_path: Path) -> None:
    """Fences, clocks and marks go with them; no write is refused for good, and nothing is compared anew."""
    with ExitStack() as stack:
        shop = Shop(own_cluster, database, tmp_path, stack)
        begun(shop)
        life, before = shop.store.incarnation(), epochs(shop)
        source, target = own_cluster.masters[0], own_cluster.masters[2]
        slots = [slot for n in range(40) if (slot := key_slot(b"client:%d" % n)) < SLOTS // 3]
        with shop.relay(), shop.writers():
            shop.write_on()
            for slot in slots:
                own_cluster.begin_move(slot, source, target)
                time.sleep(0.05)
                own_cluster.move_keys(slot, source, target)
                time.sleep(0.05)
                own_cluster.end_move(slot, target)
            own_cluster.wait_until_agreed()
            shop.write_on()
        assert life == shop.store.incarnation()
        assert before == epochs(shop)
        with shop.relay():
            shop.check()
        assert [] == [write for write in read_books(shop.books) if write.outcome != "ok"]


def epochs(shop: Shop) -> set[int]:
    """Return the epochs of all shards."""
    return {0 if fence is None else fence.epoch for fence in shop.store.fences().values()}
