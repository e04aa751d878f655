"""A day of an adapter: every kind of thing that it says to the control schema, always the same."""

from __future__ import annotations

from kvmigrate.model import Item
from kvmigrate.target.base import Batch
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_migration import SHOP, item

EXPIRES_AT_MS = 4_000_000_000_123


def spend_day(url: str) -> None:
    """Write, refuse, wait, replay, remove and undo in an empty database with the control schema."""
    lens = compile_mapping(load_mapping(SHOP))
    with PostgresTarget.connect(url, lens) as target:
        target.install()
        target.ensure_tables()
        run = target.begin_run("backfill", "a day")

        def write(*items: Item) -> None:
            target.apply(Batch(items, lens.page(items), target.begin_sweep(run)))

        write(
            item("client:1", {"name": "Ada", "email": "a@example.org"}),
            item("client:2", {"name": 7, "other": [1, None]}),
            item("product:1", {"owner": "1", "sku": "x", "price": "1.50"}),
            item("product:2", {"owner": "3"}),
            item("order:1", {"client": "1", "items": [{"product": "1"}, {"product": "9"}]}, EXPIRES_AT_MS),
            item("tags:1", ["a", "b"]),
        )
        write(item("client:1", {"name": "Eve"}), item("client:3", {"name": "Bo"}))
        target.mark_due()
        assert ["product:2"] == target.due_keys(after="", limit=10)
        write(item("product:2", {"owner": "3"}))
        list(target.known_contents())
        target.quarantined(after="", limit=10, reason=None, entity=None, keys=(), payload=True)
        target.waiting_items(reason=None, entity=None, limit=10)
        target.remove(["tags:1", "order:1"], target.begin_sweep(run))
        target.tally()
        target.finish_run(run, {"ok": True})
