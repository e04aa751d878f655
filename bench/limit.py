"""The limit: the same rows and ledger rows, ready as binary COPY files, loaded and keyed in two sessions.

`write_files` takes them from a finished backfill: the files, and every statement that made its
tables. Then, in a database of its own: bare tables, COPY, indexes, foreign keys. Nothing is read
from a store, nothing is parsed, nothing is decided; ANALYZE is not included.

Usage: python -m bench.limit FOLDER TARGET_URL
"""

from __future__ import annotations

import json
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

SESSIONS = 2
BLOCK_BYTES = 1 << 18
SETTINGS = {"synchronous_commit": "off", "max_parallel_maintenance_workers": "0"}

_TABLES = b"""
SELECT c.oid::int8, c.oid::regclass::text,
       format('CREATE TABLE %s (%s)%s', c.oid::regclass,
              concat_ws(', ', (SELECT string_agg(concat_ws(' ', quote_ident(a.attname),
                                   format_type(a.atttypid, a.atttypmod),
                                   CASE WHEN a.attcollation <> t.typcollation
                                        THEN 'COLLATE ' || a.attcollation::regcollation::text END,
                                   CASE WHEN a.attnotnull THEN 'NOT NULL' END), ', ' ORDER BY a.attnum)
                               FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
                               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                              (SELECT string_agg(pg_get_constraintdef(k.oid), ', ')
                               FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'c')),
              ' WITH (' || array_to_string(c.reloptions, ', ') || ')')
FROM pg_class AS c
WHERE c.relkind = 'r' AND (c.relnamespace = 'public'::regnamespace OR c.oid = 'kvmigrate.ledger_1'::regclass)
ORDER BY pg_relation_size(c.oid) DESC
"""
_INDEXES = b"""
SELECT pg_get_indexdef(i.indexrelid),
       (SELECT format('ALTER TABLE %%s ADD CONSTRAINT %%I PRIMARY KEY USING INDEX %%I',
                      k.conrelid::regclass, k.conname, k.conname)
        FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype = 'p')
FROM pg_index AS i WHERE i.indrelid = %s::oid ORDER BY i.indexrelid
"""
_FOREIGN_KEYS = b"""
SELECT format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s NOT VALID', k.conrelid::regclass, k.conname,
              pg_get_constraintdef(k.oid)),
       format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I', k.conrelid::regclass, k.conname)
FROM pg_constraint AS k WHERE k.conrelid = %s::oid AND k.contype = 'f' ORDER BY k.oid
"""


def write_files(finished_url: str, folder: pathlib.Path) -> int:
    """Write what a finished backfill holds, largest table first; return the files' bytes."""
    plan: list[dict[str, Any]] = []
    with psycopg.connect(finished_url) as connection:
        for oid, name, create in connection.execute(_TABLES).fetchall():
            file = folder / f"{name}.copy"
            with connection.cursor() as cursor, file.open("wb") as out:
                with cursor.copy(f"COPY {name} TO STDOUT (FORMAT binary)".encode()) as copy:
                    for block in copy:
                        out.write(block)
                indexes = cursor.execute(_INDEXES, [oid]).fetchall()
                keys = cursor.execute(_FOREIGN_KEYS, [oid]).fetchall()
            plan.append({"table": name, "file": file.name, "create": create, "indexes": indexes, "keys": keys})
    (folder / "plan.json").write_text(json.dumps(plan))
    return sum((folder / table["file"]).stat().st_size for table in plan)


class Limit:
    """One load of the files into an empty database."""

    def __init__(self, folder: pathlib.Path, target_url: str) -> None:
        """Read the plan and open the sessions."""
        self.folder = folder
        self.plan: list[dict[str, Any]] = json.loads((folder / "plan.json").read_text())
        self.sessions = [psycopg.connect(target_url, autocommit=True) for _ in range(SESSIONS)]
        for session in self.sessions:
            for name, value in SETTINGS.items():
                session.execute("SELECT set_config(%s, %s, false)", [name, value])

    def run(self) -> dict[str, float]:
        """Load and key everything; return the seconds of each phase."""
        seconds = {
            "tables": self._phase([self._create_all]),
            "copy": self._phase([_calling(self._copy, table) for table in self.plan]),
            "indexes": self._phase([_calling(_execute, [each]) for table in self.plan for each, _ in table["indexes"]]),
        }
        # A constraint that takes an index over, or is not valid yet, costs nothing but its lock on the table.
        taken = [over for table in self.plan for _, over in table["indexes"] if over]
        added = [add for table in self.plan for add, _ in table["keys"]]
        seconds["keys"] = self._phase([_calling(_execute, [*taken, *added])])
        checks = [[check for _, check in table["keys"]] for table in self.plan]
        seconds["keys"] += self._phase([_calling(_execute, each) for each in checks if each])
        for session in self.sessions:
            session.close()
        return seconds

    def _create_all(self, session: psycopg.Connection[Any]) -> None:
        session.execute("CREATE SCHEMA kvmigrate")
        _execute(session, [table["create"] for table in self.plan])

    def _copy(self, session: psycopg.Connection[Any], table: dict[str, Any]) -> None:
        statement = f"COPY {table['table']} FROM STDIN (FORMAT binary)".encode()
        with (
            session.cursor() as cursor,
            cursor.copy(statement) as copy,
            (self.folder / table["file"]).open("rb") as file,
        ):
            while block := file.read(BLOCK_BYTES):
                copy.write(block)

    def _phase(self, tasks: Sequence[Callable[[psycopg.Connection[Any]], None]]) -> float:
        """Let the sessions take the tasks, first come first served; return the seconds until all are done."""
        waiting: queue.SimpleQueue[Callable[[psycopg.Connection[Any]], None]] = queue.SimpleQueue()
        failures: list[Exception] = []
        for task in tasks:
            waiting.put(task)

        def work(session: psycopg.Connection[Any]) -> None:
            try:
                while True:
                    waiting.get_nowait()(session)
            except queue.Empty:
                pass
            except Exception as exc:  # noqa: BLE001 - raised again below, by the thread that waits
                failures.append(exc)

        started = time.perf_counter()
        threads = [threading.Thread(target=work, args=[session]) for session in self.sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return time.perf_counter() - started


def _calling(function: Callable[..., None], argument: object) -> Callable[[psycopg.Connection[Any]], None]:
    return lambda session: function(session, argument)


def _execute(session: psycopg.Connection[Any], statements: Sequence[str]) -> None:
    for statement in statements:
        session.execute(statement.encode())


if __name__ == "__main__":
    print(json.dumps(Limit(pathlib.Path(sys.argv[1]), sys.argv[2]).run()))
