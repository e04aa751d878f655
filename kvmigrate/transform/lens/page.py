"""What one page of items became: rows ready for COPY, and every item in one place."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmigrate.model import Item, ItemKind, Refusal
from kvmigrate.transform.keys.route import Route, RouteKind
from kvmigrate.transform.values.content_hash import content_hash, digest
from kvmigrate.transform.values.pack import row_head, staged_row_head

_USUAL_PAGE = 4_096


Block = tuple[str, bytes, int, int]
"""A table's rows as the compiled emitter made them, how many, and the bytes of JSON text in their rests."""

Routed = tuple[int, Item, tuple[str, ...]]
"""An item, its ordinal in the page, and the captures of its key in the template's order."""


class Left(NamedTuple):
    """An item that stays in the KV store by declaration."""

    key: str
    reason: str


class Accepted(NamedTuple):
    """An item that became rows; *ordinal* is its place in the page, and the first field of each staged row."""

    ordinal: int
    key: str
    entity: int
    content_hash: bytes
    expires_at_ms: int | None


@dataclass(slots=True)
class PageRows:
    """What `Lens.page` made of a page.

    Attributes:
        tables: Binary COPY rows by table, without header and trailer: the table's columns.

        staged: Each row has one more field, the first: the item's ordinal in the page, as int4.

        rest_bytes: Bytes of JSON text in rest columns, by table.

        normalised: Counts of declared losses, by name.
    """

    staged: bool = True
    tables: dict[str, bytes] = field(default_factory=dict)
    row_counts: dict[str, int] = field(default_factory=dict)
    rest_bytes: dict[str, int] = field(default_factory=dict)
    normalised: dict[str, int] = field(default_factory=dict)
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[tuple[Item, Refusal]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    pointers: list[Item] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


class Heads(dict[int, bytes]):
    """The first bytes of a table's rows by ordinal, remembered for ordinals of usual pages."""

    def __init__(self, columns: int, *, staged: bool) -> None:
        """Make those of a table with so many columns."""
        self._columns, self._staged = columns, staged
        super().__init__({ordinal: self._head(ordinal) for ordinal in range(_USUAL_PAGE)})

    def _head(self, ordinal: int) -> bytes:
        return staged_row_head(self._columns + 1, 4, ordinal) if self._staged else row_head(self._columns)

    def __missing__(self, ordinal: int) -> bytes:
        return self._head(ordinal)


heads = functools.cache(Heads)
"""Return the heads of a number of columns, staged or not."""


class PageBuilder:
    """Collects a page's rows; *parts* are joined at the end."""

    def __init__(self, *, staged: bool = True) -> None:
        """Start empty."""
        self.page = PageRows(staged)
        self.parts: dict[str, list[bytes]] = {}
        self.counts: Counter[str] = Counter()
        self.rest_bytes: Counter[str] = Counter()
        self.normalised: Counter[str] = Counter()

    def heads(self, columns: int) -> Heads:
        """Return the first bytes of the rows of a table with so many columns, by ordinal."""
        return heads(columns, staged=self.page.staged)

    def aside(self, item: Item, route: Route) -> None:
        """Note an item whose key belongs to no entity."""
        if route.kind is RouteKind.POINTER:
            self.page.pointers.append(item)
        elif route.kind is RouteKind.LEFT_IN_KV:
            self.page.left.append(Left(item.key, route.reason))
        else:
            self.page.unmatched.append(item.key)

    def add_row(self, table: str, packed: bytes, rest_bytes: int) -> None:
        """Add one packed row."""
        self.parts.setdefault(table, []).append(packed)
        self.counts[table] += 1
        if rest_bytes:
            self.rest_bytes[table] += rest_bytes

    def add_rows(self, table: str, parts: list[bytes], parts_per_row: int) -> None:
        """Add rows as their parts in order, with nothing in rest."""
        if parts:
            self.parts.setdefault(table, []).extend(parts)
            self.counts[table] += len(parts) // parts_per_row

    def add_emitted(self, accepted: list[Accepted], blocks: list[Block]) -> None:
        """Add what the compiled emitter made of items."""
        self.page.accepted += accepted
        for table, rows, count, rest_bytes in blocks:
            self.parts.setdefault(table, []).append(rows)
            self.counts[table] += count
            if rest_bytes:
                self.rest_bytes[table] += rest_bytes

    def add_odd(self, losses: list[str], rest_bytes: dict[str, int]) -> None:
        """Add what odd items lost by declaration, and the bytes of their rests."""
        self.normalised.update(losses)
        for table, count in rest_bytes.items():
            if count:
                self.rest_bytes[table] += count

    def accept(self, ordinal: int, item: Item, entity: int) -> None:
        """Note an item whose rows were all added."""
        self.page.accepted.append(Accepted(ordinal, item.key, entity, content_hash(item), item.expires_at_ms))

    def accept_all(self, routed: list[Routed], entity: int) -> None:
        """Note items whose rows were all added, as `accept` does one."""
        if not routed:
            return
        ordinals, items, _ = zip(*routed, strict=True)
        keys, values, kinds, expiries = zip(*items, strict=True)
        usual = expiries.count(None) == len(items) == kinds.count(ItemKind.JSON)
        hashes = map(digest, values) if usual else map(content_hash, items)
        fields = zip(ordinals, keys, itertools.repeat(entity), hashes, expiries, strict=False)
        # The tuple's own __new__: the class has one in Python, which takes three times as long.
        self.page.accepted.extend(map(tuple.__new__, itertools.repeat(Accepted), fields))

    def finish(self) -> PageRows:
        """Return the page."""
        page = self.page
        page.tables = {table: b"".join(rows) for table, rows in self.parts.items()}
        page.row_counts, page.rest_bytes = dict(self.counts), dict(self.rest_bytes)
        page.normalised = dict(self.normalised)
        return page
