"""One contract for every source: what the engines rely on, whichever store it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import redis
from psycopg import sql

from kvmigrate.errors import SourceError
from kvmigrate.model import ADDRESS_SEPARATOR, Item, ItemKind, item_bytes
from kvmigrate.stores.base import DivisibleSource, KVSource, Page, ScanRequest, Share, divisible
from kvmigrate.stores.export_format import write_item, write_unreadable
from kvmigrate.stores.open import open_source
from kvmigrate.stores.stride import PAGE_BYTES
from tests.fix_cluster import Cluster

Values = Mapping[str, bytes | None]

LONG_KEY = b"k" * 2001
ODD_KEY = f"a{ADDRESS_SEPARATOR}b".encode()
UNICODE_KEYS = [
    "",
    " ",
    "%",
    "_",
    "a b",
    "a'b",
    'a"b',
    "a\\b",
    "a\nb",
    "é",
    "e\u0301",
    "日本",
    "😀",
    "\uffff",
    "Z",
    "z",
]


class Store(NamedTuple):
    """A store under test.

    Attributes:
        put: Add items; ``None`` is SQL NULL.

        put_odd: Add items under keys that no item can have, and return those keys.
    """

    kind: str
    url: str
    put: Callable[[Values], None]
    put_odd: Callable[[], list[bytes]]


def _redis_store(kind: str, url: str) -> Store:
    def put(values: Values) -> None:
        with redis.Redis.from_url(url) as client:
            for key, value in values.items():
                client.set(key.encode(), value or b"")

    def put_odd() -> list[bytes]:
        odd = [b"\xff\xfe", b"a\0b", ODD_KEY, LONG_KEY]
        with redis.Redis.from_url(url) as client:
            for key in odd:
                client.set(key, b"1")
        return odd

    return Store(kind, url + ("?protocol=3" if kind == "redis-resp3" else ""), put, put_odd)


def _cluster_store(kind: str, cluster: Cluster) -> Store:
    def put(values: Values) -> None:
        with closing(cluster.client()) as client:
            for key, value in values.items():
                client.set(key.encode(), value or b"")

    def put_odd() -> list[bytes]:
        odd = [b"\xff\xfe", b"a\0b", ODD_KEY, LONG_KEY]
        with closing(cluster.client()) as client:
            for key in odd:
                client.set(key, b"1")
        return odd

    return Store(kind, cluster.url, put, put_odd)


def _postgres_store(kind: str, url: str) -> Store:
    insert = (
        "INSERT INTO kv_store_test VALUES (%s, %s)"
        if kind == "bytea"
        else ("INSERT INTO kv_store_test VALUES (%s, convert_from(%s, 'UTF8')::{})")
    )
    statement = sql.SQL(insert).format(sql.SQL(kind))
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("CREATE TABLE kv_store_test (key text PRIMARY KEY, value {})").format(sql.SQL(kind)))

    def put(values: Values) -> None:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.executemany(statement, list(values.items()))

    def put_odd() -> list[bytes]:
        put({ODD_KEY.decode(): b"1", LONG_KEY.decode(): b"1"})
        return [ODD_KEY, LONG_KEY]

    return Store(kind, url + "?table=kv_store_test", put, put_odd)


def _sqlite_store(kind: str, path: Path) -> Store:
    file = path / "shop.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value)")

    def put(values: Values) -> None:
        with closing(sqlite3.connect(file)) as connection, connection:
            form = "CAST(? AS TEXT)" if kind == "sqlite" else "?"
            connection.executemany(f"INSERT INTO kv VALUES (?, {form})", values.items())  # noqa: S608 - two constants

    def put_odd() -> list[bytes]:
        odd = [b"\xff\xfe", b"a\0b", ODD_KEY, LONG_KEY]
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.executemany("INSERT INTO kv VALUES (CAST(? AS TEXT), '1')", [(key,) for key in odd])
            connection.execute("INSERT INTO kv VALUES (x'6162', '1'), (NULL, '1')")
        return [*odd, b"ab", b""]

    return Store(kind, f"sqlite://{file}?table=kv", put, put_odd)


def _export_store(kind: str, path: Path) -> Store:
    file = path / "export.ndjson"
    file.touch()

    def put(values: Values) -> None:
        with file.open("ab") as out:
            for key, value in values.items():
                out.write(write_item(Item(key, value, ItemKind.NULL if value is None else ItemKind.JSON)))

    def put_odd() -> list[bytes]:
        with file.open("ab") as out:
            out.write(write_unreadable(b"\xff\xfe"))
        put({LONG_KEY.decode(): b"1", "a\0b": b"1"})
        return [b"\xff\xfe", LONG_KEY, b"a\0b"]

    return Store(kind, f"file://{file}", put, put_odd)


TEXT_KINDS = ["redis", "redis-resp3", "redis-cluster", "text", "bytea", "sqlite", "sqlite-blob", "export"]
BINARY_KINDS = ["redis", "redis-resp3", "redis-cluster", "bytea", "sqlite-blob", "export"]
NULL_KINDS = ["jsonb", "json", "text", "bytea", "sqlite", "sqlite-blob", "export"]
DIVISIBLE_KINDS = ["redis", "redis-resp3", "redis-cluster", "jsonb", "json", "text", "bytea"]
KINDS = [*DIVISIBLE_KINDS, "sqlite", "sqlite-blob", "export"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    kind: str = request.param
    if kind == "redis-cluster":
        return _cluster_store(kind, request.getfixturevalue("cluster"))
    if kind.startswith("redis"):
        return _redis_store(kind, request.getfixturevalue("redis_url"))
    if kind.startswith("sqlite"):
        return _sqlite_store(kind, tmp_path)
    if kind == "export":
        return _export_store(kind, tmp_path)
    return _postgres_store(kind, request.getfixturevalue("database"))


@pytest.fixture
def source(store: Store) -> Iterator[KVSource]:
    """The source over the store."""
    with closing(open_source(store.url)) as opened:
        yield opened


def items_of(pages: Iterator[Page]) -> list[Item]:
    """Return the items of all pages."""
    return [item for page in pages for item in page.items]


def unreadable_of(pages: Iterator[Page]) -> list[bytes]:
    """Return the unreadable keys of all pages."""
    return [key for page in pages for key in page.unreadable]


def numbered(count: int) -> dict[str, bytes]:
    """Return *count* small JSON values."""
    return {f"item:{n}": b'{"n": %d}' % n for n in range(count)}


def exact(value: object) -> Any:
    """Parse JSON without rounding a number."""
    assert isinstance(value, bytes)
    return json.loads(value, parse_float=Decimal)


@pytest.mark.parametrize("page_keys", [1, 7, 100, 5000])
def test_a_scan_yields_every_key(store: Store, source: KVSource, page_keys: int) -> None:
    """Whatever the page size, every key comes, and with its own value."""
    values = numbered(100)
    store.put(values)

    scanned = items_of(source.scan(ScanRequest(page_keys=page_keys)))

    assert set(values) == {item.key for item in scanned}
    assert all(exact(values[item.key]) == exact(item.value) for item in scanned)


def test_an_empty_store_has_no_items(source: KVSource) -> None:
    """Nothing is no error."""
    assert [] == items_of(source.scan(ScanRequest()))
    assert [] == items_of(source.scan_sorted(ScanRequest()))
    assert [None] == source.get_many(["a"])
    assert not source.has_ttl()
    assert 0 == source.count()


def test_count_tells_the_number_of_keys(store: Store, source: KVSource) -> None:
    """The count of a small store is exact."""
    store.put(numbered(12))

    assert 12 == source.count()


def test_keys_of_any_script_come_back(store: Store, source: KVSource) -> None:
    """The empty key, quotes, wildcards, controls and characters beyond 16 bits are keys like any other."""
    store.put(dict.fromkeys(UNICODE_KEYS, b"1"))

    assert set(UNICODE_KEYS) == {item.key for item in items_of(source.scan(ScanRequest(page_keys=1)))}
    assert UNICODE_KEYS == [item and item.key for item in source.get_many(UNICODE_KEYS)]


@pytest.mark.parametrize(
    "value",
    [
        b"null",
        b'""',
        b"[]",
        b"{}",
        b"123456789012345678901234567890.123456789012345678901234567890",
        b"[1E+2, -0, 1.10, 10e-30]",
        '{"a": "é😀", "b": "\\"\\\\\\n"}'.encode(),
        b"[" * 400 + b"]" * 400,
        b'{"text": "%s"}' % (b"x" * 300_000),
    ],
    ids=["null", "empty text", "empty array", "empty object", "number", "numbers", "texts", "deep", "large"],
)
def test_a_json_value_comes_back_exactly(store: Store, source: KVSource, value: bytes) -> None:
    """Numbers keep every digit; emptiness, depth and size change nothing."""
    store.put({"a": value})

    [scanned] = items_of(source.scan(ScanRequest()))
    [fetched] = source.get_many(["a"])

    assert ItemKind.JSON is scanned.kind
    assert exact(value) == exact(scanned.value)
    assert scanned == fetched


@pytest.mark.parametrize("store", TEXT_KINDS, indirect=True)
@pytest.mark.parametrize("value", [b"", b" ", b"N/A", b"{", b'{"a":1,"a":2}', b"[1.0,1e5]", b'"\\ud800"'])
def test_text_comes_back_byte_for_byte(store: Store, source: KVSource, value: bytes) -> None:
    """What is no JSON, or JSON that a parser would change, is handed on as it stands."""
    store.put({"a": value})

    [scanned] = items_of(source.scan(ScanRequest()))

    assert value == scanned.value
    assert [scanned] == source.get_many(["a"])


@pytest.mark.parametrize("store", BINARY_KINDS, indirect=True)
def test_bytes_that_are_no_text_come_back(store: Store, source: KVSource) -> None:
    """Binary values are the business of whoever reads them."""
    store.put({"a": b"\x80\x00\xff"})

    assert [b"\x80\x00\xff"] == [item.value for item in items_of(source.scan(ScanRequest()))]


@pytest.mark.parametrize("store", NULL_KINDS, indirect=True)
def test_sql_null_json_null_and_missing_are_three_things(store: Store, source: KVSource) -> None:
    """NULL is an item of its own kind, null is a value, and a missing key is no item."""
    store.put({"sql": None, "json": b"null"})
    expected = [Item("sql", None, ItemKind.NULL), Item("json", b"null"), None]

    assert expected == source.get_many(["sql", "json", "missing"])
    assert {*expected} - {None} == {*items_of(source.scan(ScanRequest()))}


def test_get_many_answers_in_the_order_asked(store: Store, source: KVSource) -> None:
    """Duplicates are answered twice, missing keys with None, and keys that cannot exist too."""
    store.put(numbered(1500))
    asked = [f"item:{n}" for n in range(1499, -1, -1)] + ["item:3", "no", "item:3", "a\0b", ADDRESS_SEPARATOR]

    answered = source.get_many(asked)

    assert len(asked) == len(answered)
    assert asked[:1501] == [item.key for item in answered[:1501] if item]
    assert [None, answered[1496], None, None] == answered[1501:]
    assert [] == source.get_many([])


@pytest.mark.parametrize("page_keys", [1, 10])
def test_a_scan_goes_on_behind_any_position(store: Store, source: KVSource, page_keys: int) -> None:
    """Pages up to a position, and a scan behind it by a new process, make up the whole store."""
    store.put(numbered(40) | dict.fromkeys(UNICODE_KEYS, b"1"))
    request = ScanRequest(page_keys=page_keys)
    pages = list(source.scan(request))
    whole = {item.key for item in items_of(iter(pages))}

    for index in range(0, len(pages), 7):
        with closing(open_source(store.url)) as resumed:
            before = {item.key for item in items_of(iter(pages[: index + 1]))}
            rest = items_of(resumed.scan(request, after=pages[index].position))

        assert whole == before | {item.key for item in rest}
        assert len(rest) < len(whole), "it started over"

    assert [] == items_of(source.scan(request, after=pages[-1].position))


@pytest.mark.parametrize("page_keys", [1, 5, 1000])
def test_a_sorted_scan_is_in_byte_order(store: Store, source: KVSource, page_keys: int) -> None:
    """Each key comes once, in the order of its bytes, whatever the store's own order is."""
    values = numbered(30) | dict.fromkeys(UNICODE_KEYS, b"1")
    store.put(values)

    keys = [item.key for item in items_of(source.scan_sorted(ScanRequest(page_keys=page_keys)))]

    assert sorted(values, key=str.encode) == keys


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
def test_unwanted_keys_are_counted_and_not_read(store: Store, source: KVSource, scan: str) -> None:
    """A key that nothing asks for is still an item, without its value."""
    store.put(numbered(10))
    request = ScanRequest(page_keys=3, wants=lambda key: key == "item:7")

    items: Sequence[Item] = items_of(getattr(source, scan)(request))

    assert {"item:7"} == {item.key for item in items if item.kind is ItemKind.JSON}
    assert 9 == sum(item.kind is ItemKind.UNREAD and item.value is None for item in items)


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
@pytest.mark.parametrize("page_keys", [1, 1000])
def test_keys_that_cannot_be_addresses_are_counted(store: Store, source: KVSource, scan: str, page_keys: int) -> None:
    """They match no pattern and fit no ledger; they are named apart, and everything else is read."""
    store.put(numbered(5))
    odd = store.put_odd()

    pages: list[Page] = list(getattr(source, scan)(ScanRequest(page_keys=page_keys)))

    assert sorted(odd) == sorted(unreadable_of(iter(pages)))
    assert {*numbered(5)} == {item.key for item in items_of(iter(pages))}


