"""One thread beside an application: takes mirrored marks away, says that the process lives, hears of a new fence."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from time import monotonic, sleep, time
from typing import Protocol, TypeVar

import structlog

from kvmigrate.errors import KVMigrateError
from kvmigrate.model import Fence, MarkedKey, Stage, Version
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import ProcessRow

_log = structlog.get_logger("kvmigrate")

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
_AUTHORITY_MAY_MOVE = frozenset({Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE})


class Payee(Protocol):
    """Notes what the store was given; `LiveTarget` is one."""

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


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
        open_row: Callable[[], ProcessRow],
        open_payee: Callable[[], Payee],
        heard: Callable[[Fence], None] = lambda _: None,
    ) -> None:
        """Open these in the thread, each when it is first needed; tell *heard* of every fence that is read."""
        self._open_store, self._open_row, self._open_payee = open_store, open_row, open_payee
        self.heard = heard
        self.acked = 0
        self.dropped = 0
        self.live_seen = False
        self._stage = Stage.OFF
        self._epoch = 0
        self._beaten: tuple[float, float] | None = None
        self._acks: deque[MarkedKey] = deque()
        self._payments: deque[tuple[str, Version]] = deque()
        self._wake, self._idle = threading.Event(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._store: FencedStore | None = None
        self._row: ProcessRow | None = None
        self._payee: Payee | None = None

    def ack(self, key: str, n: int) -> None:
        """Take the key's mark away soon, if it still has this n."""
        self._add(self._acks, MarkedKey(key, n))

    def paid(self, key: str, version: Version) -> None:
        """Note soon that the store was given this version."""
        self._add(self._payments, (key, version))

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
        while (self._acks or self._payments or not self._idle.is_set()) and monotonic() < until:
            self._wake.set()
            sleep(_GATHER_S)
        return not self._acks and not self._payments and self._idle.is_set()

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
        self._idle.clear()
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
                next_beat = now + BEAT_S
            self._work_off()
            self._idle.set()
            if not self._acks and not self._payments:
                self._wake.wait(max(0.0, min(next_beat, next_poll) - monotonic()))
            # A few milliseconds let more acks come, so that one round trip takes them all.
            sleep(0 if self._stopping else _GATHER_S)
            self._wake.clear()
        self._work_off()
        self._idle.set()
        self._attempt(self._leave, "the end of the process")
        for opened in (self._store, self._row, self._payee):
            if opened is not None:
                with suppress(Exception):
                    opened.close()

    def _work_off(self) -> None:
        while self._acks:
            acks = _taken(self._acks)
            if not self._attempt(partial(self._ack, acks), "marks"):
                self.dropped += len(acks)
        while self._payments:
            payments = _taken(self._payments)
            if not self._attempt(partial(self._pay, payments), "payments"):
                self.dropped += len(payments)

    def _attempt(self, work: Callable[[], None], what: str) -> bool:
        try:
            work()
        except KVMigrateError as exc:
            _log.debug("the companion will try again", what=what, why=str(exc))
        except Exception:  # noqa: BLE001 - nothing of the caller's may fail for this thread
            _log.exception("the companion failed in a way that nobody foresaw", what=what)
        else:
            return True
        return False

    def _fenced(self) -> FencedStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _ack(self, given: Collection[MarkedKey]) -> None:
        store = self._fenced()
        newest: dict[str, int] = {}
        for key, n in given:
            newest[key] = max(n, newest.get(key, n))
        for shard, keys in store.by_shard(list(newest)).items():
            store.ack(shard, [MarkedKey(key, newest[key]) for key in keys])
        self.acked += len(given)

    def _pay(self, given: Collection[tuple[str, Version]]) -> None:
        if self._payee is None:
            self._payee = self._open_payee()
        self._payee.paid(given)

    def _poll(self) -> None:
        for fence in self._fenced().fences().values():
            if fence is not None:
                self._epoch = max(self._epoch, fence.epoch)
                self.heard(fence)

    def _beat(self) -> None:
        if self._row is None:
            self._row = self._open_row()
        begun = monotonic(), time()
        control = self._row.control()
        if control is not None:
            self._stage = control.stage
            # Before the row says so: from then on nobody waits for this process.
            self.live_seen = self.live_seen or control.stage in _AUTHORITY_MAY_MOVE
        self._row.beat(epoch=self._epoch, stage=self._stage, live_seen=self.live_seen)
        self._beaten = begun

    def _leave(self) -> None:
        if self._row is not None:
            self._row.leave()


def _taken(queue: deque[T]) -> list[T]:
    return [queue.popleft() for _ in range(min(len(queue), _MOST_AT_ONCE))]
