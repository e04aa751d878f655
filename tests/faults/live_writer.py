"""A service that writes through `Migration.store` until it is told to stop, and keeps books of all it did.

Run as a program of its own: ``python live_writer.py BOOK SEED``; settings come from the environment.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from kvmigrate import Migration
from kvmigrate.dualwrite.store import Store
from kvmigrate.errors import AmbiguousWriteError, KVMigrateError
from kvmigrate.model import WriteResult
from tests.faults.live_books import Book
from tests.faults.live_gate import Gate
from tests.faults.live_work import Wanted, count_on, next_write


def write_one(store: Store, book: Book, wanted: Wanted) -> None:
    """Do one write, and note what became of it."""
    book.begin(wanted.key, wanted.value)
    try:
        result = do(store, wanted)
    except AmbiguousWriteError:
        book.end("ambiguous")
    except KVMigrateError as exc:
        book.end(f"refused: {type(exc).__name__}: {exc}")
        time.sleep(0.02)
    else:
        book.end("ok", result.version, mirrored=result.mirrored)


def do(store: Store, wanted: Wanted) -> WriteResult:
    """Write. Raises what the store raises."""
    if wanted.value == "+1":
        return store.update(wanted.key, count_on)
    if wanted.value is None:
        return store.delete(wanted.key)
    return store.put(wanted.key, wanted.value, ttl=wanted.ttl_s)


def main(book_file: Path, seed: int) -> None:
    """Write until somebody ends the program."""
    chance, gate = random.Random(seed), Gate(book_file.parent)
    with Migration.open() as migration, book_file.open("a", encoding="utf-8") as file:
        book = Book(file, f"w{seed}")
        while True:
            with gate.passed() as may_write:
                if may_write:
                    write_one(migration.store, book, next_write(chance, book.next(), plain=gate.is_plain))
            time.sleep(chance.random() * 0.02 if may_write else 0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
