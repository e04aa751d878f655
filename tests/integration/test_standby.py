"""A backfill into a server with a standby: it waits while the standby is behind."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from kvmigrate.backfill.pace import Knobs, State
from kvmigrate.embedded.binaries import find_postgres, readable_by_all
from kvmigrate.embedded.postgres import NOBODY_UID, THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.embedded.process import plain_environment
from kvmigrate.errors import ServerError
from kvmigrate.target.run_row import RunRow
from kvmigrate.target.signals import StandbyLag
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Fill
from tests.fix_pace import Paced
from tests.need import need


class Pair(NamedTuple):
    """A server and its standby, both as a superuser."""

    primary: PostgresServer
    standby: PostgresServer


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A server of its own with a streaming standby."""
    try:
        binaries = find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    uid = None if os.geteuid() else NOBODY_UID
    program = Path((binaries if uid is None else readable_by_all(binaries)).program("pg_basebackup"))
    if not program.exists():
        need("pg_basebackup")
    with ExitStack() as stack:
        primary = stack.enter_context(PostgresServer.start(settings=THROWAWAY_SETTINGS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmigrate-standby-")))
        if uid is not None:
            os.chown(folder, uid, uid)
        subprocess.run(
            [str(program), "-D", str(folder / "data"), "-R", "-X", "stream", "-c", "fast", "-d", primary.url],
            check=True,
            cwd="/",
            env=plain_environment(),
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        with psycopg.connect(primary.url) as connection:
            (folder / "password").write_text(connection.info.password)
        yield Pair(primary, stack.enter_context(PostgresServer.start(folder, settings=THROWAWAY_SETTINGS)))


@pytest.fixture
def database(pair: Pair) -> Iterator[str]:
    """An empty database of the server that has a standby."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    yield pair.primary.create_database(name, template="template0")
    pair.primary.drop_database(name)


def replay(pair: Pair, *, paused: bool) -> None:
    """Let the standby replay nothing, or go on."""
    with psycopg.connect(pair.standby.url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_wal_replay_{'pause' if paused else 'resume'}()".encode())


def test_it_waits_while_the_standby_replays_nothing(paced: Paced, pair: Pair) -> None:
    """A standby that stands still is behind as long as it does; it goes on when that has caught up."""
    paced.fill({f"client:{number}": {"name": "x"} for number in range(1500)})
    run = paced(knobs=Knobs(max_lag_s=2, rate=50), sweeps=1)
    run.reaches(lambda event: event.done > 0)
    replay(pair, paused=True)
    try:
        event = run.reaches(lambda event: event.state is State.THROTTLED and "behind" in event.reason)
        before = run.stands_still()
    finally:
        replay(pair, paused=False)

    assert "more than 2" in event.reason
    run.reaches(lambda event: event.state is State.RUNNING and event.done > before)
    run.retune(rate=None)
    assert 1500 == run.ends().written


def test_a_role_without_the_right_reads_no_lag(pair: Pair, database: str, fill: Fill, shop_lens: Lens) -> None:
    """A standby that it may see, and whose lag it may not, counts as too far behind."""
    del fill, shop_lens
    with psycopg.connect(pair.primary.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE shy_of_standbys LOGIN PASSWORD 'shy'")
    try:
        with psycopg.connect(database) as connection:
            url = f"postgresql://shy_of_standbys:shy@{connection.info.host}:{connection.info.port}/postgres"
        row = RunRow(url, 1)
        shy = row.signals(lag=True, active=False)
        row.close()
    finally:
        with psycopg.connect(pair.primary.url, autocommit=True) as connection:
            connection.execute("DROP ROLE shy_of_standbys")

    assert shy.lag_s is None
    assert "GRANT pg_monitor TO shy_of_standbys" in shy.lag_unread
    sees = RunRow(database, 1)
    assert sees.signals(lag=True, active=True).lag_s is not None
    sees.close()


def test_the_lag_of_a_standby_that_stands_still_grows() -> None:
    """What the server says of it stands still, too; so the time since each position counts."""
    lags = StandbyLag()

    assert [0.0, 0.0, 1.0, 2.0, 1.0, 7.5, 0.0, 0.0] == [
        lags.seconds(100, 100, 0.0, 10.0),
        lags.seconds(200, 100, 0.0, 11.0),
        lags.seconds(300, 100, 0.0, 12.0),
        lags.seconds(300, 150, 0.0, 13.0),
        lags.seconds(300, 200, 0.0, 13.0),
        lags.seconds(300, 200, 7.5, 13.0),
        lags.seconds(300, 300, 0.0, 20.0),
        lags.seconds(900, None, 0.0, 30.0),
    ]
