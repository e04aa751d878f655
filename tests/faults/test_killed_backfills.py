"""A backfill that is killed anywhere, with its servers or without, ends the same when it is run again.

`KVMIGRATE_FAULT_ITEMS` and `KVMIGRATE_FAULT_ROUNDS` make it larger: then each round kills once at every
instant, on a database of its own. Else runs of one process and those with workers share the instants.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from kvmigrate.embedded.redis import RedisServer
from tests.faults.kill_stand import INSTANTS, KillStand, kill_a_worker, kill_the_run, loaded
from tests.faults.live_servers import LiveServers
from tests.fix_live_faults import told
from tests.fix_migration import SHOP
from tests.fix_postgres import PgConnection

ITEMS = int(os.environ.get("KVMIGRATE_FAULT_ITEMS", "30000"))
ROUNDS = range(int(os.environ.get("KVMIGRATE_FAULT_ROUNDS", "1")))
TRIES = 2

MOST_MISSED = 0.2
"""Of the instants: some are shorter than a look at the database takes."""

Program = subprocess.Popen[bytes]


def values() -> Iterator[tuple[str, Any]]:
    """Keys and values of a store: of each 200 items one is refused, and one refers to nothing."""
    clients = ITEMS // 10
    for number in range(clients):
        yield f"client:{number}", {} if number % 20 == 7 else {"name": f"n{number}", "email": f"{number}@example.org"}
    # Of two generations of one kind of key, for the same row.
    for number in range(0, clients, 50):
        yield f"clients:{number}", {"name": "second"}
    for number in range(ITEMS - clients):
        owner = clients + number if number % 200 == 3 else number % clients
        elements = [{"product": None, "quantity": n} for n in range(number % 4)]
        if number % 2:
            yield f"order:{number}", {"client": str(owner), "items": elements, "note": "unmapped"}
        else:
            yield f"product:{number}", {"owner": str(owner), "sku": f"S-{number}", "price": number / 4}


def fill(url: str) -> None:
    """Write all of them."""
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for count, (key, value) in enumerate(values()):
            pipe.set(key, json.dumps(value))
            if count % 5_000 == 0:
                pipe.execute()
        pipe.execute()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A filled Redis that nobody else uses."""
    with RedisServer.start(tmp_path_factory.mktemp("redis")) as server:
        fill(server.url)
        yield server


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's mapping as a file."""
    path = tmp_path_factory.mktemp("mapping") / "mapping.yaml"
    path.write_text(SHOP, encoding="utf-8")
    return path


def assert_as_if_nothing_happened(stand: KillStand, connection: PgConnection) -> None:
    """The last run accounts for everything, and an independent comparison finds rows and items equal."""
    report = stand.run()
    again = stand.run()
    assert [] == report["errors"] == again["errors"]
    assert [0] * len(again["sweeps"]) == [sweep["changed"] for sweep in again["sweeps"]]
    bins = ("written", "waiting", "quarantined", "unmatched", "vanished", "left_in_kv")
    assert sum(again[name] for name in bins) == again["scanned"] == sum(1 for _ in values())
    found = stand.verified()
    assert (0, 0, 0) == (found.missing, found.extra, found.different), found.examples
    [(phase, checkpoints, doubled)] = connection.execute(
        "SELECT (SELECT phase FROM kvmigrate.control), (SELECT count(*) FROM kvmigrate.checkpoint), "
        "(SELECT count(*) - count(DISTINCT key) FROM kvmigrate.ledger)"
    ).fetchall()
    assert ("", 0, 0) == (phase, checkpoints, doubled)


def begin_anew(connection: PgConnection) -> None:
    """Empty the database, so that the next run is a first load."""
    connection.execute("DROP SCHEMA IF EXISTS kvmigrate, public CASCADE")
    connection.execute("CREATE SCHEMA public")