def test_closing_twice_is_fine_and_a_closed_source_opens_again(store: Store, source: KVSource) -> None:
    """An engine may close in a finally without asking who closed before."""
    store.put({"a": b"1"})
    assert [Item("a", b"1")] == source.get_many(["a"])

    source.close()
    source.close()

    assert [Item("a", b"1")] == source.get_many(["a"])


def test_closing_an_unused_source_is_fine(store: Store) -> None:
    """Nothing was opened, so there is nothing to close."""
    open_source(store.url).close()


def test_two_reads_of_one_source_do_not_disturb_each_other(store: Store, source: KVSource) -> None:
    """An engine looks up items while a scan is under way."""
    store.put(numbered(30))

    for pages in (source.scan(ScanRequest(page_keys=4)), source.scan_sorted(ScanRequest(page_keys=4))):
        for page in pages:
            assert list(page.items) == source.get_many([item.key for item in page.items])


def test_a_scan_may_be_left_early(store: Store, source: KVSource) -> None:
    """A scan that is given up leaves nothing open that a later one would feel."""
    store.put(numbered(30))
    for pages in (source.scan(ScanRequest(page_keys=4)), source.scan_sorted(ScanRequest(page_keys=4))):
        next(pages)
        pages.close()  # type: ignore[attr-defined]  # a generator in each adapter

    assert 30 == len(items_of(source.scan_sorted(ScanRequest())))


