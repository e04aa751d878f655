"""A store, a database and a backfill program that is killed at chosen instants and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.verify import run_verify
from kvmigrate.stores.open import open_source
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.declaration.mapping_file import load_mapping


class Before(NamedTuple):
    """What a database says before a run begins, so that what it did is told from what stood there.

    Attributes:
        run: Its newest run, or 0.

        shares: How many of the first load are in the tables.

        sweeps: How many were begun.
    """

    run: int = 0
    shares: int = 0
    sweeps: int = 0


Instant = Callable[[psycopg.Connection[Any], Before], bool]
"""Whether the moment to strike has come; asked every few milliseconds."""

_PROGRAM = "import sys; from kvmigrate.cli.start import start; sys.exit(start())"

_STANDING = """
SELECT coalesce((SELECT max(id) FROM kvmigrate.run), 0), (SELECT count(*) FROM kvmigrate.checkpoint),
       coalesce((SELECT max(sweep_n) FROM kvmigrate.control), 0)
"""

PATIENCE_S = 1800.0
"""A run that has not ended by then hangs, however large it is and however busy the machine."""


def asked(query: LiteralString, **values: object) -> Instant:
    """Whatever *query* answers once the run has begun; a schema or a row that is not there yet answers no."""
    begun = sql.SQL("SELECT EXISTS (SELECT FROM kvmigrate.run WHERE id > %(run)s) AND ({})")
    whole = begun.format(sql.SQL(query))

    def instant(connection: psycopg.Connection[Any], before: Before) -> bool:
        try:
            found = connection.execute(whole, {**values, **before._asdict()}).fetchall()
        except psycopg.Error:
            return False
        return bool(found and found[0][0])

    return instant


def loaded(shares: int) -> Instant:
    """So many more shares of the first load are in the tables."""
    return asked("(SELECT count(*) FROM kvmigrate.checkpoint) >= %(shares)s + %(more)s", more=shares)


def running(text: str) -> Instant:
    """A statement of the backfill that begins with *text* is under way."""
    return asked(
        "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'kvmigrate:backfill' "
        "AND state = 'active' AND datname = current_database() AND query LIKE %(text)s)",
        text=text + "%",
    )


def at_once(_: psycopg.Connection[Any], __: Before) -> bool:
    """Right after the program has started."""
    return True


INSTANTS: dict[str, Instant] = {
    "start": at_once,
    "run begun": asked("true"),
    "drain": asked("(SELECT phase = 'first load' FROM kvmigrate.control)"),
    "first batch": loaded(1),
    "copy": running("COPY"),
    "checkpoint": running("INSERT INTO kvmigrate.checkpoint"),
    "some batches": loaded(2),
    "more batches": loaded(3),
    "ledger key": running('ALTER TABLE "kvmigrate"."ledger'),
    "primary keys": running('ALTER TABLE "public"'),
    "indexes": running("CREATE INDEX"),
    "ledger in place": asked("(SELECT phase = 'first load, keys' FROM kvmigrate.control)"),
    "proof of references": running('ALTER TABLE "public"."order_items" VALIDATE'),
    "statistics": running("ANALYZE"),
    "waiting items": asked("(SELECT phase = '' AND sweep_n > %(sweeps)s FROM kvmigrate.control)"),
    "second sweep": asked("(SELECT phase = '' AND sweep_n > %(sweeps)s + 1 FROM kvmigrate.control)"),
}
"""From the first moment to the last, by name."""


def standing(connection: psycopg.Connection[Any]) -> Before:
    """Return what a database says now."""
    try:
        [found] = connection.execute(_STANDING).fetchall()
    except psycopg.Error:
        return Before()
    return Before(*found)


class KillStand:
    """Runs ``kvmigrate backfill`` of one mapping as a program of its own."""

    def __init__(self, mapping: Path, source: str, target: str, *, processes: int) -> None:
        self.mapping, self.source, self.target = mapping, source, target
        self.code, self.said = 0, ""
        self._arguments = ["backfill", "--mapping", str(mapping), "--processes", str(processes), "--json"]

    def run(self) -> dict[str, Any]:
        """Run the command to its end, and return its report."""
        with self._program() as program:
            out, said = program.communicate(timeout=PATIENCE_S)
        assert 0 == program.returncode, said.decode()
        report: dict[str, Any] = json.loads(out)
        return report

    def strike_at(self, *instants: Instant, strike: Callable[[subprocess.Popen[bytes]], None]) -> int:
        """Run the command, and strike as each instant comes; return how many came before the command ended.

        `code` and `said` are of this run afterwards.
        """
        with ExitStack() as stack:
            connection = self._looking(stack)
            before = standing(connection)
            program = stack.enter_context(self._program())
            end, struck = time.monotonic() + PATIENCE_S, 0
            for instant in instants:
                while not (is_over := program.poll() is not None) and not instant(connection, before):
                    assert time.monotonic() < end, "the run hangs"
                    time.sleep(0.001)
                    if connection.closed:
                        connection = self._looking(stack)
                if is_over:
                    break
                strike(program)
                struck += 1
            _, said = program.communicate(timeout=PATIENCE_S)
        self.code, self.said = program.returncode, said.decode()
        return struck

    def _looking(self, stack: ExitStack) -> psycopg.Connection[Any]:
        """Return a connection that looks: a new one where the server was away, once it is back."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return stack.enter_context(psycopg.connect(self.target, autocommit=True))
            except psycopg.OperationalError:
                assert time.monotonic() < end, "the server does not come back"
                time.sleep(0.05)

    def verified(self) -> VerifyReport:
        """What an independent comparison of store and tables finds."""
        mapping, source = load_mapping(self.mapping), open_source(self.source)
        try:
            with PostgresRowReader.open(self.target, mapping, json_loads=loads_column) as reader:
                return run_verify(source, reader, mapping, settle_s=0)
        finally:
            source.close()

    @contextmanager
    def _program(self) -> Iterator[subprocess.Popen[bytes]]:
        settings = {"KVMIGRATE_SOURCE": self.source, "KVMIGRATE_TARGET": self.target}
        program = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **settings},
        )
        try:
            yield program
        finally:
            if program.poll() is None:
                program.kill()
            program.communicate()


def kill_the_run(program: subprocess.Popen[bytes]) -> None:
    """Kill the program that hands out, and nothing else: its workers notice."""
    program.kill()


def kill_a_worker(program: subprocess.Popen[bytes]) -> None:
    """Kill one worker process; the run notices, and ends with an error. Without one, the run itself."""
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text(encoding="utf-8").split()
    os.kill(int(children[0]) if children else program.pid, signal.SIGKILL)
