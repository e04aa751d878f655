"""A small shop: a mapping with every kind of link between items, its tables, and a store to fill them from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest
import redis

from kvmigrate.model import Item
from kvmigrate.stores.open import open_source
from kvmigrate.target.base import Applied, Batch, Label
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping

SHOP = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}", "clients:{id}"]
    table: clients
    columns:
      id:    {key: id, type: text}
      name:  {path: name, type: text, required: true}
      email: {path: email, type: text, personal: true}
    primary_key: [id]
    unique: [[email]]
  product:
    keys: ["product:{id}"]
    table: products
    columns:
      id:    {key: id, type: text}
      owner: {path: owner, type: text, references: client, on_missing: wait}
      sku:   {path: sku, type: text}
      price: {path: price, type: "numeric(12,2)"}
    primary_key: [id]
    unique: [[sku]]
  order:
    keys: ["order:{id}"]
    table: orders
    columns:
      id:     {key: id, type: bigint}
      client: {path: client, type: text, references: client, on_missing: quarantine}
    primary_key: [id]
    expires: column
    children:
      order_items:
        each: items
        parent: {order_id: id}
        columns:
          position: {ordinal: true}
          product:  {path: product, type: text, references: product, on_missing: "null"}
          quantity: {path: quantity, type: integer}
  event:
    keys: ["event:{name}"]
    table: events
    columns:
      id:   {path: id, type: bigint}
      name: {key: name, type: text}
      kind: {path: kind, type: text}
    primary_key: [id]
  event_note:
    keys: ["note:{id}"]
    table: event_notes
    columns:
      id:    {key: id, type: text}
      event: {path: event, type: bigint, references: event, on_missing: wait}
    primary_key: [id]
  tag_list:
    keys: ["tags:{owner}"]
    rows_only: true
    columns:
      owner: {key: owner, type: text}
    children:
      tags:
        each: ""
        parent: {owner: owner}
        columns:
          position: {ordinal: true}
          tag:      {value: true, type: text}
  setting:
    keys: ["setting:{id}", "settings:{id}"]
    table: settings
    on_same_row: quarantine
    columns:
      id:    {key: id, type: text}
      value: {path: value, type: jsonb}
    primary_key: [id]
pointers:
  - {key: "clients:all", lists: client}
  - {key: "owned:{owner}", lists: product}
  - {key: "sku:{sku}", points_to: product, by: sku}
leave_in_kv:
  - {key: "session:{token}", reason: "short-lived"}
"""


def item(key: str, value: object, expires_at_ms: int | None = None) -> Item:
    """An item whose value is *value* as JSON; bytes are taken as they are."""
    stored = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Item(key, stored, expires_at_ms=expires_at_ms)


class Shop:
    """A target with the shop's empty tables, and short ways to write and look."""

    def __init__(self, target: PostgresTarget, connection: psycopg.Connection[Any]) -> None:
        self.target = target
        self.lens = target.lens
        self.pg = connection
        self.run = target.begin_run("backfill", "test")

    def sweep(self) -> Label:
        """The label of a new sweep."""
        return self.target.begin_sweep(self.run)

    def apply(self, *items: Item, label: Label | None = None) -> Applied:
        """Apply items as one batch, by default in a sweep of its own."""
        rows = self.lens.page(items)
        return self.target.apply(Batch(items, rows, label or self.sweep()))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        return self.pg.execute(query.encode(), values or None).fetchall()

    def column(self, query: str, *values: object) -> list[Any]:
        """The first column of the answer to a query."""
        return [row[0] for row in self.rows(query, *values)]

    def statuses(self) -> dict[str, str]:
        """Each key's status in the ledger."""
        found = self.rows("SELECT key, CASE WHEN deleted THEN 'deleted' ELSE status END FROM kvmigrate.ledger")
        return dict(found)

    def reasons(self) -> dict[str, str]:
        """Each quarantined key's reason."""
        return dict(self.rows("SELECT key, reason FROM kvmigrate.quarantine"))

    def waits(self) -> list[tuple[str, str, str]]:
        """What waits: key, reason and value, in key order."""
        found = self.rows("SELECT key, reason, on_value FROM kvmigrate.waiting ORDER BY key, place")
        return [(key, reason, value) for key, reason, value in found]

    def retry(self, items: Sequence[Item], label: Label | None = None) -> list[str]:
        """Apply again, out of *items*, those that are due; return their keys."""
        self.target.mark_due()
        due = self.target.due_keys(after="", limit=1000)
        by_key = {each.key: each for each in items}
        if due:
            self.apply(*(by_key[key] for key in due), label=label)
        return due


@pytest.fixture(scope="session")
def shop_lens() -> Lens:
    """The compiled mapping of the shop."""
    return compile_mapping(load_mapping(SHOP))


@pytest.fixture
def shop(database: str, shop_lens: Lens) -> Iterator[Shop]:
    """The shop's empty tables with a run begun."""
    with (
        PostgresTarget.connect(database, shop_lens) as target,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        target.install()
        target.ensure_tables()
        yield Shop(target, connection)


class Fill:
    """Puts values into an empty Redis and is the source that reads them."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.client = client
        self.source = open_source(url)

    def __call__(self, values: Mapping[str, object]) -> None:
        """Set keys to JSON values; bytes are stored as they are."""
        pipeline = self.client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value if isinstance(value, bytes) else json.dumps(value))
        pipeline.execute()

    def delete(self, *keys: str) -> None:
        """Delete keys."""
        self.client.delete(*keys)


@pytest.fixture
def fill(redis_url: str, redis_client: redis.Redis) -> Iterator[Fill]:
    """An empty Redis to fill, and the source over it."""
    filled = Fill(redis_url, redis_client)
    yield filled
    filled.source.close()
