"""Both sides of a shop that is moved from stage to stage: an application that writes, a drain, and what must hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import redis

from kvmigrate.cutover.controller import Controller
from kvmigrate.cutover.sides import Limits, Sides
from kvmigrate.cutover.watch import Watch, Watched
from kvmigrate.model import Authority, Fence, Item, Logging, Stage
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_writer import RedisWriter
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.live_base import LIVE_RUN, Control
from kvmigrate.target.live_install import install_live
from kvmigrate.target.live_postgres import PostgresLiveTarget
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.lens import Lens
from tests.application import say_it_writes

LIMITS = Limits(drain_s=10.0, back_s=10.0, before_s=10.0, low=3)
"""Longer than on a machine of one's own."""

AHEAD = (Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE)


class CrashError(Exception):
    """The controller's process is gone."""


def _no_hook(step: str) -> None:
    del step


class Hands:
    """A drain that does all of it by itself, a page at a time."""

    def __init__(self, store: RedisFencedStore, target: PostgresLiveTarget, lens: Lens) -> None:
        self._store, self._target, self._lens = store, target, lens

    def forward(self, among: Sequence[str] | None = None) -> int:
        """Observe, apply, acknowledge."""
        count = 0
        for shard in self._store.shards_with_marks(among):
            marks = self._store.marked(shard, limit=100)
            keys = [mark.key for mark in marks]
            seen = self._store.observe(shard, keys)
            gone = [key for key, item in zip(keys, seen.items, strict=True) if item is None]
            items = [item for item in seen.items if item is not None]
            self._target.remove(gone, seen.version)
            self._target.apply(Batch(items, self._lens.page(items), Label(LIVE_RUN, seen.version)))
            count += self._store.ack(shard, marks)
        return count

    def reverse(self) -> int:
        """Give, note as paid."""
        given = 0
        for key, version, item in self._target.owed(limit=100):
            [shard] = self._store.by_shard([key])
            self._store.reverse(shard, key, version, item)
            given += self._target.paid([(key, version)])
        return given


