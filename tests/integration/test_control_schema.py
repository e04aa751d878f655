import concurrent.futures
import hashlib

import psycopg
import pytest

from kvmigrate.errors import FenceError, SchemaError
from kvmigrate.target.control_schema import control_migrations, install_control
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Shop, item
from tests.fix_postgres import PgConnection

CLIENT = item("client:1", {"name": "Ada"})


def test_installing_twice_changes_nothing(pg: PgConnection) -> None:
    """The first installation applies every file, the second none."""
    assert [migration.name for migration in control_migrations()] == install_control(pg)
    assert [] == install_control(pg)


def test_each_migration_is_kept_with_the_checksum_of_its_text(pg: PgConnection) -> None:
    """What was applied can be told from what a later version would apply."""
    install_control(pg)

    expected = [(m.number, m.name, hashlib.sha256(m.text.encode()).hexdigest()) for m in control_migrations()]
    assert expected == pg.execute("SELECT number, name, checksum FROM kvmigrate.migration ORDER BY 1").fetchall()


def test_a_migration_with_another_text_is_refused(pg: PgConnection) -> None:
    """A file edited after it was applied is found, not run over."""
    install_control(pg)
    pg.execute("UPDATE kvmigrate.migration SET checksum = 'other' WHERE number = 1")

    with pytest.raises(SchemaError, match="01_control"):
        install_control(pg)


def test_a_newer_schema_is_left_alone(pg: PgConnection) -> None:
    """A process of the version before keeps working while another upgrades."""
    install_control(pg)
    pg.execute("INSERT INTO kvmigrate.migration (number, name, checksum) VALUES (99, '99_later', 'x')")

    assert [] == install_control(pg)


def test_installers_take_turns(database: str) -> None:
    """Several processes that start at once install the schema once."""

    def install(_number: int) -> list[str]:
        with psycopg.connect(database, autocommit=True) as connection:
            return install_control(connection)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        applied = [name for names in pool.map(install, range(4)) for name in names]

    assert [migration.name for migration in control_migrations()] == sorted(applied)


def test_a_data_api_reaches_nothing_of_the_schema(data_api_pg: PgConnection) -> None:
    """Where the roles anon and authenticated exist, every table is closed to both."""
    install_control(data_api_pg)

    assert (
        []
        == data_api_pg.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'kvmigrate'::regnamespace AND relkind = 'r' "
            "AND (NOT relrowsecurity OR has_table_privilege('anon', oid, 'SELECT, INSERT, UPDATE, DELETE') "
            "OR has_table_privilege('authenticated', oid, 'SELECT, INSERT, UPDATE, DELETE'))"
        ).fetchall()
    )
    assert [(False,)] == data_api_pg.execute(
        "SELECT has_function_privilege('anon', 'kvmigrate.fence(text, int, text)', 'EXECUTE')"
    ).fetchall()


def test_functions_pin_their_search_path(pg: PgConnection) -> None:
    """No function of the schema can be led to objects of another one, nor be called by everyone."""
    install_control(pg)

    assert (
        []
        == pg.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'kvmigrate'::regnamespace "
            "AND (NOT coalesce(proconfig::text LIKE '%search_path=%', false) "
            "OR has_function_privilege('pg_monitor', oid, 'EXECUTE'))"
        ).fetchall()
    )


@pytest.mark.parametrize("change", ["epoch = 1", "authority = 'S'", "authority = 'T'"])
def test_an_offline_batch_is_fenced_out_of_a_live_scope(shop: Shop, change: str) -> None:
    """Another epoch or authority refuses the batch, and nothing of it is written."""
    label = shop.sweep()
    shop.rows(f"UPDATE kvmigrate.control SET {change} RETURNING scope")  # noqa: S608 - the parameters above

    with pytest.raises(FenceError):
        shop.apply(CLIENT, label=label)

    assert [0] == shop.column("SELECT count(*) FROM clients")
    assert {} == shop.statuses()


def test_a_flip_waits_for_open_batches_and_later_ones_see_it(shop: Shop, database: str) -> None:
    """The exclusive side of the fence is granted only when no fenced transaction is open."""
    with psycopg.connect(database) as batch:
        batch.execute("SELECT kvmigrate.fence('shop', 0, 'K')")
        shop.pg.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            shop.pg.execute("SELECT kvmigrate.fence_alone('shop')")
        batch.rollback()
        with shop.pg.transaction():
            shop.pg.execute("SELECT kvmigrate.fence_alone('shop')")
            shop.pg.execute("UPDATE kvmigrate.control SET epoch = 1, authority = 'T'")

        with pytest.raises(psycopg.Error) as refused:
            batch.execute("SELECT kvmigrate.fence('shop', 0, 'K')")

    assert "KM001" == refused.value.sqlstate


def test_a_snapshot_from_before_the_flip_does_not_pass_the_fence(shop: Shop, database: str) -> None:
    """At REPEATABLE READ the fence fails with a retryable error instead of reading the old row."""
    with psycopg.connect(database) as batch:
        batch.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        batch.execute("SELECT 1")
        shop.pg.execute("UPDATE kvmigrate.control SET epoch = 1, authority = 'T'")

        with pytest.raises(psycopg.errors.SerializationFailure):
            batch.execute("SELECT kvmigrate.fence('shop', 0, 'K')")


def test_a_newer_backfill_ends_an_older_one(shop: Shop, database: str, shop_lens: Lens) -> None:
    """What the older run read may be out of date, so it may no longer write."""
    label = shop.sweep()
    with PostgresTarget.connect(database, shop_lens) as other:
        other.begin_run("backfill", "test")

    with pytest.raises(FenceError, match="took over"):
        shop.apply(CLIENT, label=label)


def test_connections_say_what_they_are(shop: Shop) -> None:
    """An administrator sees the tool's name in pg_stat_activity."""
    assert "kvmigrate:backfill" in shop.column(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    )
