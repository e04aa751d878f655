"""Tables that are written live: a shop at epoch 1, its live functions, and one of every side that writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from kvmigrate.model import Authority, Item, Version
from kvmigrate.target.base import Applied, Batch, Label
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.target.live_install import install_live
from kvmigrate.target.live_postgres import PostgresLiveTarget
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.lens import Lens

DEADLINE_S = 30.0
"""Long enough for a busy machine: what a test waits for, not what it measures."""


class Live:
    """A mapping's tables while both sides are written.

    Attributes:
        url: Of the database.

        pg: A connection that looks, and changes what no side would.
    """

    def __init__(self, url: str, lens: Lens, connection: psycopg.Connection[Any]) -> None:
        self.url, self.lens, self.pg = url, lens, connection
        with PostgresTarget.connect(url, lens) as target:
            target.install()
            target.ensure_tables()
        self.open(1, Authority.STORE)
        install_live(url, lens)
        self.target = PostgresLiveTarget(url, lens)
        self.writer = LiveWriter(url, lens)

    def close(self) -> None:
        """Close both sides."""
        self.target.close()
        self.writer.close()

    def open(self, epoch: int, authority: Authority) -> None:
        """Set epoch and authority, as the controller does."""
        self.pg.execute("UPDATE kvmigrate.control SET epoch = %s, authority = %s", [epoch, authority.value])

    def mirror(self, each: Item, n: int, *, epoch: int = 1) -> bool:
        """Mirror an item, as a writer does."""
        return self.writer.mirror(each, each.key, Version(epoch, n), deadline_s=DEADLINE_S)

    def mirror_gone(self, key: str, n: int, *, epoch: int = 1) -> bool:
        """Mirror a deletion."""
        return self.writer.mirror(None, key, Version(epoch, n), deadline_s=DEADLINE_S)

    def apply(self, *items: Item, n: int, epoch: int = 1) -> Applied:
        """Apply items as one observation, as the relay does."""
        return self.target.apply(Batch(items, self.lens.page(items), Label(LIVE_RUN, Version(epoch, n))))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        return self.pg.execute(query.encode(), values or None).fetchall()

    def column(self, query: str, *values: object) -> list[Any]:
        """The first column of the answer to a query."""
        return [row[0] for row in self.rows(query, *values)]

    def versions(self) -> dict[str, tuple[int, int, str]]:
        """Each key's version and status in the ledger."""
        found = self.rows(
            "SELECT key, epoch, n, CASE WHEN deleted THEN 'deleted' ELSE status END FROM kvmigrate.ledger ORDER BY key"
        )
        return {key: (epoch, n, status) for key, epoch, n, status in found}

    def dump(self) -> dict[str, list[str]]:
        """All rows of all tables of the mapping, as texts."""
        found = {}
        for _, table in self.lens.mapping.tables():
            query = psycopg.sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(
                psycopg.sql.Identifier(self.lens.mapping.schema, table.name)
            )
            found[table.name] = [row[0] for row in self.pg.execute(query).fetchall()]
        return found


@pytest.fixture
def live(database: str, shop_lens: Lens) -> Iterator[Live]:
    """The shop's empty tables at epoch 1 with the store open."""
    with psycopg.connect(database, autocommit=True) as connection:
        made = Live(database, shop_lens, connection)
        yield made
        made.close()