def test_the_name_tells_the_store(store: Store, source: KVSource) -> None:
    """Logs and reports name the store, its repr too."""
    assert source.name.split("://")[0] == store.url.split("://")[0]
    assert source.name in repr(source)


@pytest.mark.parametrize("store", ["redis", "redis-cluster", "jsonb", "text", "sqlite"], indirect=True)
@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
def test_large_values_make_small_pages(store: Store, source: KVSource, scan: str) -> None:
    """A page is bounded in bytes, too; nothing is lost between its parts, nor behind any of them."""
    values = {f"item:{n}": b'"%s"' % (b"x" * 1_000_000) for n in range(40)}
    store.put(values | {"small": b"1"})
    request = ScanRequest(page_keys=2000)

    pages = list(getattr(source, scan)(request))

    assert 3 <= len(pages)
    assert PAGE_BYTES >= max(sum(map(item_bytes, page.items)) for page in pages)
    assert {*values, "small"} == {item.key for item in items_of(iter(pages))}
    if scan == "scan":
        for index, page in enumerate(pages):
            seen = {item.key for item in items_of(iter(pages[: index + 1]))}
            rest = {item.key for item in items_of(source.scan(request, after=page.position))}
            assert {*values, "small"} == seen | rest


def divided(source: KVSource) -> DivisibleSource:
    """Return the source as one that can be divided."""
    found = divisible(source)
    assert found is not None
    return found


