"""What a page of a query is asked for by: the columns that order it, and where it begins. No driver here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Ordered(NamedTuple):
    """A column that orders a query."""

    column: str
    descending: bool = False


class Keyset(NamedTuple):
    """Where a page stands.

    Attributes:
        order: No two rows are equal in all of these columns, and none of them is null.

        after: The values that the last row of the page before has in them; ``None`` for the first page.

        limit: Rows at most.
    """

    order: Sequence[Ordered]
    after: Sequence[Any] | None
    limit: int
