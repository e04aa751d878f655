"""The pace of a backfill on real servers, in one process and with workers: rate, pause, retune, throttle."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kvmigrate.backfill.pace import Knobs, State
from kvmigrate.errors import CheckFailedError, FenceError, TargetError
from kvmigrate.target.base import Signals
from kvmigrate.target.retune import retune
from kvmigrate.target.run_row import RunRow
from tests.fix_migration import Fill
from tests.fix_pace import Paced
from tests.fix_postgres import PgConnection


def clients(count: int) -> dict[str, dict[str, Any]]:
    """So many items that can all be written."""
    return {f"client:{number}": {"name": f"n{number}"} for number in range(count)}


def held(pg: PgConnection) -> list[Any]:
    """Transactions and locks of sessions that write, and of the one that beats, looked at often enough to miss that."""
    query = (
        "SELECT a.pid, a.xact_start, l.locktype FROM pg_stat_activity a LEFT JOIN pg_locks l USING (pid) "
        "WHERE a.application_name = 'kvmigrate:backfill' AND a.datname = current_database() "
        "AND (a.xact_start IS NOT NULL OR l.pid IS NOT NULL)"
    )
    looks = []
    for _ in range(5):
        looks.append(set(pg.execute(query).fetchall()))
        time.sleep(0.05)
    return list(set.intersection(*looks))


def test_the_rate_is_held(paced: Paced) -> None:
    """From the first page on it is hardly exceeded; how near a run comes to it is for the machine to say, too."""
    paced.fill(clients(4000))
    run = paced(knobs=Knobs(rate=1500), page_keys=100, sweeps=1)

    assert 4000 == run.ends().written
    told = [(at, event.done) for at, event in zip(run.times, run.events, strict=True) if event.phase == "sweep 1"]
    begin, first = next((at, done) for at, done in told if done)
    end, last = told[-1]
    assert 1500 * 0.5 < (last - first) / (end - begin) < 1500 * 1.15


def test_it_is_paused_let_go_and_retuned_from_elsewhere(paced: Paced, pg: PgConnection) -> None:
    """A paused run reads nothing, and holds nothing; it goes on where it was, at the new rate."""
    paced.fill(clients(2000))
    run = paced(knobs=Knobs(rate=100))
    run.reaches(lambda event: event.done > 0)

    paused = run.retune(paused=True)
    stood = run.reaches(lambda event: event.state is State.PAUSED)
    before = run.stands_still()

    assert ("paused", True) == (paused.state, paused.knobs["paused"])
    assert "--unpause" in paused.reason
    assert (stood.knobs.paused, stood.eta_s) == (True, None)
    assert before == run.done < 2000
    assert [] == held(pg)
    assert "running" == run.retune(paused=False).state
    run.retune(rate=None)
    report = run.ends()
    assert (2000, True) == (report.written, report.ok)
    assert [(report.run_id, "ended", None)] == pg.execute(
        "SELECT id, state, (knobs ->> 'rate') FROM kvmigrate.run WHERE seen_at IS NOT NULL"
    ).fetchall()


def test_a_retuned_run_goes_at_the_new_rate(paced: Paced) -> None:
    """It need not be paused for that."""
    paced.fill(clients(3000))
    run = paced(knobs=Knobs(rate=50), sweeps=1)
    run.reaches(lambda event: event.done > 0)
    run.retune(rate=600)
    first, begin = run.done, time.monotonic()
    time.sleep(2)

    # Between the old rate and the new one, so far as the machine is able.
    assert 600 * 0.4 < (run.done - first) / (time.monotonic() - begin) < 600 * 1.25
    run.retune(rate=None)
    assert 3000 == run.ends().written


def test_a_lost_worker_is_told_though_the_run_is_paused(fill: Fill, paced: Paced) -> None:
    """Nobody waits for the end of the pause."""
    if not paced.workers:
        pytest.skip("there is no worker")
    fill(clients(200))
    run = paced(knobs=Knobs(paused=True))
    run.reaches(lambda event: event.state is State.PAUSED)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for each in children for pid in each.read_text().split()]
    workers = [pid for pid in pids if b"kvmigrate.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    os.kill(workers[0], signal.SIGKILL)
    with pytest.raises(TargetError, match="ended unexpectedly"):
        run.ends()


def test_a_newer_run_ends_a_paused_one(paced: Paced) -> None:
    """Else it would wait for ever: what is let go is the newest one."""
    paced.fill(clients(200))
    older = paced(knobs=Knobs(paused=True))
    older.reaches(lambda event: event.state is State.PAUSED)
    newer = paced()

    assert 200 == newer.ends().written
    with pytest.raises(FenceError):
        older.ends()


def test_sessions_of_others_throttle(paced: Paced, pg: PgConnection) -> None:
    """While they are at work it waits; its own sessions do not count."""
    paced.fill(clients(400))
    with psycopg.connect(paced.target) as other:
        other.execute("SELECT 1")
        quiet = paced(knobs=Knobs(max_active=0), sweeps=1)
        # The connection of this test must not be at work itself.
        assert 400 == quiet.ends().written
    pg.execute("DELETE FROM clients")
    paced.fill({"client:new": {"name": "new"}})
    busy = Busy(paced.target)
    run = paced(knobs=Knobs(max_active=0), sweeps=1)
    event = run.reaches(lambda event: event.state is State.THROTTLED and "active" in event.reason)
    assert "1 sessions are active, more than 0" == event.reason
    assert 0 == run.stands_still()
    busy.ends()
    assert 401 == run.ends().written


def test_nothing_is_asked_without_a_limit(paced: Paced, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, only that, and about once a second, however many pages there are."""
    asked: list[tuple[bool, bool]] = []
    read = RunRow.signals

    def noted(row: RunRow, *, lag: bool, active: bool) -> Signals:
        asked.append((lag, active))
        return read(row, lag=lag, active=active)

    monkeypatch.setattr(RunRow, "signals", noted)
    paced.fill(clients(1200))
    run = paced(knobs=Knobs(rate=100), sweeps=1)
    run.reaches(lambda event: event.done > 0)
    assert [] == asked
    begin = time.monotonic()
    run.retune(max_lag_s=60)
    first = run.done
    run.reaches(lambda _: len(asked) > 1 and run.done > first)
    run.retune(rate=None)
    run.ends()

    assert {(True, False)} == set(asked)
    assert len(asked) <= time.monotonic() - begin + 4


