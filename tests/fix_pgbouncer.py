"""PgBouncer in transaction mode before the PostgreSQL of tests: one per worker."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.process import GuardedProcess, free_port, last_lines
from tests.need import need

NOBODY_UID = 65534
POOL_SIZE = 6

_CONFIG = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
admin_users = {user}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
; Every transaction gets another server connection, so that whatever leaks is met soon.
server_round_robin = 1
server_idle_timeout = 600
query_wait_timeout = 60
"""


class Bouncer:
    """A running PgBouncer before one server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, url: str) -> str:
        """Return the URL of a database of the server through the pooler."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}"))


@pytest.fixture(scope="session")
def bouncer(postgres_server: PostgresServer) -> Iterator[Bouncer]:
    """A PgBouncer of this worker's own, with few server connections, before its PostgreSQL."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        need("PgBouncer (make servers, as root on Debian or Ubuntu)")
    parts = urlsplit(postgres_server.url)
    uid = None if os.geteuid() else NOBODY_UID
    folder = Path(tempfile.mkdtemp(prefix="kvmigrate-pgbouncer-", dir="/var/tmp"))
    port = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            host=parts.hostname, port=parts.port, listen=port, folder=folder, user=parts.username, size=POOL_SIZE
        )
    )
    (folder / "users.txt").write_text(f'"{parts.username}" "{parts.password}"\n')
    if uid is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, uid, uid)
    log = folder / "pgbouncer.log"
    process = GuardedProcess([program, str(config)], log=log, stop=signal.SIGINT, uid=uid, junk=folder)
    with closing(process):
        made = Bouncer(port)
        _wait(process, made.url(postgres_server.url), log)
        yield made


def _wait(process: GuardedProcess, url: str, log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.is_running():
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"PgBouncer did not start: {last_lines(log)}")


@pytest.fixture
def pooled_database(bouncer: Bouncer, database: str) -> str:
    """The URL of this test's own empty database through the pooler."""
    return bouncer.url(database)
