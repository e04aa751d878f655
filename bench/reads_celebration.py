"""Three endpoints of the gift shop, `celebration`: the code as found, the best code over the store, and one query.

Catalog's products: an index key and a GET for each. Client's monthly report: the same over every order. Product search:
every product, looked at. All three answers are compared before anything is timed.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
import redis

from bench.live_results import median, table
from bench.live_stand import LiveStand
from bench.meter import cpu_s, family_cpu_s
from kvmigrate.config import Settings
from kvmigrate.demo.celebration import mapping_path
from kvmigrate.migration import Migration

CATALOGS = 10
MONTHS = 24
PAGE = 1_000
QUERIES = 20
"""Of SQL in each round, as one takes less than the clock of CPU can tell."""

WORD = "Lantern 7"

GIFTS = """
SELECT id::text, name, price FROM products WHERE catalog_id = %s ORDER BY created_at DESC, id
"""
REPORT = """
SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*), sum(total)
FROM orders WHERE client_id = %s GROUP BY 1 ORDER BY 1
"""
SEARCH = "SELECT id::text FROM products WHERE name ILIKE %s ORDER BY id"


def _id(kind: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{number}"))


class GiftShop(NamedTuple):
    """So many products and orders; every order is of the one client."""

    products: int
    orders: int

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield keys and values, parents first."""
        client = _id("client", 0)
        yield f"client:{client}", {"id": client, "name": "Ada", "status": "active"}
        listed: dict[str, list[str]] = {_id("catalog", number): [] for number in range(CATALOGS)}
        for catalog in listed:
            yield f"catalogs:{catalog}", {"id": catalog, "name": "Gifts", "type": "manual"}
        for number in range(self.products):
            gift, catalog = _id("gift", number), _id("catalog", number % CATALOGS)
            listed[catalog].append(gift)
            yield f"gift:{gift}", _gift(gift, catalog, number)
        orders = []
        for number in range(self.orders):
            orders.append(_id("order", number))
            yield f"order:{orders[-1]}", _order(orders[-1], client, number)
        for catalog, gifts in listed.items():
            yield f"catalog_gifts:{catalog}", {"giftIds": gifts}
        yield f"client_orders:{client}", orders


def _gift(gift: str, catalog: str, number: int) -> dict[str, Any]:
    return {
        "id": gift,
        "catalogId": catalog,
        "sku": f"sku-{number}",
        "name": f"{('Lantern', 'Kettle', 'Scarf', 'Atlas')[number % 4]} {number % 97} of {number // 97}",
        "description": "A gift that people like to get, and that keeps for years.",
        "price": number % 500 + 0.25,
        "currency": "EUR",
        "status": "active",
        "createdAt": f"2025-{number % 12 + 1:02}-{number % 28 + 1:02}T10:00:00Z",
    }


def _order(order: str, client: str, number: int) -> dict[str, Any]:
    month = number % MONTHS
    return {
        "id": order,
        "client_id": client,
        "order_number": f"N-{number}",
        "status": "confirmed",
        "total": number % 900 + 0.5,
        "currency": "EUR",
        "created_at": f"{2024 + month // 12}-{month % 12 + 1:02}-{number % 28 + 1:02}T12:00:00Z",
        "items": [{"quantity": 1, "unit_price": number % 900 + 0.5}],
    }


class Asked(NamedTuple):
    """One endpoint, three ways."""

    name: str
    found: Callable[[], Any]
    best: Callable[[], Any]
    sql: Callable[[], Any]
    goal: int


