import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from kvmigrate.embedded.binaries import find_postgres
from kvmigrate.embedded.postgres import THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.embedded.process import free_port
from kvmigrate.errors import ServerError
from tests.fix_postgres import PgConnection


def test_each_test_has_an_empty_database_of_its_own(pg: PgConnection, database: str) -> None:
    """No table of another test is visible, and the encoding is UTF-8."""
    tables = pg.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

    assert (0,) == tables
    assert ("UTF8",) == pg.execute("SHOW server_encoding").fetchone()
    assert urlsplit(database).path == f"/{pg.info.dbname}"


def test_a_database_is_a_copy_of_its_template(postgres_server: PostgresServer, database: str) -> None:
    """A template's tables are there from the start."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int)")
    name = urlsplit(database).path.removeprefix("/")

    url = postgres_server.create_database(f"{name}_copy", template=name)
    try:
        with psycopg.connect(url) as connection:
            assert [] == connection.execute("SELECT a FROM t").fetchall()
    finally:
        postgres_server.drop_database(f"{name}_copy")


def test_dropping_a_database_ends_its_sessions(postgres_server: PostgresServer) -> None:
    """An open connection does not keep a database alive."""
    url = postgres_server.create_database("kvm_in_use")
    with psycopg.connect(url) as connection:
        postgres_server.drop_database("kvm_in_use")

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


@pytest.fixture
def own_server() -> PostgresServer:
    """A server that the test itself closes."""
    return PostgresServer.start(settings=THROWAWAY_SETTINGS)


def test_a_closed_server_is_gone_with_its_data(own_server: PostgresServer) -> None:
    """Closing stops the server, removes temporary data and may be repeated."""
    with psycopg.connect(own_server.url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None

    own_server.close()
    own_server.close()

    assert not Path(row[0]).exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_server.url, connect_timeout=2)


def test_nobody_enters_without_the_password(postgres_server: PostgresServer) -> None:
    """Other users of this machine can reach the port, so the port asks for a password."""
    if not postgres_server.owned:
        pytest.skip("the named server has its own rules")
    parts = urlsplit(postgres_server.url)
    without = urlunsplit(parts._replace(netloc=f"postgres:wrong@127.0.0.1:{parts.port}"))

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(without)


@pytest.fixture
def kept_folder() -> Iterator[Path]:
    """A folder for data that every user can reach, because root's server runs as another user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder, "server")


def test_a_kept_folder_has_its_data_again(kept_folder: Path) -> None:
    """Started twice in one folder, a server has the same rows and the same password."""
    with PostgresServer.start(kept_folder) as server, psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        first = server.url

    with PostgresServer.start(kept_folder) as server, psycopg.connect(server.url) as connection:
        assert (42,) == connection.execute("SELECT answer FROM kept").fetchone()
        assert urlsplit(first).password == urlsplit(server.url).password


def test_a_setting_that_postgres_refuses_is_told(kept_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries what the server said, and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(kept_folder.parent))

    with pytest.raises(ServerError, match="no_such_setting") as caught:
        PostgresServer.start(settings={"no_such_setting": "1"})

    assert caught.value.hint
    assert [] == list(kept_folder.parent.iterdir())


def test_a_folder_with_other_files_is_refused(kept_folder: Path) -> None:
    """A server never takes over a folder that holds somebody's files: they stay as they were."""
    kept_folder.mkdir()
    (kept_folder / "thesis.txt").write_text("mine")
    before = kept_folder.stat()

    with pytest.raises(ServerError, match=r"thesis\.txt"):
        PostgresServer.start(kept_folder)

    assert (before.st_uid, before.st_mode) == (kept_folder.stat().st_uid, kept_folder.stat().st_mode)
    assert ["thesis.txt"] == [path.name for path in kept_folder.iterdir()]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the folder should be is a server error with a hint, not a traceback of the system."""
    (tmp_path / "file").touch()

    with pytest.raises(ServerError, match="file") as caught:
        PostgresServer.start(tmp_path / "file" / "server")

    assert caught.value.hint


def test_a_port_taken_meanwhile_is_replaced(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program takes the chosen port first, the server starts on the next one."""
    taken = urlsplit(postgres_server.url).port
    real = free_port
    ports = iter([taken])
    monkeypatch.setattr("kvmigrate.embedded.postgres.free_port", lambda: next(ports, None) or real())

    with PostgresServer.start(settings=THROWAWAY_SETTINGS) as server:
        assert taken != urlsplit(server.url).port


def test_a_killed_program_leaves_no_server() -> None:
    """SIGKILL runs no exit handler; the server ends all the same and its folder goes."""
    script = (
        "import os, signal, psycopg\n"
        "from kvmigrate.embedded.postgres import PostgresServer\n"
        "server = PostgresServer.start()\n"
        "with psycopg.connect(server.url) as connection:\n"
        "    print(server.url, *connection.execute('SHOW data_directory').fetchone(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    url, folder = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(folder).parent.exists() and time.monotonic() < deadline:
        time.sleep(0.05)

    assert -signal.SIGKILL == done.returncode
    assert not Path(folder).parent.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)


def test_a_forked_child_does_not_stop_the_server(own_server: PostgresServer) -> None:
    """Only the program that started the server closes it, not a child that ends before."""
    child = os.fork()
    if child == 0:
        own_server.close()
        os._exit(0)
    os.waitpid(child, 0)

    with own_server, psycopg.connect(own_server.url) as connection:
        assert (1,) == connection.execute("SELECT 1").fetchone()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_root_starts_a_server_from_a_closed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment that only root can enter is no obstacle: the programs are copied to a cache."""
    found = find_postgres()
    if found.package is None:
        pytest.skip("only a wheel is copied")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for folder in found.package.parent.glob(f"{found.package.name}*"):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    package = closed / found.package.name
    inside = found._replace(prefix=package / found.prefix.name, package=package)
    monkeypatch.setattr("kvmigrate.embedded.postgres.find_postgres", lambda: inside)

    with tempfile.TemporaryDirectory() as cache:
        Path(cache).chmod(0o755)
        monkeypatch.setattr("kvmigrate.embedded.binaries._ROOT_CACHE", Path(cache, "kvmigrate"))
        with PostgresServer.start(settings=THROWAWAY_SETTINGS) as server:
            assert found.version == server.version
