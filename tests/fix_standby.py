"""A PostgreSQL and a streaming standby of it, whose replay a test can stop."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from kvmigrate.embedded.binaries import find_postgres, readable_by_all
from kvmigrate.embedded.postgres import NOBODY_UID, THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.errors import ServerError
from tests.need import need


class Pair:
    """Both servers."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer) -> None:
        self.primary, self.standby = primary, standby

    def on_standby(self, url: str) -> str:
        """Return the URL of the same database on the standby."""
        return urlunsplit(urlsplit(self.standby.url)._replace(path=urlsplit(url).path))

    def catch_up(self) -> None:
        """Wait until the standby has everything."""
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            # A commit that is not on disk yet is sent to nobody.
            connection.execute("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'kvm', 'here')")
            [(written,)] = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
        end = time.monotonic() + 30
        with psycopg.connect(self.standby.url, autocommit=True) as connection:
            while not connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]).fetchall()[0][0]:
                assert time.monotonic() < end
                time.sleep(0.02)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the standby replay nothing meanwhile."""
        with psycopg.connect(self.standby.url, autocommit=True) as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
            while connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchall() != [("paused",)]:
                time.sleep(0.01)
            yield
            connection.execute("SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="session")
def standby_pair() -> Iterator[Pair]:
    """Two servers of this worker's own."""
    try:
        binaries = find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    uid = None if os.geteuid() else NOBODY_UID
    if uid is not None:
        binaries = readable_by_all(binaries)
    folder = Path(tempfile.mkdtemp(prefix="kvmigrate-standby-", dir="/var/tmp"))
    try:
        with PostgresServer.start(settings=THROWAWAY_SETTINGS) as primary:
            parts = urlsplit(primary.url)
            password = folder / "password"
            password.write_text(f"{parts.password}\n")
            if uid is not None:
                for path in (folder, password):
                    os.chown(path, uid, uid)
            copy = [
                binaries.program("pg_basebackup"),
                "-D",
                str(folder / "data"),
                "-R",
                "--checkpoint=fast",
                "--no-sync",
            ]
            subprocess.run(
                [*copy, "-d", f"host=127.0.0.1 port={parts.port} user={parts.username} password={parts.password}"],
                check=True,
                capture_output=True,
                env={"PATH": os.defpath},
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )
            with PostgresServer.start(folder, settings=THROWAWAY_SETTINGS) as standby:
                yield Pair(primary, standby)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def followed_database(standby_pair: Pair) -> Iterator[str]:
    """The URL of an empty database of this test's own, on the primary."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    yield standby_pair.primary.create_database(name, template="template0")
    standby_pair.primary.drop_database(name)
