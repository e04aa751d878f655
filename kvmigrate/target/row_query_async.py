"""Queries of an application on the tables, in time; implements `writer_base_async.AsyncRowQuery`.

This module has a generated twin without ``await``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.target.keyset import by_column, paged
from kvmigrate.target.keyset_base import Keyset
from kvmigrate.target.log_position import WRITTEN
from kvmigrate.target.timed_async import AsyncTimedPool


class AsyncPostgresRowQuery:
    """A few connections for reading, opened when first needed. A forked process opens its own."""

    def __init__(self, url: str, *, connections: int = 2, is_standby: bool = False) -> None:
        """Keep *url*, of a standby or not. Raises `TargetError` where it cannot be read."""
        self._pool = AsyncTimedPool(url, application_name="kvmigrate:reads", size=connections, is_standby=is_standby)

    async def fetch(self, sql: str, values: Sequence[Any], *, deadline_s: float) -> Sequence[Mapping[str, Any]]:
        """Return the rows of one statement by column; see `AsyncRowQuery.fetch`."""
        async with self._pool.within(deadline_s) as connection:
            # The application's own text, with its values apart.
            cursor = await connection.execute(sql.encode(), values or None)
            return by_column(cursor, await cursor.fetchall())

    async def page(
        self, sql: str, values: Sequence[Any], keyset: Keyset, *, deadline_s: float
    ) -> Sequence[Mapping[str, Any]]:
        """Return one page of a statement; see `AsyncRowQuery.page`."""
        statement, given = paged(sql, values, keyset)
        async with self._pool.within(deadline_s) as connection:
            cursor = await connection.execute(statement, given)
            return by_column(cursor, await cursor.fetchall())

    async def position(self, *, deadline_s: float) -> int:
        """Return a position of the log behind all that was committed before."""
        async with self._pool.within(deadline_s) as connection:
            cursor = await connection.execute(WRITTEN)
            [(position,)] = await cursor.fetchall()
        return int(position)

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._pool.close()
