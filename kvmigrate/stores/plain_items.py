"""Items of plain values, many at once: what most keys of most stores are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import repeat
from typing import cast

from kvmigrate.model import Item, ItemKind

# What a NamedTuple's own constructor does, without a call of Python for each item.
_item = cast("type[Item]", partial(tuple.__new__, Item))


def plain_items(keys: Iterable[str], values: Iterable[bytes | None], expiries: Iterable[int | None]) -> list[Item]:
    """Return an item of JSON for each key; the shortest of the three ends it."""
    return list(map(_item, zip(keys, values, repeat(ItemKind.JSON), expiries, strict=False)))


def unread_items(keys: Iterable[str]) -> list[Item]:
    """Return for each key an item whose value was not read."""
    return list(map(_item, zip(keys, repeat(None), repeat(ItemKind.UNREAD), repeat(None), strict=False)))
