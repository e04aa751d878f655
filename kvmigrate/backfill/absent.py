"""How many items a source may lack before it is taken for a wrong or partial one."""

from __future__ import annotations

from kvmigrate.errors import AbsentItemsError

FEW_ITEMS = 100
"""So many items may be gone from the store that was read the last time, but never more than half of them."""

FEW_OF = 20
"""Of larger stores, and of a source that was not read before, one item in so many (5 %) may be gone."""


def check_absent(absent: int, live: int, *, source: str, before: str) -> None:
    """Refuse to take items for gone that a source lacks, when they are many.

    Deletions cannot be told from a source that holds only a part: an export cut
    short, a filtered copy, the exported quarantine, another database of the server.

    Args:
        absent: Items of the ledger that the source does not have.

        live: Items of the ledger that are not deleted.

        source: Name of the source.

        before: Name of the source of the last backfill, or "".

    Raises:
        AbsentItemsError: they are more than 5 % of *live*, and more than 100, more than
            half, or absent from another source than the last time.
    """
    few = min(FEW_ITEMS, live // 2) if before in {source, ""} else 0
    if absent <= max(few, live // FEW_OF):
        return
    other = f"; the last backfill read {before}" if before else ""
    raise AbsentItemsError(
        f"{absent} of {live} items that were migrated are not in {source}{other}; nothing was deleted",
        hint="is this the whole store? If they are meant to be gone: `kvmigrate backfill --accept-deletes`",
    )
