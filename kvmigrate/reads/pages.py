# This file is generated from pages_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Pages of a query, each asked for by where the one before ended.

This module is the generated twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from kvmigrate.errors import ConfigError
from kvmigrate.reads.cursor import Cursors
from kvmigrate.target.keyset_base import Keyset, Ordered
from kvmigrate.target.writer_base import RowQuery

M = TypeVar("M")


class RowPage(NamedTuple, Generic[M]):
    """One page.

    Attributes:
        rows: In order.

        cursor: Of the page behind this one; "" where this is the last.
    """

    rows: list[M]
    cursor: str


class Pages(Generic[M]):
    """A query in pages. Rows that come or go meanwhile move no others: none is seen twice, none is left out."""

    def __init__(
        self,
        rows: RowQuery,
        model: Callable[..., M],
        sql: str,
        *,
        order: Sequence[str],
        secrets: Sequence[bytes],
        most: int,
    ) -> None:
        """See `Reads.pages`."""
        self._rows, self._model, self._sql, self._most = rows, model, sql, most
        self._order = [_ordered(each) for each in order]
        if not self._order:
            raise ConfigError("pages have an order", hint='order=["created_at desc", "id"]')
        self._cursors = Cursors(secrets, f"{sql}\0{self._order}")

    def page(self, *values: Any, size: int = 50, cursor: str = "", deadline_s: float = 0.25) -> RowPage[M]:
        """Return one page.

        Args:
            *values: Of the query, in the order of their places. A cursor holds for the same values alone.

            size: Rows; at most as many as the pages may have.

            cursor: What the page before said; "" for the first one.

            deadline_s: Seconds for everything together.

        Raises:
            ConfigError: *cursor* is none of this query, or *size* is none. DeadlineError, TargetError: as of `fetch`.
        """
        if not 0 < size <= self._most:
            raise ConfigError(f"a page of {size} rows", hint=f"from 1 to {self._most}")
        after = self._cursors.read(cursor, values) if cursor else None
        # One more, which says whether there is another page.
        keyset = Keyset(self._order, after, size + 1)
        found = self._rows.page(self._sql, values, keyset, deadline_s=deadline_s)
        rows = found[:size]
        more = ""
        if len(found) > size:
            more = self._cursors.write([rows[-1][each.column] for each in self._order], values)
        return RowPage([self._model(**row) for row in rows], more)


def _ordered(text: str) -> Ordered:
    column, _, way = text.partition(" ")
    if not column or way.strip().lower() not in {"", "asc", "desc"}:
        raise ConfigError(f"{text!r} orders nothing", hint='a column of the query, such as "created_at desc"')
    return Ordered(column, way.strip().lower() == "desc")
