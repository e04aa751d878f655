"""The example's store, loaded into each kind of store and read back."""

import json
import sqlite3
from pathlib import Path

import psycopg
import pytest
import redis

from kvmigrate.demo.celebration import MIN_SIZE, generate
from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.load import load
from kvmigrate.stores.open import open_source

SEED = 5


def read_back(url: str) -> dict[str, Item]:
    """Return all items of a source by key."""
    source = open_source(url)
    try:
        return {item.key: item for page in source.scan(ScanRequest()) for item in page.items}
    finally:
        source.close()


def parsed(item: Item) -> object:
    """Return the JSON value of an item."""
    assert isinstance(item.value, bytes)
    return json.loads(item.value)


def test_redis_holds_the_same_bytes_and_expiries(redis_url: str) -> None:
    """Every item stands in Redis byte for byte, and expires when it should."""
    items = {item.key: item for item in generate(SEED, MIN_SIZE)}

    assert MIN_SIZE == load(items.values(), redis_url)
    assert items == read_back(redis_url)


def test_redis_takes_more_than_one_pipeline(redis_client: redis.Redis, redis_url: str) -> None:
    """The number returned and the number stored agree across pipelines."""
    many = (Item(f"k:{number}", b"1") for number in range(2001))

    assert load(many, redis_url) == redis_client.dbsize()


def test_a_kv_table_holds_the_same_values(database: str) -> None:
    """Every item of a jsonb shop stands in the table with the same JSON value."""
    items = {item.key: item for item in generate(SEED, MIN_SIZE, jsonb=True)}
    url = f"{database}{'&' if '?' in database else '?'}table=kv_store_6fcaeea3"

    assert MIN_SIZE == load(items.values(), url)
    assert {key: parsed(item) for key, item in items.items()} == {
        key: parsed(item) for key, item in read_back(url).items()
    }


def test_a_kv_table_keeps_expiries_where_it_has_a_column(database: str) -> None:
    """With ``expires_column`` the expiries come back to the millisecond."""
    url = f"{database}{'&' if '?' in database else '?'}table=kv&expires_column=expires_at"
    load([Item("a", b"1", expires_at_ms=2_082_758_400_123), Item("b", b"2")], url)

    assert {"a": 2_082_758_400_123, "b": None} == {key: item.expires_at_ms for key, item in read_back(url).items()}


def test_what_jsonb_refuses_leaves_no_table(database: str) -> None:
    """A value that is not JSON is told, and nothing is written."""
    with pytest.raises(SourceError, match="json"):
        load([Item("a", b"1"), Item("b", b"{")], f"{database}{'&' if '?' in database else '?'}table=kv")

    with psycopg.connect(database) as connection:
        assert (None,) == connection.execute("SELECT to_regclass('kv')").fetchone()


def test_sqlite_holds_the_same_bytes(tmp_path: Path) -> None:
    """A SQLite table holds every value as it was made; it has no expiries."""
    items = {item.key: item._replace(expires_at_ms=None) for item in generate(SEED, MIN_SIZE)}
    url = f"sqlite://{tmp_path}/shop.db?table=kv"

    assert MIN_SIZE == load(items.values(), url)
    assert items == read_back(url)


def test_sqlite_refuses_a_second_load(tmp_path: Path) -> None:
    """A key that stands there already is an error, and the first load stays."""
    url = f"sqlite://{tmp_path}/shop.db?table=kv"
    load([Item("a", b"1")], url)
    with pytest.raises(SourceError, match="UNIQUE"):
        load([Item("b", b"2"), Item("a", b"3")], url)

    with sqlite3.connect(tmp_path / "shop.db") as connection:
        assert [("a", "1")] == connection.execute("SELECT key, value FROM kv").fetchall()


def test_an_export_file_holds_the_same_items(tmp_path: Path) -> None:
    """An NDJSON export gives the items back, values that are not JSON included."""
    items = {item.key: item for item in generate(SEED, MIN_SIZE)}
    url = f"file://{tmp_path}/shop.ndjson"

    assert MIN_SIZE == load(items.values(), url)
    assert items == read_back(url)


@pytest.mark.parametrize(
    "url", ["sqlite:///nowhere/at/all.db?table=kv", "redis+cluster://localhost", "file:///nowhere/x"]
)
def test_a_store_that_cannot_be_loaded_is_told(url: str) -> None:
    """No folder, or a kind of store that is not loaded: an error with a hint."""
    with pytest.raises(ConfigError) as caught:
        load([], url)

    assert caught.value.hint


def test_only_plain_values_are_loaded(redis_url: str) -> None:
    """A hash is refused by name instead of being stored as something else."""
    with pytest.raises(SourceError, match="user:1"):
        load([Item("user:1", {b"a": b"1"}, ItemKind.HASH)], redis_url)
