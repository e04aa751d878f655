"""A service that writes through `Migration.store` until it is told to stop, and keeps books of all it did.

Run as a program of its own: ``python live_writer.py BOOK SECONDS SEED``; settings come from the environment. Every
write is in the book twice: before it, and with its outcome. So a writer that was killed leaves what it was about.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import IO, Any

from kvmigrate import Migration
from kvmigrate.dualwrite.store import Store
from kvmigrate.errors import AmbiguousWriteError, KVMigrateError

CLIENTS, ORDERS, VISITS, COUNTERS = 12, 24, 6, 4
"""How many keys of each kind there are: few, so that writers meet."""


class Book:
    """What one writer did, a line of JSON each."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self._name, self._number = file, name, 0

    def begin(self, key: str, value: Any) -> str:
        """Note that a write begins; return its id, which the value holds, too."""
        self._line({"id": self._id(), "key": key, "value": value})
        return self._id()

    def next(self) -> str:
        """Return the id of the next write."""
        self._number += 1
        return self._id()

    def end(self, outcome: str, version: tuple[int, int] | None = None, *, mirrored: bool = False) -> None:
        """Note what became of it."""
        self._line({"id": self._id(), "outcome": outcome, "version": version, "mirrored": mirrored})

    def _id(self) -> str:
        return f"{self._name}-{self._number}"

    def _line(self, found: dict[str, Any]) -> None:
        self._file.write(json.dumps(found) + "\n")
        self._file.flush()


def next_write(chance: random.Random, name: str) -> tuple[str, Any, int | None]:
    """Return a key, its new value (``None`` deletes it), and its time to live in milliseconds."""
    kind = chance.random()
    if kind < 0.30:
        number = chance.randrange(CLIENTS)
        key = f"{chance.choice(('client', 'client', 'clients'))}:{number}"
        if chance.random() < 0.25:
            return key, None, None
        # Few addresses for many clients: they are in each other's way, and swap.
        return key, {"name": name, "email": f"m{chance.randrange(CLIENTS)}@example.com"}, None
    if kind < 0.85:
        key = f"order:{chance.randrange(ORDERS)}"
        if chance.random() < 0.15:
            return key, None, None
        lines = chance.randrange(5)
        items = [{"writer": name} for _ in range(lines)]
        return key, {"client": str(chance.randrange(CLIENTS)), "writer": name, "lines": lines, "items": items}, None
    return f"visit:{chance.randrange(VISITS)}", {"writer": name}, chance.choice((None, 300, 2_000, 60_000))


def write_one(store: Store, book: Book, chance: random.Random) -> None:
    """Do one write, and note what became of it."""
    name = book.next()
    if chance.random() < 0.1:
        key = f"counter:{chance.randrange(COUNTERS)}"
        book.begin(key, "+1")
        result = store.update(key, lambda found: {"hits": (found or {"hits": 0})["hits"] + 1})
    else:
        key, value, ttl_ms = next_write(chance, name)
        book.begin(key, value)
        if value is None:
            result = store.delete(key)
        else:
            result = store.put(key, value, ttl=None if ttl_ms is None else ttl_ms / 1000)
    book.end("ok", result.version, mirrored=result.mirrored)


def main(book_file: Path, seconds: float, seed: int) -> None:
    """Write until the time is over."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    with Migration.open() as migration, book_file.open("a", encoding="utf-8") as file:
        book = Book(file, f"w{seed}")
        while time.monotonic() < end:
            try:
                write_one(migration.store, book, chance)
            except AmbiguousWriteError:
                book.end("ambiguous")
            except KVMigrateError as exc:
                book.end(f"refused: {type(exc).__name__}: {exc}")
                time.sleep(0.02)
            time.sleep(chance.random() * 0.004)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
