"""PostgreSQL for tests: one server per worker, one database per test."""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from kvmigrate.embedded.binaries import find_postgres
from kvmigrate.embedded.postgres import THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.errors import ServerError
from tests.need import need

URL_VARIABLE = "KVMIGRATE_TEST_POSTGRES"

PgConnection = psycopg.Connection[tuple[Any, ...]]
"""What the fixture `pg` is; for annotations of tests."""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of ``KVMIGRATE_TEST_POSTGRES``, or an embedded one of this worker's own."""
    if url := os.environ.get(URL_VARIABLE):
        yield PostgresServer.at(url)
        return
    try:
        find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    with PostgresServer.start(settings=THROWAWAY_SETTINGS) as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    yield postgres_server.create_database(name, template="template0")
    postgres_server.drop_database(name)


@pytest.fixture
def pg(database: str) -> Iterator[PgConnection]:
    """An autocommit connection to this test's own database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def data_api_server() -> Iterator[PostgresServer]:
    """A server with the roles of a data API: roles belong to a whole server, so it is none that others share."""
    try:
        find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    with PostgresServer.start(settings=THROWAWAY_SETTINGS) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE anon")
            connection.execute("CREATE ROLE authenticated")
        yield server


@pytest.fixture
def data_api_pg(data_api_server: PostgresServer) -> Iterator[PgConnection]:
    """A connection to a database of this test's own, which grants every new table to both roles."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(data_api_server.create_database(name), autocommit=True) as connection:
        connection.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated")
        yield connection
        connection.execute("DROP OWNED BY anon, authenticated")
    data_api_server.drop_database(name)


def url_of(connection: PgConnection) -> str:
    """Return a URL of the connection's database."""
    info = connection.info
    return f"postgresql://{info.user}:{info.password}@{info.host}:{info.port}/{info.dbname}"


def pytest_report_header() -> str:
    """Name the PostgreSQL that this run talks to."""
    try:
        if url := os.environ.get(URL_VARIABLE):
            return f"PostgreSQL: {PostgresServer.at(url).version} ({URL_VARIABLE})"
        return f"PostgreSQL: {find_postgres().version} (embedded)"
    except (ServerError, psycopg.Error) as exc:
        return f"PostgreSQL: none ({exc})"
