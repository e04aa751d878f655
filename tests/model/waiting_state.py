"""Items that need each other: what they hold, when one is refused because of another, and what a transaction plans.

Values of an item: ``""`` absent; ``P`` a row that others refer to; ``Q`` refers to P and is referred to; ``r`` refers
to P, ``s`` to Q; ``r0`` is ``r`` written with null; any other letter is a unique value, or the row of two rival keys.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

GIVES = {"P": "p", "Q": "q"}
NEEDS = {"r": "p", "Q": "p", "s": "q"}
NOT_UNIQUE = frozenset({"", "P", "Q", "r", "s", "r0"})

OK, WAITING, QUARANTINED = "ok", "waiting", "quarantined"


class Naive(enum.Enum):
    """One rule of waiting left out or done the obvious way."""

    QUARANTINE_INSTEAD = enum.auto()
    NO_POLL = enum.auto()
    POLL_ONCE = enum.auto()
    POLL_OLD_SNAPSHOT = enum.auto()
    PROVIDER_WAKES = enum.auto()
    POLL_FORGETS_YIELDING = enum.auto()
    SAME_VERSION_REFUSED = enum.auto()
    LEDGER_STAYS = enum.auto()
    HASH_IGNORES_WAITERS = enum.auto()
    REFERRERS_STAY = enum.auto()
    NO_YIELDING = enum.auto()
    INLINE_ACKS_WHAT_IT_LEFT = enum.auto()
    INLINE_SKIPS_WHAT_IS_REFUSED = enum.auto()
    BATCH_NOT_DEFERRED = enum.auto()
    BATCH_NEVER_SPLIT = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: per item the values written one after the other, and the value before.

    Attributes:
        null: ``on_missing: "null"``; else the item waits.

        plain_mirror: Inline mirrors leave what is odd to the applier; else they do all that it does.

        mirrors: Whether writes are mirrored at once, or by the applier alone.

        batches: The applier takes all that is marked or due in one transaction, checked at its end; else item by item.
    """

    programs: tuple[tuple[str, ...], ...]
    before: tuple[str, ...]
    null: bool = False
    plain_mirror: bool = False
    mirrors: bool = True
    batches: bool = False
    naive: Naive | None = None


class Kept(NamedTuple):
    """A key in the store: value, number of the write that made it, and the mark (0: none)."""

    value: str
    n: int = 0
    mark: int = 0


class Item(NamedTuple):
    """An item in the tables: its row, its ledger (n, status, content) and what it waits for (``""``: nothing)."""

    row: str
    n: int
    status: str
    content: str
    waits: str = ""
    due: bool = False


Items = tuple[Item, ...]


class Observed(NamedTuple):
    """What was read of a key in one step."""

    key: int
    value: str
    n: int
    mark: int


class Transaction(NamedTuple):
    """An apply under way: what it read, its snapshot, what it will write, and the items that it has locked."""

    who: str
    batch: tuple[Observed, ...]
    base: Items
    plan: Items
    locks: tuple[int, ...]


class State(NamedTuple):
    """Everything at one moment; *polls* counts down where a naive poll does not run again and again."""

    store: tuple[Kept, ...]
    items: Items
    net: tuple[tuple[int, str, int], ...]
    applier: tuple[Observed, ...]
    transactions: tuple[Transaction, ...]
    polls: int


def put(items: Items, key: int, item: Item) -> Items:
    """Return the items with one replaced."""
    return (*items[:key], item, *items[key + 1 :])


def is_given(rows: tuple[str, ...], value: str) -> bool:
    """Return whether some row is referred to by this value."""
    return any(GIVES.get(row) == value for row in rows)


def obstacle(key: int, value: str, rows: tuple[str, ...]) -> str:
    """Return what keeps an item from having this value among these rows; "" if nothing does."""
    needed = NEEDS.get(value)
    if needed and not is_given(rows, needed):
        return needed
    rivals = (row for other, row in enumerate(rows) if other != key)
    return value if value not in NOT_UNIQUE and value in rivals else ""


def rows_of(items: Items) -> tuple[str, ...]:
    """Return the row of each item."""
    return tuple(item.row for item in items)


