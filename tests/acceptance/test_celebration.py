"""The whole celebration: a run reports exactly what the generator's books say."""

import json
from typing import Any

import pytest
import redis

from kvmigrate.demo.celebration import Celebration, Manifest
from kvmigrate.model import Bin
from kvmigrate.stores.load import load
from tests.shop_run import ShopRun

SEED, SIZE = 42, 2000
REST_BYTES = "SELECT rest::text FROM {} WHERE rest IS NOT NULL"


@pytest.fixture(params=["redis", "kv table"])
def run(
    request: pytest.FixtureRequest, redis_client: redis.Redis, redis_url: str, database: str
) -> tuple[ShopRun, Manifest]:
    """A shop loaded into a store, an empty database, and the complete books."""
    in_table = request.param == "kv table"
    source = f"{database}{'&' if '?' in database else '?'}table=kv_store_6fcaeea3" if in_table else redis_url
    celebration = Celebration(SEED, SIZE, jsonb=in_table)
    load(celebration, source)
    return ShopRun(redis_client, source, database), celebration.manifest


def drift(report: dict[str, Any], name: str) -> tuple[int, ...]:
    """Sum what a report says of all index lists of one pattern."""
    lists = [each for each in report["pointers"] if each["name"] == name]
    return tuple(sum(each[field] for each in lists) for field in ("listed", "real", "dangling", "unlisted"))


def test_a_run_reports_what_was_injected(run: tuple[ShopRun, Manifest]) -> None:
    """Bins, entities, rows, reasons, index lists and rest are those of the books; store and tables agree."""
    shop, books = run
    report = shop.backfill()

    assert {"scanned": SIZE, **{str(each): books.bins[each] for each in Bin}} == {
        name: report[name] for name in ("scanned", *map(str, Bin))
    }
    assert dict(books.reasons) == report["quarantine_reasons"]
    assert dict(books.rows) == {table: count for table, count in report["rows"].items() if count}
    for name, expected in books.pointers.items():
        assert (expected.listed, expected.real, expected.dangling, expected.unlisted) == drift(report, name), name
    assert report["moving"] is False

    for table, weight in books.rest_bytes.items():
        rests = [json.loads(text) for (text,) in shop.rows(REST_BYTES.format(table))]
        assert weight == sum(
            len(json.dumps(rest, ensure_ascii=False, separators=(",", ":")).encode()) for rest in rests
        ), table
    for column, count in books.nulled.items():
        table, name = column.split(".")
        assert count <= shop.rows(f"SELECT count(*) FROM {table} WHERE {name} IS NULL")[0][0]  # noqa: S608 - names of the books

    verified = shop.verify()
    assert not verified.divergent, verified.to_json()
    # An item with a reference that is NULL until its row exists is written, and compared like all others.
    assert (books.bins[Bin.WRITTEN], books.bins[Bin.WAITING]) == (verified.compared, verified.pending)
    assert {f"on_missing null: {column}" for column in books.nulled} == set(verified.tolerances)
    assert books.bins[Bin.QUARANTINED] == verified.not_comparable
    assert books.bins[Bin.WRITTEN] * 0.99 < verified.matched
