"""What waiting items wait for by the id that applications know, where the tables have a UUID made of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.errors import SourceError
from kvmigrate.model import Item
from kvmigrate.target.waiting_list import WaitingEntry
from kvmigrate.transform.values.types import foreign_uuid


def with_own_ids(
    entries: Sequence[WaitingEntry], read: Callable[[Sequence[str]], Sequence[Item | None]]
) -> list[WaitingEntry]:
    """Return *entries*, their values as the waiting items have them, as far as the store tells; else as they are.

    *read* returns what the store has under keys, and may raise `SourceError`.
    """
    made = [entry.key for entry in entries if _is_made(entry.value)]
    if not made:
        return list(entries)
    try:
        items = dict(zip(made, read(made), strict=True))
    except SourceError:
        return list(entries)
    return [_with_own_id(entry, items.get(entry.key)) for entry in entries]


def _with_own_id(entry: WaitingEntry, item: Item | None) -> WaitingEntry:
    if item is None or not _is_made(entry.value):
        return entry
    wanted = uuid.UUID(entry.value)
    own = next((text for text in _texts_of(item) if foreign_uuid(entry.waits_for, text) == wanted), None)
    return entry if own is None else entry._replace(value=own)


def _is_made(value: str) -> bool:
    try:
        return uuid.UUID(value).version == 5
    except ValueError:
        return False


def _texts_of(item: Item) -> Iterator[str]:
    """Yield every text and whole number that stands in the item or its key: one of them is the id."""
    yield from item.key.split(":")
    todo: list[Any] = [item.value]
    while todo:
        value = todo.pop()
        if isinstance(value, bytes):
            try:
                todo.append(json.loads(value))
            except (ValueError, RecursionError):
                yield value.decode(errors="replace")
        elif isinstance(value, Mapping):
            todo += [*value.values(), *value]
        elif isinstance(value, list | tuple):
            todo += value
        elif isinstance(value, str) or type(value) is int:
            yield str(value)