def read_apart(store: Store, request: ScanRequest, shares: Sequence[Share]) -> Iterator[Page]:
    """Yield the pages of shares, read in turn by two sources of their own; check their positions."""
    with closing(open_source(store.url)) as one, closing(open_source(store.url)) as two:
        for number, share in enumerate(shares):
            pages = list(divided(two if number % 2 else one).read_share(share, request))
            assert [share.position] == [page.position for page in pages if page.position]
            assert share.position == pages[-1].position
            yield from pages


def test_only_some_stores_can_be_divided(store: Store, source: KVSource) -> None:
    """Files are read by one process."""
    assert (store.kind in DIVISIBLE_KINDS) == (divisible(source) is not None)


@pytest.mark.parametrize("store", DIVISIBLE_KINDS, indirect=True)
@pytest.mark.parametrize("page_keys", [1, 100, 5000])
def test_shares_read_by_other_processes_are_the_whole_scan(store: Store, source: KVSource, page_keys: int) -> None:
    """Every item and every unreadable key comes, as a scan by one process has it."""
    store.put(numbered(700) | dict.fromkeys(UNICODE_KEYS, b"1"))
    odd = store.put_odd()
    request = ScanRequest(page_keys=page_keys, wants=lambda key: key != "item:7")

    shares = list(divided(source).shares(request))
    pages = list(read_apart(store, request, shares))

    assert {item.key: item for item in items_of(source.scan(request))} == {
        item.key: item for item in items_of(iter(pages))
    }
    assert sorted(odd) == sorted(unreadable_of(iter(pages)))
    assert page_keys == 5000 or len(shares) > 2
    assert all(isinstance(part, bytes) for share in shares for part in share.ask)


