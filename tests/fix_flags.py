"""Where flags may stand: files, the target's row, an Unleash server or what answers as one."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psycopg
import pytest

from kvmigrate.flags.base import FlagSource
from kvmigrate.flags.document import changed, to_document
from kvmigrate.flags.file import FileFlags
from kvmigrate.flags.openfeature import OpenFeatureFlags
from kvmigrate.flags.row import RowFlags
from kvmigrate.flags.unleash import UnleashFlags
from kvmigrate.intent import FlagState, ReadIntent, flag_name
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.read_row import PostgresReadRow
from tests.fix_unleash import ENVIRONMENT, ON_ONE_WORKER, UnleashServer

Features = list[dict[str, Any]]


class FlagWorld(Protocol):
    """A place of flags, and whoever changes them there.

    Attributes:
        is_writable: Whether `FlagSource.change` does.
    """

    source: FlagSource
    is_writable: bool

    def set(self, slug: str, intent: ReadIntent) -> None:
        """Change a flag where flags of this place are changed."""
        ...

    def lose(self) -> None:
        """Make the place unreadable."""
        ...


class WritableWorld:
    """A source that changes its own flags."""

    is_writable = True

    def __init__(self, source: FlagSource) -> None:
        self.source = source

    def set(self, slug: str, intent: ReadIntent) -> None:
        """As `FlagWorld`."""
        self.source.change(slug, intent, who="a test", why="to see it")


class FileWorld(WritableWorld):
    """A file."""

    def __init__(self, file: Path) -> None:
        super().__init__(FileFlags(file, "shop"))
        self._file = file
        if file.suffix == ".json":
            file.write_text('{"version": 1}')
        else:
            file.write_text("version: 1")

    def lose(self) -> None:
        """As `FlagWorld`."""
        self._file.write_text("{{{ not what it was")


class RowWorld(WritableWorld):
    """The row in the target."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            install_control(connection)
            connection.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop')")
        super().__init__(RowFlags(PostgresReadRow(url, "shop"), "shop"))
        self._url = url

    def lose(self) -> None:
        """As `FlagWorld`."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("DROP TABLE kvmigrate.flags")


class _Answers(BaseHTTPRequestHandler):
    """The client API with what a server of this test's holds."""

    server: UnleashStub

    def do_GET(self) -> None:
        self.server.asked += 1
        body = json.dumps({"version": 2, "features": self.server.features}).encode()
        etag = f'"{hash(body)}"'
        same = self.headers.get("If-None-Match") == etag
        status = 304 if same and self.server.status == 200 else self.server.status
        self.send_response(status if self.headers["Authorization"] == "secret" else 401)
        self.send_header("ETag", etag)
        self.end_headers()
        if status == 200:
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class UnleashStub(ThreadingHTTPServer):
    """What answers as an Unleash server."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.features: Features = []
        self.status, self.asked = 200, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def feature(slug: str, intent: ReadIntent, scope: str = "shop") -> dict[str, Any]:
    """A flag as the client API has it."""
    constraints = []
    if intent.block:
        constraint = {"contextName": intent.sticky, "operator": "NOT_IN", "values": sorted(intent.block)}
        constraints = [{**constraint, "inverted": False, "caseInsensitive": False}]
    parameters = {"rollout": str(intent.share // 100), "stickiness": intent.sticky, "groupId": intent.group}
    strategy = {"name": "flexibleRollout", "constraints": constraints, "parameters": parameters, "variants": []}
    name = flag_name(scope, slug)
    return {"name": name, "type": "operational", "enabled": True, "strategies": [strategy], "variants": []}


class StubWorld:
    """The stub."""

    is_writable = False

    def __init__(self, folder: Path) -> None:
        self.stub = UnleashStub()
        token = folder / "token"
        token.write_text("secret\n")
        port = self.stub.server_address[1]
        self.source = UnleashFlags(f"unleash+http://127.0.0.1:{port}/api?token_file={token}", "shop")

    def set(self, slug: str, intent: ReadIntent) -> None:
        """As `FlagWorld`."""
        made = feature(slug, intent)
        self.stub.features = [each for each in self.stub.features if each["name"] != made["name"]] + [made]

    def lose(self) -> None:
        """As `FlagWorld`."""
        self.stub.status = 500

    def close(self) -> None:
        """End the stub."""
        self.stub.shutdown()
        self.stub.server_close()


class ServerWorld:
    """A real server, in which the mapping has a name of this test's own; `set` is what others do there."""

    is_writable = True

    def __init__(self, server: UnleashServer, folder: Path) -> None:
        self.server, self.scope = server, f"shop{uuid.uuid4().hex[:8]}"
        self.token_file = folder / "token"
        self.token_file.write_text(server.client_token())
        admin = folder / "admin"
        admin.write_text(server.admin_token)
        self.url = f"unleash+{server.api}?token_file={self.token_file}&admin_token_file={admin}"
        self.source: FlagSource = UnleashFlags(self.url, self.scope)

    def set(self, slug: str, intent: ReadIntent) -> None:
        """As `FlagWorld`."""
        made = feature(slug, intent, self.scope)
        features = "projects/default/features"
        with suppress(AssertionError):
            self.server.admin("POST", features, {"name": made["name"], "type": "operational"})
        place = f"{features}/{made['name']}/environments/{ENVIRONMENT}"
        [strategy] = made["strategies"]
        for each in self.server.admin("GET", f"{place}/strategies"):
            self.server.admin("DELETE", f"{place}/strategies/{each['id']}")
        self.server.admin("POST", f"{place}/strategies", {**strategy, "segments": []})
        self.server.admin("POST", f"{place}/on")

    def lose(self) -> None:
        """As `FlagWorld`."""
        self.token_file.write_text("no token")


class ProviderWorld:
    """A provider of OpenFeature, in memory; `provider` makes it."""

    is_writable = False

    def __init__(self) -> None:
        self._flags.clear()
        self._state = FlagState({})
        self.source = OpenFeatureFlags("openfeature://tests.fix_flags:provider", "shop")
        self._tell()

    _flags: ClassVar[dict[str, Any]] = {}

    def set(self, slug: str, intent: ReadIntent) -> None:
        """As `FlagWorld`."""
        self._state = changed(self._state, slug, intent)
        self._tell()

    def lose(self) -> None:
        """As `FlagWorld`."""
        self._flags.clear()

    def _tell(self) -> None:
        from openfeature.provider.in_memory_provider import InMemoryFlag

        self._flags["kvm.shop.reads"] = InMemoryFlag("on", {"on": to_document(self._state, "shop")})


def provider() -> Any:
    """Make a provider of what `ProviderWorld` holds."""
    from openfeature.provider.in_memory_provider import InMemoryProvider

    made = InMemoryProvider({})
    made._flags = ProviderWorld._flags
    return made


_PLACES = ["yaml", "json", "row", "unleash", "openfeature", pytest.param("unleash-server", marks=ON_ONE_WORKER)]


@pytest.fixture(params=_PLACES)
def flag_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlagWorld]:
    """Each place in turn."""
    world: Any
    if request.param == "row":
        world = RowWorld(request.getfixturevalue("database"))
    elif request.param == "openfeature":
        pytest.importorskip("openfeature.provider")
        world = ProviderWorld()
    elif request.param == "unleash":
        world = StubWorld(tmp_path)
    elif request.param == "unleash-server":
        world = ServerWorld(request.getfixturevalue("unleash_server"), tmp_path)
    else:
        world = FileWorld(tmp_path / f"flags.{request.param}")
    yield world
    world.source.close()
    if isinstance(world, StubWorld):
        world.close()
