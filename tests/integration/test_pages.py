"""Pages of a query: every row once, in order, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from kvmigrate.errors import ConfigError
from kvmigrate.reads.pages import Pages
from kvmigrate.reads.pages_async import AsyncPages
from kvmigrate.target.keyset import paged
from kvmigrate.target.keyset_base import Keyset, Ordered
from kvmigrate.target.row_query import PostgresRowQuery
from kvmigrate.target.row_query_async import AsyncPostgresRowQuery

SQL = "SELECT id, day, name FROM gifts WHERE shop = %s;"
ORDERS = [["day desc", "id"], ["day", "id"], ["day desc", "id desc"], ["name", "day DESC", "id asc"]]
SECRET = b"s" * 16


@pytest.fixture
def gifts(pg: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Twenty gifts of seven days and three names, and some of another shop."""
    pg.execute("CREATE TABLE gifts (id int PRIMARY KEY, shop int NOT NULL, day date NOT NULL, name text NOT NULL)")
    pg.execute("CREATE INDEX ON gifts (shop, day, id)")
    pg.execute("""
        INSERT INTO gifts SELECT n, n / 21, date '2026-01-01' + n % 7, 'gift ' || n % 3 FROM generate_series(1, 40) AS n
    """)
    return pg


def turned(page: Callable[[str], Any], write: Callable[[], None]) -> list[int]:
    """The ids of all pages, with something written after each."""
    seen: list[int] = []
    cursor = ""
    while True:
        found = page(cursor)
        seen += [row["id"] for row in found.rows]
        cursor = found.cursor
        if not cursor:
            return seen
        write()


@pytest.mark.parametrize("order", ORDERS, ids=",".join)
def test_every_row_once_while_others_come(database: str, gifts: psycopg.Connection[Any], order: list[str]) -> None:
    """Rows that come before the place that was reached move no page; those of the beginning are all seen, in order."""
    terms = sql.SQL(", ").join(map(sql.SQL, order))
    whole = sql.SQL("SELECT id FROM gifts WHERE shop = 0 ORDER BY {}").format(terms)
    wanted = [row[0] for row in gifts.execute(whole)]
    new = iter(range(100, 200))

    def write() -> None:
        for day in ("2020-01-01", "2030-01-01"):
            gifts.execute("INSERT INTO gifts VALUES (%s, 0, %s, 'gift 0')", [next(new), day])

    rows = PostgresRowQuery(database)
    pages: Pages[dict[str, Any]] = Pages(rows, dict, SQL, order=order, secrets=[SECRET], most=100)
    try:
        found = turned(lambda cursor: pages.page(0, size=3, cursor=cursor, deadline_s=5), write)
    finally:
        rows.close()

    assert len(found) == len(set(found))
    assert wanted == [each for each in found if each < 100]


def test_the_twin_turns_pages_too(database: str, gifts: psycopg.Connection[Any]) -> None:
    """In an event loop."""
    del gifts

    async def main() -> list[int]:
        rows = AsyncPostgresRowQuery(database)
        pages: AsyncPages[dict[str, Any]] = AsyncPages(rows, dict, SQL, order=["id"], secrets=[SECRET], most=100)
        seen, cursor = [], ""
        for _ in range(2):
            found = await pages.page(0, size=12, cursor=cursor, deadline_s=5)
            seen += [row["id"] for row in found.rows]
            cursor = found.cursor
        await rows.close()
        assert cursor == ""
        return seen

    assert list(range(1, 21)) == asyncio.run(main())


@pytest.mark.parametrize("descending", [(False, False), (True, True), (True, False)])
def test_a_page_begins_in_the_index(gifts: psycopg.Connection[Any], descending: tuple[bool, bool]) -> None:
    """It costs what the first one costs: nothing before it is read."""
    order = [Ordered("day", descending[0]), Ordered("id", descending[1])]
    statement, values = paged(SQL, [0], Keyset(order, ["2026-01-04", 9], 3))
    gifts.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")

    plan = gifts.execute(sql.SQL("EXPLAIN ") + statement, values).fetchall()

    [condition] = [line for (line,) in plan if "Index Cond" in line]
    assert "2026-01-04" in condition


def test_what_is_no_page_is_refused(database: str) -> None:
    """Before anything is asked."""
    rows = PostgresRowQuery(database)
    for order in ([], ["day sideways"], [""]):
        with pytest.raises(ConfigError):
            Pages(rows, dict, SQL, order=order, secrets=[SECRET], most=100)
    pages: Pages[dict[str, Any]] = Pages(rows, dict, SQL, order=["id"], secrets=[SECRET], most=100)
    wrongs: list[dict[str, Any]] = [{"size": 0}, {"size": 101}, {"cursor": "x"}]
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            pages.page(0, **wrong)
    rows.close()