@pytest.mark.parametrize("store", DIVISIBLE_KINDS, indirect=True)
def test_an_empty_store_has_no_shares(store: Store, source: KVSource) -> None:
    """Nothing is named, so that nobody waits for it."""
    assert [] == items_of(read_apart(store, ScanRequest(), list(divided(source).shares(ScanRequest()))))


@pytest.mark.parametrize("store", DIVISIBLE_KINDS, indirect=True)
def test_shares_go_on_behind_any_position(store: Store, source: KVSource) -> None:
    """Shares up to a position, and those behind it, named by a new process, make up the whole store."""
    store.put(numbered(2000))
    request = ScanRequest(page_keys=20)
    shares = list(divided(source).shares(request))
    whole = {item.key for item in items_of(read_apart(store, request, shares))}

    for index in range(0, len(shares), max(1, len(shares) // 5)):
        before = {item.key for item in items_of(read_apart(store, request, shares[: index + 1]))}
        with closing(open_source(store.url)) as resumed:
            behind = list(divided(resumed).shares(request, after=shares[index].position))
            rest = [item.key for item in items_of(read_apart(store, request, behind))]

        assert {*numbered(2000)} == whole == before | {*rest}
        assert len(rest) < len(whole), "it started over"


@pytest.mark.parametrize("store", DIVISIBLE_KINDS, indirect=True)
def test_large_values_make_small_pages_of_a_share(store: Store, source: KVSource) -> None:
    """A page of a share is bounded in bytes, also where large values stand among small ones."""
    values = {f"item:{n}": b'"%s"' % (b"x" * 1_000_000) for n in range(40)}
    store.put(numbered(500) | values)
    request = ScanRequest(page_keys=2000)

    pages = list(read_apart(store, request, list(divided(source).shares(request))))

    assert 3 <= len(pages)
    assert PAGE_BYTES >= max(sum(map(item_bytes, page.items)) for page in pages)
    assert {*numbered(500), *values} == {item.key for item in items_of(iter(pages))}


@pytest.mark.parametrize("store", DIVISIBLE_KINDS, indirect=True)
def test_a_share_of_another_store_is_refused(source: KVSource) -> None:
    """Its position, too, where a scan would go on."""
    with pytest.raises(SourceError, match="no position"):
        list(divided(source).shares(ScanRequest(), after="x@y"))


def test_a_change_mark_changes_with_the_store(store: Store, source: KVSource) -> None:
    """Equal marks mean that nothing changed; a store that cannot tell has none."""
    store.put({"a": b"1"})
    before = source.change_mark()
    assert source.change_mark() == before

    store.put({"b": b"1"})

    assert before is None or source.change_mark() != before
