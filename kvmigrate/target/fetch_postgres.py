"""A query on the tables, timed: what the demo shows beside the reads that it replaces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg

from kvmigrate.target.address import connect
from kvmigrate.target.session import house_error


class Fetched(NamedTuple):
    """Rows, and how long they took from sending the query, in seconds."""

    rows: list[tuple[Any, ...]]
    duration_s: float


def fetch_timed(url: str, query: LiteralString, parameters: Sequence[Any] = ()) -> Fetched:
    """Run *query* on the database behind *url*, the second time with a warm cache, and return that.

    Raises:
        TargetError: PostgreSQL cannot be reached, or refused.
    """
    try:
        with connect(url, application_name="kvmigrate:demo") as connection:
            connection.execute(query, parameters).fetchall()
            begin = time.perf_counter()
            rows = connection.execute(query, parameters).fetchall()
            return Fetched(rows, time.perf_counter() - begin)
    except psycopg.Error as exc:
        raise house_error(exc) from exc
