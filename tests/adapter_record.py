"""What an adapter says to PostgreSQL, recorded, so that later versions of the control schema can hear it again.

A recording is made of the program itself at work (`tests/adapter_day.py`), by `tools/record_adapter.py`, into
``tests/adapter_sql/<control version>-<package version>.ndjson``. It is frozen once a later version of either exists.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import psycopg
from psycopg import pq

from kvmigrate.target.control_schema import control_migrations, install_control

FOLDER = Path(__file__).parent / "adapter_sql"

Connection = psycopg.Connection[Any]


class Said(NamedTuple):
    """One statement.

    Attributes:
        session: The connection, counted from 0 in the order in which they were opened.

        statement: With its values in it.

        answer: The command tag, ``!`` and the SQLSTATE where it was refused, or "" where several were sent at once.

        data: What was copied in.
    """

    session: int
    statement: str
    answer: str
    data: bytes = b""

    def line(self) -> str:
        """Return it as a line of a file."""
        members = {**self._asdict(), "data": base64.b64encode(self.data).decode()}
        return json.dumps({name: value for name, value in members.items() if value != ""})


def newest_recording() -> Path:
    """Return the file of this version of the control schema and of the package; it may not be there yet."""
    return FOLDER / f"{control_migrations()[-1].number:02}-{version('kvmigrate')}.ndjson"


def read_recording(file: Path) -> list[Said]:
    """Return what a file holds."""
    lines = map(json.loads, file.read_text().splitlines())
    return [
        Said(each["session"], each["statement"], each.get("answer", ""), base64.b64decode(each.get("data", "")))
        for each in lines
    ]


@contextmanager
def recorded() -> Iterator[list[Said]]:
    """Record what every connection of this process says meanwhile."""
    said: list[Said] = []
    sessions: dict[int, int] = {}
    kept: list[Connection] = []

    def number(connection: Connection) -> int:
        if id(connection) not in sessions:
            kept.append(connection)  # so that no later one gets its id
        return sessions.setdefault(id(connection), len(sessions))

    def literal(cursor: Any, query: Any, values: Any) -> str:
        return psycopg.ClientCursor(cursor.connection).mogrify(query, values)

    execute, execute_many = psycopg.Cursor.execute, psycopg.Cursor.executemany
    copy, command = psycopg.Cursor.copy, psycopg.Connection._exec_command
    declare = psycopg.ServerCursor.execute

    def say(cursor: Any, query: Any, values: Any = None, **options: Any) -> Any:
        session, statement = number(cursor.connection), literal(cursor, query, values)
        try:
            done = execute(cursor, query, values, **options)
        except psycopg.Error as exc:
            said.append(Said(session, statement, f"!{exc.sqlstate}"))
            raise
        several = ";" in statement.strip().rstrip(";") and values is None
        said.append(Said(session, statement, "" if several else cursor.statusmessage or ""))
        return done

    def say_many(cursor: Any, query: Any, rows: Iterable[Any], **options: Any) -> None:
        listed = list(rows)
        execute_many(cursor, query, listed, **options)
        said.extend(Said(number(cursor.connection), literal(cursor, query, values), "") for values in listed)

    @contextmanager
    def say_copy(cursor: Any, query: Any, values: Any = None, **options: Any) -> Iterator[Any]:
        session, written = number(cursor.connection), _Written()
        with copy(cursor, query, values, **options) as opened:
            yield written.through(opened)
        said.append(Said(session, literal(cursor, query, values), cursor.statusmessage or "", written.data))

    def say_command(connection: Any, text: Any, *rest: Any, **options: Any) -> Any:
        # What a cursor of the server fetches is said where it is declared, as one query.
        spelled = text.decode() if isinstance(text, bytes) else text.as_string(None)
        if not spelled.startswith(("DECLARE", "FETCH", "CLOSE", "MOVE")):
            said.append(Said(number(connection), spelled, ""))
        return (yield from command(connection, text, *rest, **options))

    def say_declared(cursor: Any, query: Any, values: Any = None, **options: Any) -> Any:
        said.append(Said(number(cursor.connection), literal(cursor, query, values), ""))
        return declare(cursor, query, values, **options)

    with (
        # A seed of hashes that nobody can foresee is no difference in what is said.
        patch("secrets.randbits", return_value=7),
        patch.object(psycopg.Cursor, "execute", say),
        patch.object(psycopg.Cursor, "executemany", say_many),
        patch.object(psycopg.Cursor, "copy", say_copy),
        patch.object(psycopg.ServerCursor, "execute", say_declared),
        patch.object(psycopg.Connection, "_exec_command", say_command),
    ):
        yield said


class _Written:
    """Keeps what is written to a COPY."""

    def __init__(self) -> None:
        self.data = b""

    def through(self, opened: Any) -> Any:
        """Return *opened* with its writes kept."""
        write = opened.write

        def keep(data: bytes) -> None:
            self.data += bytes(data)
            write(data)

        opened.write = keep
        return opened


class Stage:
    """Where a recording is played again: one connection per session, opened when it first speaks."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url, self._stack = url, stack
        self._sessions: dict[int, Connection] = {}

    def play(self, line: Said) -> str:
        """Say it again; return the answer."""
        if line.session not in self._sessions:
            opened = psycopg.connect(self._url, autocommit=True, prepare_threshold=None, client_encoding="UTF8")
            self._sessions[line.session] = self._stack.enter_context(opened)
        cursor = self._sessions[line.session].cursor()
        try:
            if line.statement.lstrip().upper().startswith("COPY"):
                with cursor.copy(line.statement.encode()) as copy:
                    if line.data:
                        copy.write(line.data)
                    else:
                        list(copy)
            else:
                cursor.execute(line.statement.encode())
        except psycopg.Error as exc:
            return f"!{exc.sqlstate}"
        return cursor.statusmessage or "" if line.answer else ""

    @property
    def is_idle(self) -> bool:
        """Whether no session is in a transaction."""
        return all(each.info.transaction_status == pq.TransactionStatus.IDLE for each in self._sessions.values())


def replay(url: str, lines: list[Said], interrupt: Callable[[], None], at: int) -> list[tuple[Said, str]]:
    """Play a recording, and before line *at*, or the next one at which nothing is open, call *interrupt*.

    Returns:
        What was answered otherwise than when it was recorded.
    """
    different, done = [], False
    with ExitStack() as stack:
        stage = Stage(url, stack)
        for number, line in enumerate(lines):
            if not done and number >= at and stage.is_idle:
                interrupt()
                done = True
            answer = stage.play(line)
            # How many migrations there are is what an upgrade changes.
            if answer != line.answer and "kvmigrate.migration" not in line.statement:
                different.append((line, answer))
    assert done, "the recording never came to rest"
    return different


def install_up_to(connection: Connection, number: int) -> None:
    """Install the control schema as the version with this newest migration did."""
    older = [migration for migration in control_migrations() if migration.number <= number]
    with patch("kvmigrate.target.control_schema.control_migrations", lambda: older):
        install_control(connection)
