"""The lens alone: CPU microseconds per item, forward (bytes to COPY rows) and backward (rows to bytes).

The peer in the same run is what a careful script does: `json.loads` with exact decimals,
typed values, one tuple per row; and on the way back a dict and `json.dumps`.

Of *wild* items 30 % have one to three members that no column claims, 10 % an explicit null,
5 % a time or number of another spelling, 5 % an id that is no UUID. The script keeps none of that.
"""

from __future__ import annotations

import json
import pathlib
import random
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bench.machine import describe_machine
from bench.shop import Shop
from kvmigrate.model import Item, RowSet
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping, emitted

PAGE = 1_000
ROUNDS = 7
ITEMS = 20_000


def main() -> None:
    """Print one line per kind: medians over rounds in which ours and the peer take turns."""
    lens = compile_mapping(load_mapping(pathlib.Path(__file__).with_name("mapping.yaml")))
    items = list(Shop(ITEMS, ITEMS).items())
    print(f"lens: CPU us per item, median of {ROUNDS} rounds over {ITEMS:,} items a kind")
    print(describe_machine())
    print(f"forward by {'the compiled emitter' if emitted.native else 'generated Python: no compiled emitter here'}")
    for kind, script in (("product", product_rows), ("order", order_rows)):
        chosen = [item for item in items if item.key.startswith(kind + ":")]
        stored = [(item.key, rows_of(lens, item)) for item in chosen]
        entity = lens.mapping.entity(kind)
        ours, theirs = measure(pages(chosen), lens.page, lambda page, script=script: [script(item) for item in page])
        back, _ = measure(pages(stored), lambda page, e=entity: [lens.backward(e, key, rows) for key, rows in page])
        wild, _ = measure(pages(wild_items(chosen)), lens.page)
        print(
            f"{kind:8} forward {ours:6.2f}   wild {wild:6.2f}   backward {back:6.2f}   script forward {theirs:6.2f}   "
            f"ratio {theirs / ours:.2f}   wild ratio {theirs / wild:.2f}"
        )


def wild_items(items: Sequence[Item]) -> list[Item]:
    """Return the items as a store has them that many programs wrote to for years."""
    pick = random.Random(20_260)
    return [wild_item(item, pick) for item in items]


def wild_item(item: Item, pick: random.Random) -> Item:
    """Make an item odd, or not."""
    blob = json.loads(item.value if isinstance(item.value, bytes) else b"", parse_float=Decimal)
    key = item.key
    if pick.random() < 0.3:
        extras = ("v2", "colour", {"by": "import", "tags": ["a", "b"]}, True, 12.5, 7)
        blob.update({f"extra_{number}": pick.choice(extras) for number in range(pick.randint(1, 3))})
    if pick.random() < 0.1:
        blob[pick.choice([name for name in blob if name not in {"id", "items"}])] = None
    if pick.random() < 0.05:
        price = "price" if "price" in blob else "total"
        name = pick.choice(["created_at", price])
        blob[name] = str(blob[name]).replace("Z", "+00:00")
    if pick.random() < 0.05:
        blob["id"] = f"{key.partition(':')[0]}-{pick.randrange(1_000_000)}"
        key = f"{key.partition(':')[0]}:{blob['id']}"
    return Item(key, json.dumps(blob, separators=(",", ":"), default=float, ensure_ascii=False).encode())


def pages(values: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut into pages."""
    return [values[at : at + PAGE] for at in range(0, len(values), PAGE)]


def measure(batches: list[Sequence[Any]], *calls: Callable[[Any], object]) -> tuple[float, float]:
    """Return the medians of the first call and of the last, in microseconds of CPU per item."""
    seen: list[list[float]] = [[] for _ in calls]
    count = sum(len(batch) for batch in batches)
    for _ in range(ROUNDS):
        for call, figures in zip(calls, seen, strict=True):
            started = time.process_time()
            for batch in batches:
                call(batch)
            figures.append((time.process_time() - started) / count * 1e6)
    return statistics.median(seen[0]), statistics.median(seen[-1])


def rows_of(lens: Lens, item: Item) -> dict[str, list[tuple[Any, ...]]]:
    """Return an item's rows by table, as a cursor would load them."""
    found = lens.forward(item)
    if not isinstance(found, RowSet):
        raise TypeError(found)
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for row in found.rows:
        rows.setdefault(row.table, []).append(tuple(row.values))
    return rows


def product_rows(item: Item) -> tuple[Any, ...]:
    """Turn a product into a typed tuple, as a hand-written script does."""
    blob = json.loads(str(item.value, "utf-8") if isinstance(item.value, bytes) else "", parse_float=Decimal)
    return (
        uuid.UUID(blob["id"]),
        uuid.UUID(blob["catalog_id"]),
        blob["name"],
        blob["description"],
        blob["price"],
        blob["currency"],
        blob["sku"],
        blob["tags"],
        json.dumps(blob["attributes"], default=str),
        blob["active"],
        datetime.fromisoformat(blob["created_at"]),
        datetime.fromtimestamp(blob["updated_at"] / 1000, UTC),
    )


def order_rows(item: Item) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Turn an order into typed tuples, as a hand-written script does."""
    blob = json.loads(str(item.value, "utf-8") if isinstance(item.value, bytes) else "", parse_float=Decimal)
    order = uuid.UUID(blob["id"])
    lines = [
        (order, number, uuid.UUID(line["product_id"]), line["sku"], line["qty"], line["unit_price"])
        for number, line in enumerate(blob["items"])
    ]
    head = (
        order,
        uuid.UUID(blob["site_id"]),
        uuid.UUID(blob["client_id"]),
        blob["status"],
        blob["currency"],
        blob["total"],
        json.dumps(blob["shipping"], default=str),
        datetime.fromisoformat(blob["created_at"]),
        datetime.fromtimestamp(blob["updated_at"] / 1000, UTC),
    )
    return head, lines


if __name__ == "__main__":
    main()
