# This file is generated from row_query_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Queries of an application on the tables, in time; implements `writer_base.RowQuery`.

This module is the generated twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.target.keyset import by_column, paged
from kvmigrate.target.keyset_base import Keyset
from kvmigrate.target.log_position import WRITTEN
from kvmigrate.target.timed import TimedPool


class PostgresRowQuery:
    """A few connections for reading, opened when first needed. A forked process opens its own."""

    def __init__(self, url: str, *, connections: int = 2, is_standby: bool = False) -> None:
        """Keep *url*, of a standby or not. Raises `TargetError` where it cannot be read."""
        self._pool = TimedPool(url, application_name="kvmigrate:reads", size=connections, is_standby=is_standby)

    def fetch(self, sql: str, values: Sequence[Any], *, deadline_s: float) -> Sequence[Mapping[str, Any]]:
        """Return the rows of one statement by column; see `RowQuery.fetch`."""
        with self._pool.within(deadline_s) as connection:
            # The application's own text, with its values apart.
            cursor = connection.execute(sql.encode(), values or None)
            return by_column(cursor, cursor.fetchall())

    def page(
        self, sql: str, values: Sequence[Any], keyset: Keyset, *, deadline_s: float
    ) -> Sequence[Mapping[str, Any]]:
        """Return one page of a statement; see `RowQuery.page`."""
        statement, given = paged(sql, values, keyset)
        with self._pool.within(deadline_s) as connection:
            cursor = connection.execute(statement, given)
            return by_column(cursor, cursor.fetchall())

    def position(self, *, deadline_s: float) -> int:
        """Return a position of the log behind all that was committed before."""
        with self._pool.within(deadline_s) as connection:
            cursor = connection.execute(WRITTEN)
            [(position,)] = cursor.fetchall()
        return int(position)

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._pool.close()
