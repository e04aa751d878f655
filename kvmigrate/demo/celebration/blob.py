"""A blob under construction that knows which of its members no column can carry."""

from __future__ import annotations

import json
from typing import Any


def compact(value: object) -> str:
    """Return *value* as compact JSON, as most writers store it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def weight(value: object) -> int:
    """Return the bytes of *value* as compact JSON in UTF-8."""
    return len(compact(value).encode())


class Blob:
    """The members of one object, and what ``rest`` must hold of it.

    Attributes:
        members: The object itself.

        unmapped: The members that no column claims.

        rest: `unmapped`, and every value whose column does not carry its spelling.

        at: Columns whose value stands under another alias than the first.
    """

    __slots__ = ("at", "members", "rest", "unmapped")

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}
        self.unmapped: dict[str, Any] = {}
        self.rest: dict[str, Any] = {}
        self.at: dict[str, str] = {}

    def put(self, name: str, value: Any) -> None:
        """Set a member that its column carries, under the column's first path."""
        self.members[name] = value

    def put_alias(self, column: str, name: str, value: Any) -> None:
        """Set a member that its column carries, under another path than the first."""
        self.members[name] = value
        self.at[column] = name

    def put_residue(self, name: str, value: Any) -> None:
        """Set a member whose spelling its column does not carry: ``rest`` keeps it too."""
        self.members[name] = value
        self.rest[name] = value

    def put_unmapped(self, name: str, value: Any) -> None:
        """Set a member that no column claims."""
        self.members[name] = value
        self.unmapped[name] = value
        self.rest[name] = value

    def put_id(self, column: str, first: str, text: str, *, name: str = "") -> None:
        """Set an id; only a UUID is carried by its column. *name* is an alias of *first*."""
        if len(text) != len("00000000-0000-0000-0000-000000000000"):
            self.put_residue(name or first, text)
        elif name:
            self.put_alias(column, name, text)
        else:
            self.put(first, text)

    def full_rest(self, *, flags: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return what the table's ``rest`` must hold, notes included; empty for SQL NULL."""
        notes: dict[str, Any] = {}
        if self.at:
            notes["at"] = self.at
        if flags:
            notes["item"] = list(flags)
        return {**self.rest, "$": notes} if notes else self.rest