class Busy:
    """A session that is at work until it ends."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        # Sent, and not waited for.
        self._connection.pgconn.send_query(b"SELECT pg_sleep(600)")
        self._connection.pgconn.flush()

    def ends(self) -> None:
        """Give it up, on the server, too."""
        self._connection.cancel_safe()
        self._connection.close()


def test_a_role_that_may_not_see_others_waits_and_says_for_which_right(paced: Paced, pg: PgConnection) -> None:
    """It fails closed: as long as nobody grants it, it does not go on; then it does."""
    paced.fill(clients(100))
    role = f"shy_{os.getpid()}_{time.monotonic_ns()}"
    pg.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'shy'".encode())
    pg.execute(f"GRANT ALL ON DATABASE {pg.info.dbname} TO {role}".encode())
    pg.execute(f"GRANT ALL ON SCHEMA public TO {role}".encode())
    url = f"postgresql://{role}:shy@{pg.info.host}:{pg.info.port}/{pg.info.dbname}"
    try:
        run = paced(url=url, knobs=Knobs(max_active=50))
        event = run.reaches(lambda event: "cannot be read" in event.reason)
        time.sleep(1.2)

        assert event.state is State.THROTTLED
        assert f"the role {role} needs the right to see it: GRANT pg_monitor TO {role}" in event.reason
        assert 0 == run.done
        pg.execute(f"GRANT pg_monitor TO {role}".encode())
        assert 100 == run.ends().written
    finally:
        pg.execute(f"DROP OWNED BY {role} CASCADE".encode())
        pg.execute(f"DROP ROLE {role}".encode())


def test_a_run_whose_heartbeat_is_cut_beats_again(paced: Paced, pg: PgConnection) -> None:
    """Its connection may be lost like any other; the run does not end for it."""
    paced.fill(clients(2000))
    run = paced(knobs=Knobs(rate=50), sweeps=1)
    run.reaches(lambda event: event.done > 0)
    pg.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE query LIKE '%seen_at%' AND application_name = 'kvmigrate:backfill'"
    )
    time.sleep(1.5)

    assert "paused" == run.retune(paused=True).state
    run.retune(paused=False, rate=None)
    assert 2000 == run.ends().written


def test_what_does_not_run_cannot_be_retuned(paced: Paced, pg: PgConnection) -> None:
    """Before the first run, after the last, and when a killed one was not seen for ten seconds."""
    with pytest.raises(CheckFailedError, match="no backfill of 'shop' is running"):
        retune(paced.target, "shop", {"paused": True})
    paced.fill(clients(100))
    run = paced(knobs=Knobs(paused=True))
    run.reaches(lambda event: event.state is State.PAUSED)
    assert "paused" == run.retune(rate=None).state
    run.retune(paused=False)
    run.ends()
    with pytest.raises(CheckFailedError):
        run.retune(paused=True)
    looks = "UPDATE kvmigrate.run SET state = 'running', finished_at = NULL, seen_at = now() - interval '{} s'"
    pg.execute(looks.format(11).encode())
    with pytest.raises(CheckFailedError):
        run.retune(paused=True)
    pg.execute(looks.format(2).encode())
    assert run.retune(paused=True).knobs["paused"]