@pytest.mark.parametrize("processes", [1, 2], ids=["one process", "workers"])
@pytest.mark.parametrize("round_number", ROUNDS)
def test_killed_at_every_instant(
    store: RedisServer, mapping: Path, database: str, pg: PgConnection, processes: int, round_number: int
) -> None:
    """Killed again and again, from the first moment to the last, it ends as if nothing had happened."""
    stand = KillStand(mapping, store.url, database, processes=processes)
    strike = kill_the_run if round_number % 2 == 0 else kill_a_worker
    instants = list(INSTANTS)[slice(None) if len(ROUNDS) > 1 else slice(processes - 1, None, 2)]

    missed = [name for name in instants if not struck(stand, pg, name, strike)]

    told(f"round {round_number + 1}, {processes} processes: {len(instants) - len(missed)} of {len(instants)} instants")
    told(f"missed: {', '.join(missed) or 'none'}")
    assert MOST_MISSED * len(instants) >= len(missed), missed
    assert_as_if_nothing_happened(stand, pg)


def struck(stand: KillStand, connection: PgConnection, name: str, strike: Callable[[Program], None]) -> bool:
    """Strike at an instant; where it is too short to be seen, once more, and then never."""
    for _ in range(TRIES):
        if stand.strike_at(INSTANTS[name], strike=strike):
            return True
        told(f"not seen: {name}")
        # The first load is over, of which later instants are.
        begin_anew(connection)
    return False


def end_sessions(connection: PgConnection) -> None:
    """End every session of the backfill on the server."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'kvmigrate:backfill' AND datname = current_database()"
    )


def test_sessions_that_end_are_opened_again(store: RedisServer, mapping: Path, database: str, pg: PgConnection) -> None:
    """Server processes that die cost their transactions and no more: the run carries on, each time."""
    stand = KillStand(mapping, store.url, database, processes=2)
    instants = [INSTANTS[name] for name in ("first batch", "primary keys", "proof of references")]

    assert stand.strike_at(*instants, strike=lambda _: end_sessions(pg))

    assert 0 == stand.code, stand.said
    assert_as_if_nothing_happened(stand, pg)


def kill_a_session(connection: PgConnection) -> None:
    """Kill a server process of the backfill with SIGKILL: PostgreSQL ends all others, and recovers."""
    found = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'kvmigrate:backfill' "
        "AND datname = current_database() ORDER BY state = 'active' DESC LIMIT 1"
    ).fetchall()
    os.kill(found[0][0], signal.SIGKILL)


def test_servers_that_crash_and_are_restarted(live_servers: LiveServers, mapping: Path) -> None:
    """A process of PostgreSQL is killed, then Redis, then all of PostgreSQL is away for a while: the run carries on."""
    live_servers.renew()
    fill(live_servers.redis.url)
    stand = KillStand(mapping, live_servers.source, live_servers.target, processes=2)
    strikes = iter([crash_by_a_session, LiveServers.restart_redis, restart_postgres])
    instants = [loaded(1), loaded(2), INSTANTS["primary keys"]]

    assert 3 == stand.strike_at(*instants, strike=lambda _: next(strikes)(live_servers))

    assert 0 == stand.code, stand.said
    with live_servers.connection() as connection:
        assert_as_if_nothing_happened(stand, connection)


def crash_by_a_session(servers: LiveServers) -> None:
    """Let PostgreSQL recover from the death of one of its processes."""
    with servers.connection() as connection:
        kill_a_session(connection)


def restart_postgres(servers: LiveServers) -> None:
    """Stop PostgreSQL, and start it again."""
    servers.stop_postgres()
    time.sleep(0.5)
    servers.start_postgres()


def test_a_store_that_is_restarted_after_a_kill(live_servers: LiveServers, mapping: Path) -> None:
    """It has all it had, and the scan of before means nothing to it: what stands is compared with all of it."""
    live_servers.renew()
    fill(live_servers.redis.url)
    stand = KillStand(mapping, live_servers.source, live_servers.target, processes=2)

    assert 1 == stand.strike_at(loaded(2), strike=kill_the_run)

    live_servers.restart_redis()
    with live_servers.connection() as connection:
        assert_as_if_nothing_happened(stand, connection)
