"""One question asked twice: of the store, as an application does it, and of the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from kvmigrate.migration import Migration
from kvmigrate.target.fetch_postgres import fetch_timed

GIFTS_OF_CATALOG = """\
SELECT name, price, currency FROM products
WHERE catalog_id = %s ORDER BY created_at DESC NULLS LAST"""
BEST_CLIENTS = """\
SELECT c.name, count(*) AS orders, sum(o.total) AS total
FROM orders o JOIN clients c ON c.id = o.client_id
WHERE o.status <> 'cancelled' GROUP BY c.id ORDER BY total DESC NULLS LAST LIMIT 5"""

_GIFT_KEYS = ("gift:{}", "gifts:{}", "gift:production:{}")


def ask(migration: Migration, list_key: str) -> dict[str, Any]:
    """Ask for the gifts of one catalog, both ways, and for the best clients, which only the tables can say.

    Args:
        migration: After its backfill.

        list_key: The index key of the catalog, ``catalog_gifts:<id>``.
    """
    catalog = list_key.partition(":")[2]
    key = migration.lens.primary_key(migration.mapping.entity("catalog"), f"catalogs:{catalog}")
    before = _by_key(migration, list_key)
    gifts = fetch_timed(migration.settings.need_target(), GIFTS_OF_CATALOG, key or ())
    clients = fetch_timed(migration.settings.need_target(), BEST_CLIENTS)
    return {
        "list": list_key,
        "before": before,
        "after": {"sql": GIFTS_OF_CATALOG, "found": len(gifts.rows), "ms": _ms(gifts.duration_s)},
        "new": {
            "sql": BEST_CLIENTS,
            "ms": _ms(clients.duration_s),
            "rows": [[name, orders, str(total)] for name, orders, total in clients.rows],
        },
    }


def _by_key(migration: Migration, list_key: str) -> dict[str, Any]:
    """Read the list, then every gift that it names, one after the other."""
    begin = time.perf_counter()
    [listed] = migration.source.get_many([list_key])
    ids = _value(listed.value)["giftIds"] if listed else []
    found = [_first(migration, ident if isinstance(ident, str) else ident["id"]) for ident in ids]
    gifts = sorted((each for each in found if each), key=lambda each: str(each.get("createdAt", "")), reverse=True)
    duration_s = time.perf_counter() - begin
    return {"listed": len(ids), "reads": 1 + len(ids), "found": len(gifts), "ms": _ms(duration_s)}


def _first(migration: Migration, ident: str) -> Mapping[str, Any] | None:
    """Read a gift under whichever generation of keys it has."""
    items = migration.source.get_many([key.format(ident) for key in _GIFT_KEYS])
    values = [_value(item.value) for item in items if item is not None]
    return next((value for value in values if isinstance(value, dict)), None)


def _value(stored: Any) -> Any:
    """Decode a value, be it encoded twice; ``None`` for what is no JSON."""
    try:
        value = json.loads(stored)
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, TypeError):
        return None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
