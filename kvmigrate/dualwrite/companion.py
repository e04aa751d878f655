"""One thread beside an application: acks, mirrors back, says that the process lives, hears of a new fence."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from random import SystemRandom
from time import monotonic, sleep, time
from typing import NamedTuple, Protocol, TypeVar

from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.unforeseen import told
from kvmigrate.errors import KVMigrateError
from kvmigrate.log import get_log
from kvmigrate.model import Fence, Item, MarkedKey, Stage, Version
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import ProcessRow

_CHANCE = SystemRandom()
"""Not the program's own, whose numbers it may want to have again."""


_log = get_log()

T = TypeVar("T")

BEAT_S = 5.0
"""How often the process says that it lives."""

POLL_S = 0.5
"""How often the store's fence is looked at, so that reads follow a flip that no write of this process met."""

HOLD_S = 3600.0
"""A process that was heard of more recently than this is waited for before the authority moves."""

_GATHER_S = 0.004
_MOST_WAITING = 100_000
_MOST_AT_ONCE = 1_000
_SHARDS_POLLED = 4
_AUTHORITY_MAY_MOVE = frozenset({Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE})


class AdapterRow(ProcessRow, Protocol):
    """The row of a process that writes, and payments on its connection."""

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        ...

    def used(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add uses of commands, by command and entity, to those that were told before."""
        ...


class _Reversal(NamedTuple):
    """A write of the tables that the store is to get now."""

    key: str
    version: Version
    item: Item | None
    done: Future[bool]


class Companion:
    """A daemon thread of this process, begun at the first use. It never raises into the caller.

    Whatever it drops stays marked (or owed) and is the relay's; `dropped` counts it.

    Attributes:
        acked: Marks that it took away, or that newer writes had replaced.

        dropped: Acks and payments that it gave up.

        live_seen: This process knows that the authority may move.
    """

    def __init__(
        self,
        open_store: Callable[[], FencedStore],
        open_row: Callable[[], AdapterRow],
        heard: Callable[[Fence], None] = lambda _: None,
        use: CommandUse | None = None,
    ) -> None:
        """Open these in the thread, each when it is first needed; tell *heard* of every fence that is read.

        What is counted in *use* is told with each heartbeat.
        """
        self._use = use
        self._open_store, self._open_row = open_store, open_row
        self.heard = heard
        self.acked = 0
        self.dropped = 0
        self.live_seen = False
        self._stage = Stage.OFF
        self._epoch = 0
        self._beaten: tuple[float, float] | None = None
        self._acks: deque[MarkedKey] = deque()
        self._payments: deque[tuple[str, Version]] = deque()
        self._reversals: deque[_Reversal] = deque()
        self._wake, self._urgent, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._store: FencedStore | None = None
        self._row: AdapterRow | None = None

    def ack(self, key: str, n: int) -> None:
        """Take the key's mark away soon, if it still has this n."""
        self._add(self._acks, MarkedKey(key, n))

    def reverse(self, key: str, version: Version, item: Item | None) -> Future[bool]:
        """Write at once into the store what the tables accepted, and note that it was paid.

        Returns:
            What ends when the store has it, or with why it has not. Cancelled in time, nothing is written.
        """
        wanted = _Reversal(key, version, item, Future())
        self._reversals.append(wanted)
        self._wake.set()
        self._urgent.set()
        return wanted.done

    def may_write_unfenced(self) -> bool:
        """Return whether the authority cannot have moved without this process being waited for."""
        beaten = self._beaten
        if self.live_seen or beaten is None:
            return False
        # Two clocks: one stands still while a machine sleeps, the other may be set back.
        return monotonic() - beaten[0] < HOLD_S and 0 <= time() - beaten[1] < HOLD_S

    def start(self) -> None:
        """Begin, where it has not begun."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stopping:
                    thread = threading.Thread(target=self._run, name="kvmigrate-companion", daemon=True)
                    thread.start()
                    self._thread = thread

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was given so far is done or dropped; return whether that was in time."""
        if self._thread is None:
            return True
        until = monotonic() + timeout_s
        while (is_busy := self._is_busy()) and monotonic() < until:
            self._wake.set()
            sleep(_GATHER_S)
        return not is_busy

    def close(self, timeout_s: float = 5.0) -> None:
        """Do what is left, take the process's row away, end the thread. Safe to call twice."""
        with self._starting:
            self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _add(self, queue: deque[T], given: T) -> None:
        if len(queue) >= _MOST_WAITING:
            self.dropped += 1
            return
        queue.append(given)
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        next_beat = next_poll = 0.0
        while not self._stopping:
            now = monotonic()
            if now >= next_poll:
                self._attempt(self._poll, "the fence")
                next_poll = now + POLL_S
            if now >= next_beat:
                self._attempt(self._beat, "the heartbeat")
                self._attempt(self._tell_use, "the use of commands")
                next_beat = now + BEAT_S
            self._work_off()
            self._wake.wait(max(0.0, min(next_beat, next_poll) - monotonic()))
            # A few milliseconds let more acks come, so that one round trip takes them all; a caller waits for none.
            if not self._stopping:
                self._urgent.wait(_GATHER_S)
            self._wake.clear()
            self._urgent.clear()
        self._work_off()
        if self._beaten is not None:
            self._attempt(self._tell_use, "the use of commands")
            self._attempt(self._rows().leave, "the end of the process")
        for opened in (self._store, self._row):
            if opened is not None:
                with suppress(Exception):
                    opened.close()

    def _is_busy(self) -> bool:
        return bool(self._reversals or self._acks or self._payments) or not self._idle.is_set()

    def _work_off(self) -> None:
        # Before anything is taken from a queue: `flush` must not see neither the one nor the other.
        self._idle.clear()
        while self._reversals:
            self._reverse(self._reversals.popleft())
        while self._acks:
            acks = _taken(self._acks)
            if not self._attempt(partial(self._ack, acks), "marks"):
                self.dropped += len(acks)
        while self._payments:
            payments = _taken(self._payments)
            if not self._attempt(partial(self._pay, payments), "payments"):
                self.dropped += len(payments)
        self._idle.set()

    def _attempt(self, work: Callable[[], None], what: str) -> bool:
        try:
            work()
        except KVMigrateError as exc:
            _log.debug("the companion will try again", what=what, why=str(exc))
        except Exception as exc:  # noqa: BLE001 - nothing of the caller's may fail for this thread
            _log.error("the companion failed in a way that nobody foresaw", what=what, **told(exc))
        else:
            return True
        return False

    def _fenced(self) -> FencedStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _rows(self) -> AdapterRow:
        if self._row is None:
            self._row = self._open_row()
        return self._row

    def _ack(self, given: Collection[MarkedKey]) -> None:
        store = self._fenced()
        newest: dict[str, int] = {}
        for key, n in given:
            newest[key] = max(n, newest.get(key, n))
        groups = store.by_shard(list(newest))
        store.ack_all({shard: [MarkedKey(key, newest[key]) for key in keys] for shard, keys in groups.items()})
        self.acked += len(given)

    def _reverse(self, wanted: _Reversal) -> None:
        if not wanted.done.set_running_or_notify_cancel():
            return
        try:
            store = self._fenced()
            [shard] = store.by_shard([wanted.key])
            store.reverse(shard, wanted.key, wanted.version, wanted.item)
        except Exception as exc:  # noqa: BLE001 - handed to whoever waits for it
            wanted.done.set_exception(exc)
        else:
            self._payments.append((wanted.key, wanted.version))
            wanted.done.set_result(True)

    def _pay(self, given: Collection[tuple[str, Version]]) -> None:
        self._rows().paid(given)

    def _poll(self) -> None:
        store = self._fenced()
        shards = store.shards()
        # A flip moves all shards: a few of many are enough to hear of it.
        some = _CHANCE.sample(shards, min(len(shards), _SHARDS_POLLED))
        for fence in store.fences(some).values():
            if fence is not None:
                self._epoch = max(self._epoch, fence.epoch)
                self.heard(fence)

    def _beat(self) -> None:
        row, begun = self._rows(), (monotonic(), time())
        control = row.control()
        if control is not None:
            self._stage = control.stage
            # Before the row says so: from then on nobody waits for this process.
            self.live_seen = self.live_seen or control.stage in _AUTHORITY_MAY_MOVE
        row.beat(epoch=self._epoch, stage=self._stage, live_seen=self.live_seen)
        self._beaten = begun

    def _tell_use(self) -> None:
        counts = {} if self._use is None else self._use.take()
        if not counts or self._use is None:
            return
        try:
            self._rows().used(counts)
        except BaseException:
            self._use.give_back(counts)
            raise


def _taken(queue: deque[T]) -> list[T]:
    return [queue.popleft() for _ in range(min(len(queue), _MOST_AT_ONCE))]