def celebration(stand: LiveStand, *, orders: int, rounds: int) -> str:
    """Return the table of the three endpoints, with a tenth as many products as orders."""
    shop = GiftShop(max(orders // 10, CATALOGS), orders)
    name = "celebration"
    settings = Settings(stand.redis_url, stand.postgres.create_database(name), mapping_path())
    try:
        with redis.Redis.from_url(stand.redis_url) as client:
            client.flushall()
            items = shop.items()
            while page := dict(itertools.islice(items, PAGE)):
                client.mset({key: json.dumps(value) for key, value in page.items()})
            with Migration.open(settings) as migration:
                migration.backfill(processes=1)
            with psycopg.connect(settings.need_target(), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
                rows = [row for each in _asked(client, connection) for row in _measured(stand, client, each, rounds)]
    finally:
        stand.postgres.drop_database(name)
    return table(
        f"The gift shop's endpoints: {shop.products:,} products of {CATALOGS} catalogs, {orders:,} orders of a client",
        ["ms", "commands or queries", "CPU ms client", "Redis", "PostgreSQL", "times slower than SQL", "goal"],
        rows,
        f"Medians of {rounds} rounds; the code as found ran once. CPU of servers is counted in hundredths of a second.",
    )


def _asked(client: redis.Redis, connection: psycopg.Connection[Any]) -> list[Asked]:
    catalog, person = _id("catalog", 0), _id("client", 0)

    def query(statement: str, value: str) -> list[tuple[Any, ...]]:
        return connection.execute(statement.encode(), [value]).fetchall()

    return [
        Asked(
            "a catalog's products",
            lambda: _gifts(_one_by_one(client, _listed(client, f"catalog_gifts:{catalog}", "gift"))),
            lambda: _gifts(_together(client, _listed(client, f"catalog_gifts:{catalog}", "gift"))),
            lambda: query(GIFTS, catalog),
            100,
        ),
        Asked(
            "a client's monthly report",
            lambda: _report(_one_by_one(client, _listed(client, f"client_orders:{person}", "order"))),
            lambda: _report(_together(client, _listed(client, f"client_orders:{person}", "order"))),
            lambda: query(REPORT, person),
            100,
        ),
        Asked(
            "a search in products",
            lambda: _search(_one_by_one(client, [key.decode() for key in client.scan_iter("gift:*")])),
            lambda: _search(_together(client, [key.decode() for key in client.scan_iter("gift:*", count=PAGE)])),
            lambda: query(SEARCH, f"%{WORD}%"),
            50,
        ),
    ]


def _listed(client: redis.Redis, key: str, kind: str) -> list[str]:
    held = json.loads(client.get(key) or b"[]")
    return [f"{kind}:{each}" for each in (held["giftIds"] if isinstance(held, dict) else held)]


def _one_by_one(client: redis.Redis, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    return (json.loads(client.get(key) or b"{}") for key in keys)


def _together(client: redis.Redis, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(keys), PAGE):
        yield from (json.loads(value or b"{}") for value in client.mget(keys[first : first + PAGE]))


def _gifts(values: Iterator[dict[str, Any]]) -> list[tuple[Any, ...]]:
    made = sorted(values, key=lambda each: each["id"])
    made.sort(key=lambda each: each["createdAt"], reverse=True)
    return [(each["id"], each["name"], Decimal(str(each["price"]))) for each in made]


def _report(values: Iterator[dict[str, Any]]) -> list[tuple[Any, ...]]:
    months: dict[str, tuple[int, Decimal]] = {}
    for each in values:
        count, total = months.get(month := each["created_at"][:7], (0, Decimal(0)))
        months[month] = count + 1, total + Decimal(str(each["total"]))
    return [(month, *told) for month, told in sorted(months.items())]


def _search(values: Iterator[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((each["id"],) for each in values if WORD.lower() in each["name"].lower())


class _Took(NamedTuple):
    """Milliseconds of one call, and commands of the store."""

    wall: float
    commands: int
    client: float
    redis: float
    postgres: float


def _measured(stand: LiveStand, client: redis.Redis, asked: Asked, rounds: int) -> list[list[str]]:
    """Return the rows of one endpoint. Raises `SystemExit` where the answers differ."""
    answers = [asked.found(), asked.best(), asked.sql()]
    if answers[0] != answers[1] or answers[0] != answers[2] or not answers[0]:
        raise SystemExit(f"{asked.name}: the answers differ")
    found = [_timed(stand, client, asked.found, 1)]
    best, sql = [], []
    for _ in range(rounds):
        best.append(_timed(stand, client, asked.best, 1))
        sql.append(_timed(stand, client, asked.sql, QUERIES))
    least = median([each.wall for each in sql])
    told = (("as found", found, asked.goal), ("best over the store", best, None), ("SQL", sql, None))
    return [[f"{asked.name}, {name}", *_row(took, least, goal)] for name, took, goal in told]


def _row(took: list[_Took], least: float, goal: int | None) -> list[str]:
    wall, commands, *cpu = (median([each[place] for each in took]) for place in range(len(_Took._fields)))
    said = [f"{wall:,.2f}", f"{commands or 1:,.0f}", *(f"{each:,.2f}" for each in cpu), f"{wall / least:,.1f}"]
    return [*said, str(goal or "")]


def _timed(stand: LiveStand, client: redis.Redis, call: Callable[[], Any], times: int) -> _Took:
    before, commands = _servers(stand), _commands(client)
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    wall, own = time.perf_counter() - begun, time.process_time() - cpu
    after = _servers(stand)
    counted = (_commands(client) - commands - 1) // times
    spent = (own, after[0] - before[0], after[1] - before[1])
    return _Took(wall / times * 1000, counted, *(each / times * 1000 for each in spent))


def _commands(client: redis.Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])


def _servers(stand: LiveStand) -> tuple[float, float]:
    meter = stand.meter
    return (cpu_s(meter.redis) if meter.redis else 0.0), family_cpu_s(meter.postgres)
