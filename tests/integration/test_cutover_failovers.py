"""Servers of this file's own, restarted, killed and replaced by replicas while the authority stands or moves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from kvmigrate.cutover.controller import Moved
from kvmigrate.cutover.trouble import Trouble
from kvmigrate.cutover.watch import Watch
from kvmigrate.errors import CheckFailedError, KVMigrateError
from kvmigrate.model import Authority, Stage
from kvmigrate.transform.lens import Lens
from tests.faults.live_servers import LiveServers
from tests.fix_cutover import CrashError, Moving, crash_at


@pytest.fixture(scope="module")
def servers() -> Iterator[LiveServers]:
    """A Redis and a PostgreSQL for the faults of one test after the other."""
    # PostgreSQL does not run as root, and a test's own folder is root's alone.
    with TemporaryDirectory(prefix="kvmigrate-failovers-") as folder:
        Path(folder).chmod(0o755)
        with LiveServers(Path(folder)) as started:
            yield started


@pytest.fixture
def moved(servers: LiveServers, shop_lens: Lens, request: pytest.FixtureRequest) -> Iterator[Moving]:
    """A shop in stage live with two clients, on servers that may fail."""
    # A server begins another history when its first replica comes: that is one more life, and not of these tests.
    servers.redis_replica().close()
    with servers.redis.client() as client:
        client.flushall()
    name = f"moved_{abs(hash(request.node.name))}"
    servers.postgres.create_database(name)
    target = urlunsplit(urlsplit(servers.target)._replace(path=f"/{name}"))
    with ExitStack() as stack:
        moving = Moving(servers.source, target, shop_lens, stack)
        moving.go(Stage.LIVE)
        moving.write("client:1", "Ada")
        moving.write("client:2", "Bo")
        moving.check_same()
        yield moving


def noted(moving: Moving, *, replicas: int = 0) -> None:
    """Let the watch note how far the store is."""
    assert Trouble.NONE is Watch(moving.both(replicas=replicas)).poll().trouble
    assert moving.control().safe_n


def looked_again(moving: Moving) -> list[Trouble]:
    """Poll until nothing is wrong; return what was."""
    found: list[Trouble] = []
    for _ in range(10):
        watched = moving.watch()
        assert "" == watched.alarm
        if not (watched.is_mended or watched.resumed):
            return found
        found += [watched.trouble] if watched.is_mended else []
    raise AssertionError(found)


def marked(moving: Moving) -> list[str]:
    """The marked keys."""
    [shard] = moving.sides.store.shards()
    return sorted(mark.key for mark in moving.sides.store.marked(shard, limit=1000))


def reopened(moving: Moving) -> None:
    """Give the test itself a new connection to a database that was restarted."""
    moving.pg.close()
    moving.pg = psycopg.connect(moving.url, autocommit=True)


def closed(moving: Moving) -> None:
    """Close what `reopened` made."""
    moving.pg.close()


def test_a_restart_while_the_store_is_open_suspects_what_is_later(moved: Moving, servers: LiveServers) -> None:
    """From its append-only file: a new epoch, marks for what was written since it was noted, and nothing else owed."""
    noted(moved)
    moved.write("client:3", "later, and mirrored")
    moved.drain()
    moved.write("client:4", "later, and marked")
    servers.restart_redis()

    assert [Trouble.STORE_RESTARTED] == looked_again(moved)

    assert (Authority.STORE, False) == (moved.control().authority, moved.control().owes_all)
    assert ["client:3", "client:4"] == marked(moved)
    moved.check_same()
    moved.controller().advance()
    moved.check_same()


def test_a_restart_of_which_nothing_was_noted_owes_everything(moved: Moving, servers: LiveServers) -> None:
    """As what it lost is unknown; a flip waits until everything was compared."""
    assert {} == moved.control().safe_n
    servers.restart_redis()

    looked_again(moved)

    assert moved.control().owes_all
    with pytest.raises(CheckFailedError, match="a full reconcile is due"):
        moved.controller().advance()
    moved.check_same()


def test_a_restart_while_the_tables_are_open(moved: Moving, servers: LiveServers) -> None:
    """They stay open at their epoch, and owe the store everything."""
    moved.controller().advance()
    moved.write("client:1", "in tables")
    moved.drain()
    moved.write("client:3", "not given yet")
    servers.restart_redis()

    assert [Trouble.STORE_RESTARTED] == looked_again(moved)

    assert (Stage.RAMPDOWN, (2, Authority.TABLES)) == (moved.stage(), moved.fence())
    assert moved.sides.target.owes() >= 3
    moved.check_same()
    moved.controller().rollback()
    moved.check_same()


def test_a_replica_that_has_what_was_noted_makes_suspects_of_what_is_later(moved: Moving, servers: LiveServers) -> None:
    """Writes that it lost are taken back in the tables; keys from before are not touched, and none diverges."""
    replica = servers.redis_replica()
    noted(moved, replicas=1)
    moved.write("client:3", "kept")
    moved.drain()
    replica.caught_up(servers.redis)
    replica.promote()
    kept = dict(moved.truth)
    moved.write("client:1", "lost with the old server")
    moved.write("client:4", "lost, too")
    moved.drain()
    servers.fail_over_to(replica)
    moved.truth = kept
    # Whatever is written before anybody looks moves the clock beyond what was lost.
    moved.write("client:5", "first of the new life")

    assert [Trouble.STORE_RESTARTED] == looked_again(moved)

    assert not moved.control().owes_all
    assert {"client:1", "client:3", "client:4", "client:5"} == set(marked(moved))
    moved.check_same()
    moved.controller().advance()
    moved.check_same()


def test_a_replica_that_lacks_what_was_noted_owes_everything(moved: Moving, servers: LiveServers) -> None:
    """The server confirmed that it had it, and another one was promoted: new writes do not hide that."""
    behind = servers.redis_replica()
    behind.promote()
    kept = dict(moved.truth)
    moved.write("client:1", "lost")
    moved.drain()
    noted(moved)
    servers.fail_over_to(behind)
    moved.truth = kept
    moved.write("client:5", "first of the new life")

    assert [Trouble.STORE_RESTARTED] == looked_again(moved)

    assert moved.control().owes_all
    [shard] = moved.sides.store.shards()
    moved.sides.store.touch(shard, ["client:1"], epoch=moved.control().epoch)
    moved.check_same()


def test_what_replicas_do_not_confirm_is_not_noted(moved: Moving) -> None:
    """Where they are counted and are not there, a failover may lose anything."""
    Watch(moved.both(replicas=1)).poll()

    assert {} == moved.control().safe_n


@pytest.mark.parametrize("has_seal", [True, False])
def test_a_replica_is_promoted_while_the_store_is_sealed(
    moved: Moving,
    servers: LiveServers,
    has_seal: bool,  # noqa: FBT001
) -> None:
    """Whether it has the seal or lost it, the flip is given up, the store opens anew, and the next one goes."""
    replica = servers.redis_replica()
    noted(moved)
    if not has_seal:
        replica.caught_up(servers.redis)
        replica.promote()
    with pytest.raises(CrashError):
        moved.controller(hook=crash_at(2)).advance()
    assert (2, Authority.SEALED) == moved.fence()
    if has_seal:
        replica.caught_up(servers.redis)
    servers.fail_over_to(replica)
    assert (2 if has_seal else 1, Authority.SEALED if has_seal else Authority.STORE) == moved.fence()

    assert [Trouble.STORE_RESTARTED] == looked_again(moved)

    assert (Stage.LIVE, Authority.STORE) == (moved.stage(), moved.control().authority)
    moved.write("client:1", "open again")
    moved.check_same()
    moved.controller().advance()
    moved.check_same()


def test_a_flip_that_goes_on_asks_the_replicas_again(moved: Moving, servers: LiveServers) -> None:
    """The watch counts as the command does: without them it is given up."""
    replica = servers.redis_replica()
    with pytest.raises(CrashError):
        moved.controller(hook=crash_at(2), replicas=1).advance()
    replica.close()

    watched = Watch(moved.both(replicas=1)).poll()

    assert "1 replicas did not confirm the seal" in watched.alarm
    assert (Stage.LIVE, (3, Authority.STORE)) == (moved.stage(), moved.fence())
    again = servers.redis_replica()
    with pytest.raises(CrashError):
        moved.controller(hook=crash_at(2), replicas=1).advance()
    assert Watch(moved.both(replicas=1)).poll().resumed
    assert Stage.RAMPDOWN is moved.stage()
    moved.check_same()
    again.close()


@pytest.mark.parametrize("step", ["begin", "seal", "replicated", "checked", "drained", "tables open", "follow tables"])
def test_the_database_crashes_in_a_flip(moved: Moving, servers: LiveServers, step: str) -> None:
    """Killed and recovered from its log, it has everything that it said it had: the flip goes through."""
    moved.write("client:3", "marked")
    done: list[str] = []

    def crash(name: str) -> None:
        done.append(name)
        if name == step and done.count(step) == 1:
            servers.crash_postgres()

    result = tried(lambda: moved.controller(hook=crash).advance())
    reopened(moved)
    try:
        assert step in done
        looked_again(moved)
        if moved.stage() is Stage.LIVE:
            assert isinstance(result, KVMigrateError), result
            moved.controller().advance()
        assert Stage.RAMPDOWN is moved.stage()
        moved.check_same()
        moved.write("client:1", "in tables")
        moved.controller().rollback()
        moved.check_same()
    finally:
        closed(moved)


def tried(move: Callable[[], Moved]) -> Moved | KVMigrateError:
    """How a move ended."""
    try:
        return move()
    except KVMigrateError as exc:
        return exc


def test_the_database_crashes_in_a_rollback(moved: Moving, servers: LiveServers) -> None:
    """It is sealed when it is back, and the store is given what it is owed."""
    moved.controller().advance()
    moved.write("client:1", "in tables")
    with pytest.raises(CrashError):
        moved.controller(hook=crash_at(1)).rollback()
    servers.crash_postgres()
    reopened(moved)
    try:
        assert Authority.SEALED is moved.control().authority
        looked_again(moved)
        assert Stage.LIVE is moved.stage()
        moved.check_same()
    finally:
        closed(moved)
