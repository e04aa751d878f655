"""A real Unleash server for tests: one per worker, started by the first test that needs it."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.process import GuardedProcess, free_port, last_lines
from tests.need import need
from tools.servers import UNLEASH_CLIENT, UNLEASH_SERVER, find_node

UNLEASH = "KVMIGRATE_TEST_UNLEASH"
"""Names a running server with its token of an administrator: ``http://TOKEN@host:port``."""

ENVIRONMENT = "development"

ON_ONE_WORKER = pytest.mark.xdist_group("unleash")
"""For whatever needs the server, so that one worker starts it (with ``--dist loadgroup``)."""

_CLIENT = """
import sys
from UnleashClient import UnleashClient

url, token, folder, flag, count = sys.argv[1:]
client = UnleashClient(url, "tests", custom_headers={"Authorization": token}, cache_directory=folder,
                       disable_metrics=True, disable_registration=True)
client.initialize_client()
sys.stdout.write("".join(str(int(client.is_enabled(flag, {"client": str(each)}))) for each in range(int(count))))
client.destroy()
"""


class UnleashServer:
    """A running Unleash server.

    Attributes:
        admin_token: Of an administrator.
    """

    def __init__(self, url: str) -> None:
        """*url* has the administrator's token in the place of the user."""
        parts = urlsplit(url)
        assert parts.hostname
        self.host, self.port = parts.hostname, parts.port
        self.admin_token = unquote(parts.username or "")
        self.api = f"{parts.scheme}://{parts.hostname}:{parts.port}/api"

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Call the Admin API; it must answer that it did it."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        headers = {"Authorization": self.admin_token, "Content-Type": "application/json"}
        connection.request(method, f"/api/admin/{path}", json.dumps({} if body is None else body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, (answer.status, text)
        return json.loads(text) if text else None

    def client_token(self) -> str:
        """Make a token of a client, and return it."""
        wanted = {"tokenName": uuid.uuid4().hex, "type": "client", "environment": ENVIRONMENT}
        return str(self.admin("POST", "api-tokens", wanted)["secret"])

    def enabled_for(self, flag: str, count: int, folder: Path) -> Sequence[bool]:
        """Return what the server's own client says of the clients 0 to *count*, in a process of its own."""
        if not UNLEASH_CLIENT.exists():
            need("UnleashClient (CI=true make servers)")
        command = [sys.executable, "-c", _CLIENT, self.api, self.client_token(), str(folder), flag, str(count)]
        environment = {**os.environ, "PYTHONPATH": str(UNLEASH_CLIENT), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert count == len(done.stdout), done.stderr
        return [each == "1" for each in done.stdout]


@pytest.fixture(scope="session")
def unleash_server(request: pytest.FixtureRequest) -> Iterator[UnleashServer]:
    """The server of ``KVMIGRATE_TEST_UNLEASH``, or one of this worker's own, with a database in its PostgreSQL."""
    if url := os.environ.get(UNLEASH):
        yield UnleashServer(url)
        return
    node = find_node()
    if node is None or not UNLEASH_SERVER.exists():
        need("Unleash (node 20 or later, and npm, then CI=true make servers)")
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"kvm_unleash_{uuid.uuid4().hex[:8]}"
    port, token = free_port(), f"*:*.{secrets.token_hex(16)}"
    settings = {
        "DATABASE_URL": postgres.create_database(name, template="template0"),
        "DATABASE_SSL": "false",
        "HTTP_HOST": "127.0.0.1",
        "PORT": str(port),
        "INIT_ADMIN_API_TOKENS": token,
        # It shall ask nobody outside of this machine.
        "CHECK_VERSION": "false",
        "SEND_TELEMETRY": "false",
        "LOG_LEVEL": "warn",
        "TZ": "UTC",
    }
    folder = Path(tempfile.mkdtemp(prefix="kvmigrate-unleash-"))
    command = ["/usr/bin/env", *(f"{key}={value}" for key, value in settings.items()), node, str(UNLEASH_SERVER)]
    log = folder / "server.log"
    # It would take two seconds for its goodbyes, and has nothing to keep.
    with closing(GuardedProcess(command, log=log, stop=signal.SIGKILL, junk=folder)) as process:
        _wait(process, port, log)
        yield UnleashServer(f"http://{quote(token, safe='')}@127.0.0.1:{port}")
    postgres.drop_database(name)


def _wait(process: GuardedProcess, port: int, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.is_running():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    pytest.fail(f"Unleash did not start: {last_lines(log)}")