def possible(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values without those that lack what they refer to, and so on for those that refer to them."""
    left = tuple("" if NEEDS.get(value) and not is_given(values, NEEDS[value]) else value for value in values)
    return left if left == values else possible(left)


def is_sound(rows: tuple[str, ...]) -> bool:
    """Return whether the database's constraints hold: every reference has its row, unique values are unique."""
    return not any(obstacle(key, row, rows) for key, row in enumerate(rows))


def is_free(setup: Setup, items: Items, key: int) -> bool:
    """Return whether what an item waits for is there, or no longer in the way, by what the tables hold.

    A row of a waiting item is not in the way: it yields.
    """
    waits = items[key].waits
    if waits in NEEDS.values():
        return is_given(rows_of(items), waits)
    yields = setup.naive not in (Naive.NO_YIELDING, Naive.POLL_FORGETS_YIELDING)
    return not any(
        other != key and item.row == waits and not (yields and item.status == WAITING)
        for other, item in enumerate(items)
    )


def mark_due(setup: Setup, items: Items) -> Items:
    """The poll: return the items with those due that wait for nothing any more."""
    return tuple(
        item._replace(due=True) if item.waits and not item.due and is_free(setup, items, key) else item
        for key, item in enumerate(items)
    )


def plan(setup: Setup, items: Items, key: int, value: str, n: int) -> Items | None:
    """Return what applying one item leaves, or ``None`` where the database refuses it (NO ACTION).

    The guard: a later version; or the same one of an item that waits. Equal content of an item that is fine and waits
    for nothing moves the version only.
    """
    naive, item = setup.naive, items[key]
    again = n == item.n and item.waits and naive is not Naive.SAME_VERSION_REFUSED
    if not (item.n < n or again):
        return items
    if item.content == value and item.status == OK and (not item.waits or naive is Naive.HASH_IGNORES_WAITERS):
        return put(items, key, item._replace(n=n))
    items = _yielded(setup, items, key, value)
    refused = obstacle(key, value, rows_of(items))
    return _referrers_moved(setup, items, put(items, key, _settled(setup, item, value, n, refused)))


def _settled(setup: Setup, item: Item, value: str, n: int, refused: str) -> Item:
    """Return the item as it will be: fine, written with null, waiting, or (naive) quarantined."""
    if not refused:
        return Item(value, n, OK, value)
    if setup.null and value == "r":
        return Item("r0", n, OK, value, refused)
    if setup.naive is Naive.QUARANTINE_INSTEAD:
        return Item("", n, QUARANTINED, value)
    # The ledger moves on although the row stays: else an older mirror, late, would undo what is known.
    if setup.naive is Naive.LEDGER_STAYS:
        return item._replace(status=WAITING, waits=refused, due=False)
    return Item(item.row, n, WAITING, value, refused)


def _yielded(setup: Setup, items: Items, key: int, value: str) -> Items:
    """Return the items without the rows of waiting ones that alone are in the way."""
    if setup.naive is Naive.NO_YIELDING or value in NOT_UNIQUE:
        return items
    in_the_way = [other for other, item in enumerate(items) if other != key and item.row == value]
    if any(items[other].status != WAITING for other in in_the_way):
        return items
    for other in in_the_way:
        items = put(items, other, items[other]._replace(row=""))
    return items


def _referrers_moved(setup: Setup, before: Items, after: Items) -> Items | None:
    """Return the items with those that refer to a row that is gone moved to their own ``on_missing``, and so on."""
    for key, item in enumerate(after):
        needed = NEEDS.get(item.row)
        if not needed or is_given(rows_of(after), needed):
            continue
        if setup.naive is Naive.REFERRERS_STAY:
            return None
        null = setup.null and item.row == "r"
        moved = Item("r0" if null else "", item.n, OK if null else WAITING, item.content, needed)
        return _referrers_moved(setup, before, put(after, key, moved))
    return after


def plan_batch(setup: Setup, items: Items, batch: tuple[Observed, ...]) -> Items | None:
    """Return what applying several items in one transaction leaves.

    Together first, with constraints checked at the end; where that is refused, one by one, each with what it meets.
    """
    together = items
    for each in batch:
        item = together[each.key]
        if item.n < each.n or (each.n == item.n and item.waits):
            together = put(together, each.key, Item(each.value, each.n, OK, each.value))
        if setup.naive is Naive.BATCH_NOT_DEFERRED and not is_sound(rows_of(together)):
            return None
    if is_sound(rows_of(together)):
        return together
    if setup.naive in (Naive.BATCH_NOT_DEFERRED, Naive.BATCH_NEVER_SPLIT):
        return None
    planned: Items | None = items
    for each in batch:
        planned = plan(setup, planned, each.key, each.value, each.n) if planned is not None else None
    return planned
