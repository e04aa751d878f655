"""PostgreSQL for tests: one server per worker, one database per test."""

import os
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from kvmigrate.embedded.binaries import find_postgres
from kvmigrate.embedded.postgres import THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.errors import ServerError
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.live_install import install_live
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.lens import Lens
from tests.need import need

URL_VARIABLE = "KVMIGRATE_TEST_POSTGRES"

_INSTALLING = {"live", "moving", "shop"}
_BEGINNING = {"parts_world", "reads_world", "stand", "world"}
"""Fixtures that would install the tool's own schema first, with the shop's tables or without."""

_COPIES_FILES = 150000
"""Since this version of the server a database can be copied by file, which is quicker than through the log."""

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


@pytest.fixture(scope="session")
def installed(postgres_server: PostgresServer, shop_lens: Lens) -> Iterator[str]:
    """The name of a database with the tool's own schema and the shop's tables, to be copied: making both takes long."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    url = postgres_server.create_database(name, template="template0")
    with PostgresTarget.connect(url, shop_lens) as target:
        target.install()
        target.ensure_tables()
    install_live(url, shop_lens)
    yield name
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def begun_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database with the tool's own schema alone, to be copied."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.create_database(name, template="template0"), autocommit=True) as connection:
        install_control(connection)
    yield name
    postgres_server.drop_database(name)


def _template(request: pytest.FixtureRequest) -> str:
    names = set(request.fixturenames)
    if _INSTALLING & names and "shop_lens" in names:
        return str(request.getfixturevalue("installed"))
    return str(request.getfixturevalue("begun_database")) if _BEGINNING & names else "template0"


@pytest.fixture
def database(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of this test's own: empty, but for those fixtures that would install the schema first."""
    name = f"kvm_{uuid.uuid4().hex[:12]}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, _template(request))))
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        if connection.info.server_version >= _COPIES_FILES:
            statement += sql.SQL(" STRATEGY file_copy")
        connection.execute(statement)
    yield urlunsplit(urlsplit(postgres_server.url)._replace(path=f"/{name}"))
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
