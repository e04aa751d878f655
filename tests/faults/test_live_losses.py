"""A server comes back with less than it had: lost is what that server lost, and both sides agree on the rest."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from psycopg import sql

from kvmigrate.model import Authority
from kvmigrate.target.control_row import PostgresControlRow
from tests.faults.live_books import Written
from tests.faults.live_programs import PATIENCE_S
from tests.faults.live_rows import read_rows
from tests.faults.live_stand import LiveStand
from tests.faults.live_work import CLIENTS, Wanted, own_client
from tests.fix_live_faults import NewStand, told


def flip(stand: LiveStand) -> None:
    """Let the tables lead."""
    stand.calm()
    stand.all_saw_live()
    stand.move("advance", "rampdown", patience_s=PATIENCE_S)


def later_than(epoch: int) -> Callable[[Written], bool]:
    """Return what counts only writes of later epochs."""
    return lambda write: write.may_have_happened or (write.version or (0, 0))[0] > epoch


def since(moment: float) -> Callable[[Written], bool]:
    """Return what counts only writes that began later."""
    return lambda write: write.begun > moment


def test_redis_is_emptied_while_it_leads(live_stand: LiveStand) -> None:
    """It gets a fence at a new epoch, and keeps owing everything until someone says that its items are gone."""
    stand = live_stand
    stand.written_on()
    epoch = stand.place().epoch
    with stand.servers.redis.client() as client:
        client.flushall()
    stand.wait_for(lambda: stand.fence().get("a") == "K", "there is a fence again")
    fence = stand.fence()
    assert int(fence["e"]) > epoch
    assert "1" == fence["log"]
    # The relay believes it by itself where writers wrote most of it anew already.
    stand.wait_for(
        lambda: stand.owes_nothing() or "reconcile refused" in {what for what, *_ in stand.moves()}, "it is seen"
    )
    stand.run("backfill", "--accept-deletes")
    stand.wait_for(stand.owes_nothing, "everything is compared")
    stand.written_on()
    stand.stop_writers()

    stand.check(counts=later_than(epoch))
    assert stand.place().epoch == int(stand.fence()["e"])


def test_redis_is_emptied_while_the_tables_lead(live_stand: LiveStand) -> None:
    """Nothing is lost: nobody writes without its fence, and it is filled from the tables."""
    stand = live_stand
    flip(stand)
    epoch = stand.place().epoch
    with stand.servers.redis.client() as client:
        client.flushall()
    stand.wait_for(lambda: stand.fence().get("a") == "T", "there is a fence again")
    stand.wait_for(stand.owes_nothing, "everything is given")
    stand.written_on()

    stand.check()
    assert ("rampdown", "T") == stand.place()[:2]
    assert stand.place().epoch >= epoch
    stand.move("rollback", "live")
    stand.check()


def test_redis_is_restored_from_a_backup_while_it_leads(live_stand: LiveStand) -> None:
    """The tables follow: what it held in the backup, and what was written afterwards."""
    stand = live_stand
    with stand.gate.closed():
        before, snapshot = stand.held_by_store(), stand.servers.redis.snapshot()
    stand.written_on()
    with stand.gate.closed():
        epoch, restored = stand.place().epoch, time.monotonic()
        stand.servers.restore_redis(snapshot)
    stand.written_on()
    stand.wait_for(lambda: stand.place().epoch > epoch, "somebody noticed")

    stand.check(counts=since(restored), before=before)


def test_redis_is_restored_from_before_the_flip(live_stand: LiveStand) -> None:
    """Its fence says that it leads, which is long over: no write of that is acknowledged, and nothing is lost."""
    stand = live_stand
    snapshot = stand.servers.redis.snapshot()
    stand.written_on()
    flip(stand)
    stand.written_on()
    stand.servers.restore_redis(snapshot)
    stand.start_writers()
    stand.wait_for(lambda: stand.fence()["a"] == "T", "the store follows again")
    stand.written_on()

    stand.check()
    stand.move("rollback", "live")
    stand.check()


def test_a_standby_that_lacks_mirrors_takes_over_while_the_store_leads(live_stand: LiveStand) -> None:
    """Marks of what it lacks are long taken away: everything is compared, and nothing is lost."""
    stand = live_stand
    standby = stand.servers.standby()
    stand.written_on()
    standby.cut_off()
    stand.written_on()
    epoch = stand.place().epoch
    stand.servers.fail_over_postgres(standby)
    stand.wait_for(lambda: stand.place().epoch > epoch, "somebody noticed")
    stand.written_on()

    stand.check()


def test_a_standby_that_lacks_writes_takes_over_while_the_tables_lead(live_stand: LiveStand) -> None:
    """What it lacks is lost, in the store, too: both sides hold what it had, and what was written afterwards."""
    stand = live_stand
    standby = stand.servers.standby()
    flip(stand)
    stand.written_on()
    with stand.gate.closed():
        stand.run("relay", "--once")
        with stand.servers.connection() as connection:
            before = read_rows(connection)
            [(position,)] = connection.execute("SELECT pg_current_wal_lsn()::text").fetchall()
        standby.has_replayed(str(position))
        standby.cut_off()
    stand.written_on()
    with stand.gate.closed():
        epoch, lost = stand.place().epoch, time.monotonic()
        assert len([write for write in stand.writes() if write.is_acknowledged]) > CLIENTS
        stand.servers.fail_over_postgres(standby)
        stand.wait_for(lambda: stand.place().epoch > epoch, "somebody noticed")
    stand.written_on()
    stand.write(own_client(0, "afterwards"))

    assert frozenset() == before.unsettled
    told(f"{len(before.values)} items were known")
    stand.check(counts=since(lost), before=before.values)


def test_a_write_around_the_fence_while_the_tables_lead(live_stand: LiveStand) -> None:
    """It is lost with the next write of its key; until then the comparison names it."""
    stand = live_stand
    flip(stand)
    stand.stop_writers()
    stand.run("relay", "--once")
    with stand.servers.redis.client() as client:
        client.set("order:1", json.dumps({"client": "1", "writer": "around", "lines": 0, "items": []}))

    found = stand.refused("verify")
    assert (5, 1) == (found.code, found.report["different"] + found.report["missing"])
    stand.write(Wanted("order:1", {"client": "2", "writer": "through", "lines": 0, "items": []}))
    stand.check()


def test_the_control_row_waits_for_the_standby(new_stand: NewStand) -> None:
    """Whatever the database commits without its standbys, who may write is not among it."""
    stand = new_stand(writers=0)
    stand.move("advance", "dualwrite")
    url = stand.servers.database
    with stand.servers.connection() as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
        row = PostgresControlRow(url, "live")
        seen = threading.Event()

        def swap() -> None:
            # Until it waits: the setting takes a moment.
            while not seen.is_set():
                row.swap(epoch=1, authority=Authority.STORE, changes={"owes_all": True})

        swapping = threading.Thread(target=swap)
        try:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            connection.execute("SELECT pg_reload_conf()")
            swapping.start()
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            stand.wait_for(lambda: connection.execute(waiting).fetchall() == [(1,)], "it waits", seconds=30)
        finally:
            seen.set()
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
    swapping.join(30)
    row.close()
    assert not swapping.is_alive()
    assert stand.place().owes_all
