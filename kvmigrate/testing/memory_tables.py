"""Tables in memory: control row, ledger and items; no rows. For any number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import RLock
from typing import Any, NamedTuple

from kvmigrate.errors import DeadlineError, FenceError, WriteRefusedError
from kvmigrate.model import Authority, Item, Refusal, RowSet, Stage, Version
from kvmigrate.target.live_base import Control
from kvmigrate.transform.lens import Lens


class Alive(NamedTuple):
    """What a process last said of itself."""

    epoch: int
    stage: Stage
    live_seen: bool


@dataclass(slots=True)
class _Entry:
    version: Version
    item: Item | None
    owed: bool = False


class MemoryTables:
    """What the tables' writers do, a control row, and the row of one process. Safe for threads.

    Attributes:
        before: Called with the name of each operation and its deadline before it happens; what it raises is raised.

        now_ms: The database's clock, in milliseconds since 1970.

        alive: What the process's row says; ``None`` where there is none.

        commands: How often each command was used that works on the store alone, by command and entity.
    """

    def __init__(self, lens: Lens) -> None:
        """Start empty, in stage off; *lens* says what the tables refuse."""
        self.before: Callable[[str, float], None] = lambda _operation, _deadline_s: None
        self.now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self.alive: Alive | None = None
        self.commands: dict[tuple[str, str], int] = {}
        self._lens = lens
        self._entries: dict[str, _Entry] = {}
        self._control: Control | None = None
        self._lock = RLock()

    def install(self) -> None:
        """Make the control row, where it is missing."""
        with self._lock:
            if self._control is None:
                self._control = Control(
                    scope=1,
                    epoch=0,
                    authority=Authority.STORE,
                    stage=Stage.OFF,
                    phase="",
                    backfill_epoch=0,
                    backfilled_epoch=None,
                    owes_all=False,
                    store_incarnation="",
                    target_incarnation="",
                    safe_n={},
                    updated_at=datetime.now(UTC),
                )

    def control(self) -> Control | None:
        """Return the control row."""
        self.before("control", 0)
        return self._control

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change fields of the control row, which `install` made."""
        with self._lock:
            if self._control is not None:
                self._control = self._control._replace(**changes, updated_at=datetime.now(UTC))

    def begin_epoch(self) -> Control:
        """As `AsyncLiveWriter.begin_epoch`."""
        self.before("begin_epoch", 0)
        with self._lock:
            self.install()
            assert self._control is not None  # noqa: S101 - just made
            if self._control.authority is Authority.STORE:
                self.change({"epoch": self._control.epoch + 1, "owes_all": True})
            return self._control

    def mirror(self, item: Item | None, key: str, version: Version, deadline_s: float) -> bool:
        """As `AsyncLiveWriter.mirror`."""
        self.before("mirror", deadline_s)
        if deadline_s <= 0:
            raise DeadlineError("no time was given")
        with self._lock:
            self._check(version.epoch, Authority.STORE)
            entry = self._entries.get(key)
            if entry is not None and entry.version >= version:
                return True
            if self._refused(item):
                return False
            self._entries[key] = _Entry(version, item)
            return True

    def put(
        self,
        item: Item | None,
        key: str,
        *,
        epoch: int,
        expect: Item | None = None,
        only_new: bool = False,
        deadline_s: float,
    ) -> Version | None:
        """As `AsyncLiveWriter.put`."""
        self.before("put", deadline_s)
        with self._lock:
            self._check(epoch, Authority.TABLES)
            found = self._live(key)
            if (only_new and found) or (expect is not None and (found is None or found[1:] != expect[1:])):
                return None
            if why := self._refused(item):
                raise WriteRefusedError(why, hint="change the value, or the mapping", key=key)
            before = self._entries.get(key)
            version = Version(epoch, before.version.n + 1 if before else 1)
            self._entries[key] = _Entry(version, item, owed=True)
            return version

    def get(self, keys: Sequence[str], deadline_s: float) -> Sequence[Item | None]:
        """As `AsyncLiveWriter.get`."""
        self.before("get", deadline_s)
        with self._lock:
            return [self._live(key) for key in keys]

    def keys(self, *, after: str, limit: int) -> Sequence[str]:
        """As `AsyncLiveWriter.keys`."""
        with self._lock:
            every = sorted((key for key in self._entries if self._live(key)), key=str.encode)
        return [key for key in every if key.encode() > after.encode()][:limit]

    def version(self, key: str) -> Version | None:
        """As `AsyncLiveWriter.version`."""
        self.before("version", 0)
        entry = self._entries.get(key)
        return entry.version if entry else None

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """As `LiveTarget.paid`."""
        newest = 0
        with self._lock:
            for key, version in given:
                entry = self._entries.get(key)
                if entry is not None and entry.version == version and entry.owed:
                    entry.owed, newest = False, newest + 1
        return newest

    def owed_keys(self) -> list[str]:
        """Return the keys that the store is owed."""
        with self._lock:
            return sorted(key for key, entry in self._entries.items() if entry.owed)

    def beat(self, *, epoch: int, stage: Stage, live_seen: bool) -> None:
        """As `ProcessRow.beat`."""
        self.before("beat", 0)
        self.alive = Alive(epoch, stage, live_seen or (self.alive is not None and self.alive.live_seen))

    def used(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add uses of commands to `commands`."""
        self.before("used", 0)
        with self._lock:
            for used, count in counts.items():
                self.commands[used] = self.commands.get(used, 0) + count

    def leave(self) -> None:
        """As `ProcessRow.leave`."""
        self.alive = None

    def close(self) -> None:
        """Nothing is open."""

    def _live(self, key: str) -> Item | None:
        entry = self._entries.get(key)
        if entry is None or entry.item is None:
            return None
        expires_at_ms = entry.item.expires_at_ms
        return None if expires_at_ms is not None and expires_at_ms <= self.now_ms() else entry.item

    def _refused(self, item: Item | None) -> str:
        made = None if item is None else self._lens.forward(item)
        if made is None or isinstance(made, RowSet):
            return ""
        return made.message if isinstance(made, Refusal) else made.reason

    def _check(self, epoch: int, authority: Authority) -> None:
        found = self._control
        if found is None or (found.epoch, found.authority) != (epoch, authority):
            at = "not known here" if found is None else f"at epoch {found.epoch} with authority {found.authority}"
            raise FenceError(f"the mapping is {at}, not at {epoch} with {authority}")
