"""Requests that read the store key by key are named in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from threading import Thread
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from flask import Flask
from redis._parsers.encoders import Encoder
from werkzeug.test import Client

from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.commands import Commands
from kvmigrate.hints import ReadHints
from kvmigrate.model import Stage
from kvmigrate.stores.client_encoder import ClientEncoder
from kvmigrate.testing import MemoryMigration
from tests.unit.test_redis_commands import MAPPING

_Encoder: Any = Encoder
UTF8 = ClientEncoder(_Encoder("utf-8", "strict", decode_responses=False))

Read = Callable[[int], None]
Logged = list[MutableMapping[str, Any]]


@pytest.fixture
def read() -> Iterator[Read]:
    """What a service does: so many clients, one by one."""
    migration = MemoryMigration(MAPPING, Stage.DUALWRITE)

    def act(count: int) -> None:
        for number in range(count):
            migration.store.get(f"client:{number}")

    yield act
    migration.store.close()


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What is logged."""
    with structlog.testing.capture_logs() as found:
        yield found


def told(logged: Logged) -> list[tuple[str, str, dict[str, int], int]]:
    """What each hint says."""
    return [
        (each["event"], each["endpoint"], each["keys"], each["requests_unsaid"])
        for each in logged
        if each["log_level"] == "warning"
    ]


def test_a_request_that_reads_too_often_is_named(read: Read, logged: Logged) -> None:
    """With how often, which keys, and what to do; a request that reads as often as it may is not."""
    hints = ReadHints(most=3)
    with hints.request("few") as few:
        read(3)
    with hints.request("GET /orders") as many:
        read(1001)
    read(9)

    assert (3, 1001) == (few.total, many.total)
    assert [("this request made 1,001 KV gets", "GET /orders", {"client:{id}": 1001}, 0)] == told(logged)
    assert "MGET" in logged[-1]["hint"]


def test_an_endpoint_is_named_once_in_a_while(read: Read, logged: Logged) -> None:
    """And then with how many requests were not told; other endpoints are not held back by it."""
    hints = ReadHints(most=1, every_s=3600)
    for endpoint in ("a", "a", "a", "b"):
        with hints.request(endpoint):
            read(2)
    assert [("a", 0), ("b", 0)] == [(endpoint, unsaid) for _, endpoint, _, unsaid in told(logged)]
    hints._every_s = 0
    with hints.request("a"):
        read(2)
    assert ("a", 2) == told(logged)[-1][1::2]


def test_commands_are_reads_and_pipelines_are_none(logged: Logged) -> None:
    """One MGET is one read, whatever it names; keys that are not mapped are none; writes neither."""
    migration = MemoryMigration(MAPPING, Stage.DUALWRITE)
    commands = Commands(migration.lens, migration.store, CommandUse())
    with ReadHints(most=0).request("job") as reads:
        commands.plan(("GET", "client:1"), UTF8)
        commands.plan(("MGET", "client:1", "client:left:2"), UTF8)
        commands.plan(("HGET", "settings", "a"), UTF8)
        commands.plan(("GET", "client:1"), UTF8, is_piped=True)
        commands.plan(("GET", "other"), UTF8)
        commands.plan(("SET", "client:1", "x"), UTF8)
    migration.store.close()

    assert {"client:{id}": 2, "settings": 1} == reads.counts
    assert ["job"] == [endpoint for _, endpoint, _, _ in told(logged)]


def test_threads_of_a_request_count_for_it(read: Read) -> None:
    """Where they run in its context; another thread is another request, or none."""
    with ReadHints().request() as reads:
        thread = Thread(target=read, args=(5,))
        thread.start()
        thread.join()
        asyncio.run(asyncio.to_thread(read, 2))

    assert 2 == reads.total


def test_flask(read: Read, logged: Logged) -> None:
    """By the route that it found; by the path where there is none."""
    app = Flask("shop")
    setattr(app, "wsgi_app", ReadHints(most=1).wsgi(app.wsgi_app))  # noqa: B010 - its type is a method's

    @app.get("/clients/<int:number>")
    def get(number: int) -> str:
        read(number)
        return ""

    client = app.test_client()
    assert 200 == client.get("/clients/2").status_code

    def bare(environ: Any, start_response: Any) -> list[bytes]:
        read(2)
        start_response("200 OK", [])
        return [str(environ["PATH_INFO"]).encode()]

    assert b"/clients/7" == Client(ReadHints(most=1).wsgi(bare)).get("/clients/7").data
    assert ["GET /clients/<int:number>", "GET /clients/{}"] == [endpoint for _, endpoint, _, _ in told(logged)]


def test_a_name_that_fails_fails_no_request(read: Read, logged: Logged) -> None:
    """The endpoint is named as by default then, however long its path is."""

    def act(_: Any, start_response: Any) -> list[bytes]:
        read(2)
        start_response("200 OK", [])
        return [b"served"]

    def name(_: Any) -> str:
        raise KeyError

    client = Client(ReadHints(most=1, name=name).wsgi(act))
    assert b"served" == client.get("/" + "x" * 100_000).data
    assert ["GET /" + "x" * 100_000] == [endpoint for _, endpoint, _, _ in told(logged)]


def test_many_keys_at_once_are_one_read() -> None:
    """Of both stores, and closing the migration ends what ran beside either."""
    with MemoryMigration(MAPPING, Stage.DUALWRITE) as migration:

        async def get() -> None:
            await migration.async_store.get_many(["client:1", "client:2"])

        with ReadHints().request() as reads:
            migration.store.get_many(["client:1", "client:2"])
            asyncio.run(get())

    assert {"client:{id}": 2} == reads.counts


def test_fastapi(read: Read, logged: Logged) -> None:
    """By the route that it found, also where the reader runs in a thread; what is no request is not judged."""
    app, sent = FastAPI(), []
    app.add_middleware(ReadHints(most=1).asgi)

    @app.get("/clients/{number}")
    def get(number: int) -> None:
        read(number)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def run() -> None:
        await asyncio.sleep(0)
        await app(
            {
                "type": "http",
                "method": "GET",
                "path": "/clients/3",
                "raw_path": b"/clients/3",
                "query_string": b"",
                "headers": [],
            },
            receive,
            send,
        )

    asyncio.run(run())
    assert 200 == sent[0]["status"]
    assert ["GET /clients/{number}"] == [endpoint for _, endpoint, _, _ in told(logged)]
