"""What the books of all writers allow the stores to hold: programs in any language keep them, a line of JSON a step."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

ABSENT = None

_NEVER = float("inf")


class Book:
    """What one writer did. Every write is in it twice: before it, and with its outcome.

    So a writer that was killed leaves what it was about. Times are those of `time.monotonic`, which all programs of a
    machine share.
    """

    def __init__(self, file: IO[str], name: str) -> None:
        """Append to *file*; *name* is the writer's own."""
        self._file, self._name, self._number = file, name, 0

    def next(self) -> str:
        """Return the id of the next write, which its value should hold."""
        self._number += 1
        return self._id()

    def begin(self, key: str, value: Any) -> str:
        """Note that a write begins; return its id."""
        self._line({"id": self._id(), "key": key, "value": value, "begun": time.monotonic()})
        return self._id()

    def end(self, outcome: str, version: tuple[int, int] | None = None, *, mirrored: bool = False) -> None:
        """Note what became of it."""
        found = {"outcome": outcome, "version": version, "mirrored": mirrored, "ended": time.monotonic()}
        self._line({"id": self._id(), **found})

    def note(self, written: Written) -> None:
        """Note a whole write that was done."""
        self._line(written._asdict())

    def _id(self) -> str:
        return f"{self._name}-{self._number}"

    def _line(self, found: dict[str, Any]) -> None:
        self._file.write(json.dumps(found) + "\n")
        self._file.flush()


class Written(NamedTuple):
    """One write: its value (``None`` deletes, ``"+1"`` counts), and its version where it was acknowledged.

    Attributes:
        outcome: ``ok``, ``ambiguous``, ``refused: why``; "" where the writer ended before it heard of any.

        begun, ended: When, by the clock of all programs.
    """

    id: str
    key: str
    value: Any
    outcome: str = ""
    version: tuple[int, int] | None = None
    begun: float = 0.0
    ended: float = _NEVER

    @property
    def is_acknowledged(self) -> bool:
        """Whether its writer was told that it is done."""
        return self.outcome == "ok"

    @property
    def may_have_happened(self) -> bool:
        """It was not acknowledged, and not refused either: killed, or cut off before the answer."""
        return self.outcome in {"", "ambiguous"}


def read_books(files: Iterable[Path]) -> list[Written]:
    """Return all writes of all books."""
    found: list[Written] = []
    for file in files:
        begun: dict[str, dict[str, Any]] = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a writer was killed within a line: that write did not begin, or its outcome is not known
            begun.setdefault(entry["id"], {}).update(entry)
        found += map(_written, begun.values())
    return found


def _written(entry: Mapping[str, Any]) -> Written:
    version, known = entry.get("version"), {name: entry[name] for name in Written._fields if name in entry}
    return Written(**{**known, "version": tuple(version) if version else None})


def by_key(writes: Iterable[Written]) -> Mapping[str, list[Written]]:
    """Group writes by their keys."""
    found: defaultdict[str, list[Written]] = defaultdict(list)
    for write in writes:
        found[write.key].append(write)
    return found


def last_of(writes: Iterable[Written]) -> list[Written]:
    """Return those acknowledged writes of one key that may have been its last.

    One that began after another had ended is later, and so is one with a higher version. Writes without a version, of
    stage off, may leave several.
    """
    acknowledged = [write for write in writes if write.is_acknowledged]
    if not acknowledged:
        return []
    newest = max((write.version for write in acknowledged if write.version), default=None)
    begun = max(write.begun for write in acknowledged)
    return [write for write in acknowledged if write.ended >= begun and write.version in {None, newest}]


def allowed(writes: Iterable[Written]) -> list[Any]:
    """Return the values that a key may have after these writes of it; `ABSENT` for none."""
    writes = list(writes)
    found = [write.value for write in last_of(writes)] or [ABSENT]
    return found + [write.value for write in writes if write.may_have_happened]


def disagreements(writes: Iterable[Written], held: Mapping[str, Any]) -> list[str]:
    """Return, in words, every key under which *held* has what no order of the acknowledged writes explains."""
    found: list[str] = []
    for key, own in sorted(by_key(writes).items()):
        found += _unordered(key, own)
        value = held.get(key)
        if key.startswith("counter:"):
            found += _miscounted(key, own, value)
            continue
        may_be_gone = key.startswith("visit:")
        if value not in allowed(own) and not (may_be_gone and value is ABSENT):
            found.append(f"{key}: holds {value!r}, the last acknowledged writes are {last_of(own)}")
    return found


def _miscounted(key: str, writes: Iterable[Written], value: Any) -> Iterable[str]:
    """Say where a counter did not count each acknowledged write once; one write may say where it began."""
    acknowledged = still_open = begun = 0
    for write in writes:
        if write.value != "+1":
            begun = write.value["hits"]
        else:
            acknowledged += write.is_acknowledged
            still_open += write.may_have_happened
    hits = (value or {"hits": 0})["hits"] - begun
    if not acknowledged <= hits <= acknowledged + still_open:
        yield f"{key}: {hits} hits of {acknowledged} acknowledged, {still_open} open"


def _unordered(key: str, writes: Iterable[Written]) -> Iterable[str]:
    """Say where versions do not rise with time: a write that began later must have the later version."""
    versioned = sorted(
        (write.version, write.begun, write.ended, write.id)
        for write in writes
        if write.is_acknowledged and write.version is not None
    )
    latest = (0.0, "")
    for (version, begun, ended, name), before in zip(versioned, [None, *versioned], strict=False):
        if before is not None and before[0] == version:
            yield f"{key}: two acknowledged writes have one version: {name} and {before[3]}"
        if latest[0] > ended:
            yield f"{key}: {name} ended before {latest[1]} began, and has the later version"
        latest = max(latest, (begun, name))
