"""Each framework's example serves without a pause while its data move into tables, and back."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partialmethod
from http.client import HTTPConnection
from json import dumps, loads
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import redis

from kvmigrate import Migration
from kvmigrate.config import Settings
from tests.framework_drive import Basket, Load, Service, migrate
from tests.store_world import RealWorld

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "frameworks"


class Shop:
    """A store with a basket from before, an empty database, and what the environment names."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with redis.Redis.from_url(settings.need_source()) as plain:
            plain.set("basket:old", '{"owner": "Ada", "items": 1}')

    def load(self, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """Import an example, as its server would."""
        for variable, value in self.environment().items():
            monkeypatch.setenv(variable, value)
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def environment(self) -> dict[str, str]:
        """What a service finds in its environment."""
        return {
            "KVMIGRATE_MAPPING": str(self.settings.mapping),
            "KVMIGRATE_SOURCE": self.settings.need_source(),
            "KVMIGRATE_TARGET": self.settings.need_target(),
        }

    def migrate(self, service: Service, *, threads: int = 2) -> None:
        """Go all the way and back; the basket from before is where it was."""
        load = Load(service, threads=threads)
        load.books["old"] = {"owner": "Ada", "items": 1}
        assert load.books["old"] == service.get("old")
        with Migration.open(self.settings) as migration:
            migrate(migration, load)
        assert load.books["old"] == service.get("old")
        assert load.writes > 50


@pytest.fixture
def shop(redis_url: str, database: str) -> Shop:
    """Of this test's own."""
    return Shop(Settings(redis_url, database, EXAMPLES / "mapping.yaml"))


def web(client: Any, path: str = "/baskets") -> Service:
    """A service over HTTP; *client* is its framework's own for tests."""

    def put(name: str, basket: Basket) -> None:
        assert 204 == client.put(f"{path}/{name}", json=basket).status_code

    def get(name: str) -> Basket | None:
        found = client.get(f"{path}/{name}")
        assert found.status_code in {200, 404}
        basket: Basket | None = None if found.status_code == 404 else found.json
        return basket

    def delete(name: str) -> None:
        assert 204 == client.delete(f"{path}/{name}").status_code

    return Service(put, get, delete)


class Response(NamedTuple):
    """As of a framework's client for tests."""

    status_code: int
    json: Any


class Asked:
    """A client of a server that runs."""

    def __init__(self, port: int) -> None:
        self._port = port

    def _ask(self, method: str, path: str, json: Any = None) -> Response:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            body = None if json is None else dumps(json)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            found = connection.getresponse()
            text = found.read()
        finally:
            connection.close()
        return Response(found.status, loads(text) if text else None)

    put = partialmethod(_ask, "PUT")
    get = partialmethod(_ask, "GET")
    delete = partialmethod(_ask, "DELETE")


@contextmanager
def served(app: Any) -> Iterator[Asked]:
    """Serve an application for an event loop, in a thread."""
    import uvicorn

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield Asked(listening.getsockname()[1])
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def test_fastapi(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an event loop."""
    with served(shop.load("fastapi_app", monkeypatch).app) as client:
        shop.migrate(web(client))
        assert [{"owner": "Ada", "items": 1}, None] == client.get("/baskets?name=old&name=none").json


def test_flask(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With threads."""
    module = shop.load("flask_app", monkeypatch)
    with module.migration, module.kv:
        client = module.app.test_client()
        shop.migrate(web(client))
        assert [{"owner": "Ada", "items": 1}, None] == client.get("/baskets?name=old&name=none").get_json()


def test_django(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a client of the store, and in Django's cache."""
    from werkzeug.test import Client

    module = shop.load("django_app", monkeypatch)
    with module.migration, module.kv:
        client = Client(module.app)
        half, cached = web(client), web(client, "/cached")

        def sides(name: str) -> Service:
            return cached if name.startswith("1-") else half

        shop.migrate(
            Service(
                put=lambda name, basket: sides(name).put(name, basket),
                get=lambda name: sides(name).get(name),
                delete=lambda name: sides(name).delete(name),
            )
        )


@contextmanager
def preloaded(shop: Shop, folder: Path) -> Iterator[int]:
    """Serve the example of Flask with gunicorn's two workers, forked behind the import; yield the port."""
    (folder / "told.py").write_text(TOLD)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    options = ["--preload", "--workers", "2", "--threads", "2", "--bind", f"127.0.0.1:{port}", "--chdir", str(EXAMPLES)]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "told:app"],
            env={**os.environ, **shop.environment(), "PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield port
    finally:
        process.terminate()
        assert 0 == process.wait(30)


TOLD = """
import os

import flask_app

# Used before the fork, too.
flask_app.kv.set("basket:before", "{}")


def app(environ, start_response):
    def begin(status, headers, *rest):
        return start_response(status, [*headers, ("X-Process", str(os.getpid()))], *rest)

    return flask_app.app(environ, begin)
"""


def test_gunicorn_preloads_flask(shop: Shop, tmp_path: Path) -> None:
    """Every worker writes through the client that was made, and used, before the fork; each write is marked."""
    settings = shop.settings
    world = RealWorld((EXAMPLES / "mapping.yaml").read_text(), tmp_path, settings.need_source(), settings.need_target())
    processes, names = set[str | None](), list[str]()
    with closing(world), preloaded(shop, tmp_path) as port:
        end = time.monotonic() + 60
        while len(processes) < 2 and time.monotonic() < end:
            name = str(len(names))
            try:
                connection = HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("PUT", f"/baskets/{name}", "{}", {"Content-Type": "application/json"})
                answer = connection.getresponse()
            except ConnectionRefusedError:
                time.sleep(0.05)
                continue
            finally:
                connection.close()
            assert 204 == answer.status
            processes.add(answer.getheader("X-Process"))
            names.append(name)
        [shard] = world.fenced.shards()
        marks = {mark.key for mark in world.fenced.marked(shard, limit=10_000)}
    assert 2 == len(processes)
    assert {f"basket:{name}" for name in ["before", *names]} <= marks


@pytest.fixture
def worker(shop: Shop, tmp_path: Path, redis_url: str) -> Iterator[str]:
    """A worker of Celery with two processes, and the URL of its broker: another database of the same server."""
    broker = redis_url.rpartition("/")[0] + "/8"
    command = [sys.executable, "-m", "celery", "--app", "celery_app", "--quiet", "worker"]
    options = ["--pool", "prefork", "--concurrency", "2", "--without-mingle", "--without-gossip"]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options],
            cwd=EXAMPLES,
            env={**os.environ, **shop.environment(), "BASKETS_BROKER": broker},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield broker
    process.terminate()
    assert 0 == process.wait(30)


def test_celery(shop: Shop, worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that were forked behind the import."""
    monkeypatch.setenv("BASKETS_BROKER", worker)
    module = shop.load("celery_app", monkeypatch)

    def done(task: Any, *args: Any) -> Any:
        return task.delay(*args).get(timeout=60)

    service = Service(
        put=lambda name, basket: done(module.put, name, basket),
        get=lambda name: done(module.get, name),
        delete=lambda name: done(module.delete, name),
    )
    shop.migrate(service, threads=1)
    module.app.close()