class Moving:
    """A shop with clients in a Redis and a database of this test's own.

    Attributes:
        truth: Names of the clients by key, as the last accepted writes say; a deleted one is absent.
    """

    def __init__(self, source: str, url: str, lens: Lens, stack: ExitStack) -> None:
        self.source, self.url, self.lens, self._stack = source, url, lens, stack
        self.pg = stack.enter_context(psycopg.connect(url, autocommit=True))
        self.redis = stack.enter_context(redis.Redis.from_url(source))
        with PostgresTarget.connect(url, lens) as target:
            target.install()
            target.ensure_tables()
        install_live(url, lens)
        self.sides = self.both()
        self.truth: dict[str, str] = {}
        self._writer = RedisWriter(source, scope=lens.mapping.name)
        self._tables = LiveWriter(url, lens)
        stack.callback(self._writer.close)
        stack.callback(self._tables.close)
        self.application()

    def application(self) -> None:
        """Say that a process writes, and that it follows the stages."""
        say_it_writes(self.url, self.lens.mapping.name, self.lens.mapping.fingerprint)

    def both(self, **more: Any) -> Sides:
        """Open both sides once more."""
        store = RedisFencedStore(self.source, scope=self.lens.mapping.name)
        row = PostgresControlRow(self.url, self.lens.mapping.name)
        target = PostgresLiveTarget(self.url, self.lens)
        for each in (store, row, target):
            self._stack.callback(each.close)
        given = {"drain": Hands(store, target, self.lens), "limits": LIMITS, "mapping": self.lens.mapping.fingerprint}
        return Sides(store, row, target, **{**given, **more})

    def controller(self, **more: Any) -> Controller:
        """A controller on connections of its own; each of its steps is followed by `check_single`."""
        hook: Callable[[str], None] = more.pop("hook", _no_hook)

        def both_hooks(step: str) -> None:
            self.check_single()
            hook(step)

        return Controller(self.both(hook=both_hooks, **more), who="test")

    def control(self) -> Control:
        """The control row."""
        return self.sides.row.read()

    def stage(self) -> Stage:
        """The stage; no move may be under way."""
        control = self.control()
        assert "" == control.phase
        return control.stage

    def fence(self) -> tuple[int, Authority] | None:
        """Where the store's fence is."""
        [found] = self.sides.store.fences().values()
        return None if found is None else (found.epoch, found.authority)

    def go(self, to: Stage) -> None:
        """Move there, forward or back, stage by stage."""
        while (at := list(Stage).index(self.stage())) != (wanted := list(Stage).index(to)):
            if at < wanted:
                self.controller().advance()
                self.backfilled()
            else:
                self.controller().rollback()

    def backfilled(self) -> None:
        """Say that a backfill came to its end, which in this shop is true as soon as the marks are drained."""
        if self.control().stage is Stage.DUALWRITE and not self.control().is_backfilled:
            self.mirror_now()
            self.drain()
            self.reconciled()

    def mirror_now(self) -> None:
        """Let writers mirror, as a first load does at its end, and mark what was written before."""
        epoch, store = self.control().epoch, self.sides.store
        to = Swap(Fence(epoch, Authority.STORE, Logging.MIRROR))
        store.swap(store.shards(), epochs=[epoch], authorities=[Authority.STORE], to=to)
        if self.truth:
            [shard] = store.shards()
            store.touch(shard, list(self.truth), epoch=epoch)

    def reconciled(self) -> None:
        """Say that both sides were compared."""
        self.sides.row.note({"backfilled_epoch": self.control().backfill_epoch, "owes_all": False})
        self.sides.store.note(self.sides.store.shards(), owes_all=False)

    def write(self, key: str, name: str | None) -> None:
        """Write as the application does, to whoever is open; ``None`` deletes."""
        control = self.control()
        item = None if name is None else Item(key, json.dumps({"name": name}).encode())
        if control.authority is Authority.TABLES:
            self._tables.put(item, key, epoch=control.epoch, deadline_s=60)
        elif item is None:
            self._writer.delete(key, epoch=control.epoch)
        else:
            self._writer.put(item, epoch=control.epoch)
        self.truth.pop(key, None)
        if name is not None:
            self.truth[key] = name

    def drain(self) -> None:
        """Bring whoever follows up to date."""
        hands = self.sides.drain
        is_owing = self.control().authority is Authority.TABLES
        while hands.reverse() if is_owing else hands.forward():
            pass

    def check_single(self) -> None:
        """Never are both sides open."""
        fence, control = self.fence(), self.control()
        both = fence is not None and fence[1] is Authority.STORE and control.authority is Authority.TABLES
        assert not both, (fence, control)

    def check_same(self) -> None:
        """Both sides hold the last accepted writes, and nothing is left to do."""
        self.drain()
        rows = self.pg.execute("SELECT id, name FROM clients").fetchall()
        assert self.truth == {f"client:{key}": name for key, name in rows}
        found = {key.decode(): self.redis.get(key) for key in self.redis.keys("client:*")}
        assert self.truth == {key: json.loads(value or b"")["name"] for key, value in found.items()}

    def watch(self, **more: Any) -> Watched:
        """Poll once, with a watch of its own; each of its steps is followed by `check_single`."""
        return Watch(self.both(hook=self._checked, **more)).poll()

    def _checked(self, step: str) -> None:
        del step
        self.check_single()

    def watch_unchecked(self) -> Watched:
        """Poll once although both sides are open: somebody forced that."""
        return Watch(self.both()).poll()

    def rest(self) -> None:
        """Poll until nothing is wrong and no move is under way."""
        for _ in range(10):
            found = self.watch()
            assert "" == found.alarm
            if not (found.is_mended or found.resumed):
                return
        raise AssertionError(found)


def crash_at(number: int) -> Callable[[str], None]:
    """Return a hook that ends the process after so many steps."""
    count = 0

    def hook(step: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise CrashError(step)

    return hook


@pytest.fixture
def moving(redis_url: str, database: str, shop_lens: Lens) -> Iterator[Moving]:
    """A shop at stage off with nothing in it."""
    with ExitStack() as stack:
        yield Moving(redis_url, database, shop_lens, stack)
