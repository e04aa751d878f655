"""A session means the same whatever the role, the database or the environment prefers."""

from collections.abc import Callable

import psycopg
import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.errors import TargetError
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.session import Session
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

NAME = "Zoë € 👩"


@pytest.fixture
def backfill(fill: Fill, database: str, shop_lens: Lens) -> Callable[[], BackfillReport]:
    """A function that backfills the store into the database."""

    def run() -> BackfillReport:
        with PostgresTarget.connect(database, shop_lens) as target:
            return run_backfill(fill.source, target, shop_lens)

    return run


@pytest.mark.parametrize(
    "habit",
    [
        "client_encoding = 'latin1'",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "lock_timeout = 1",
    ],
)
def test_a_habit_of_the_database_changes_nothing(
    backfill: Callable[[], BackfillReport], fill: Fill, pg: PgConnection, habit: str
) -> None:
    """Twice: what a run finds of its own making must be what it made."""
    pg.execute(f"ALTER DATABASE {pg.info.dbname} SET {habit}".encode())
    fill({"client:1": {"name": NAME}, "order:1": {"client": "1", "items": [{"note": NAME}]}})

    assert [True, True] == [backfill().ok, backfill().ok]
    assert [(NAME,)] == pg.execute("SELECT name FROM clients").fetchall()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer, encoding: str) -> None:
    """Before the first byte: one item at a time would be found to be untranslatable otherwise."""
    name = f"kvm_{encoding.lower()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode())
    url = postgres_server.url.rsplit("/", 1)[0] + f"/{name}"
    session = Session(url, application_name="kvmigrate:test")

    with pytest.raises(TargetError, match=encoding) as refused:
        session.run(lambda connection: connection.execute("SELECT 1"))

    assert "UTF8" in refused.value.hint
    session.close()
    postgres_server.drop_database(name)


def test_a_policy_that_hides_rows_is_an_error(database: str, pg: PgConnection) -> None:
    """Rows that are there and not seen would make every count and every export wrong."""
    pg.execute("CREATE TABLE hidden (id int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY")
    pg.execute("CREATE ROLE kvm_reader NOLOGIN; GRANT SELECT ON hidden TO kvm_reader")
    session = Session(database, application_name="kvmigrate:test")
    try:
        session.run(lambda connection: connection.execute("SET ROLE kvm_reader"))

        with pytest.raises(TargetError, match="row-level security"):
            session.run(lambda connection: connection.execute("SELECT * FROM hidden"))
    finally:
        session.close()
        pg.execute("DROP OWNED BY kvm_reader; DROP ROLE kvm_reader")
