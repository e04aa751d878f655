"""What was seen of marked keys, divided into what must be written, what is gone, and what is only acknowledged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from kvmigrate.model import MAX_KEY_BYTES, Authority, Fence, Item, Logging, MarkedKey, Version, item_bytes
from kvmigrate.stores.fence_base import Seen
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens, PageRows

TABLES_LEAD = "the tables are the authority"

_OURS = frozenset({RouteKind.ENTITY, RouteKind.AMBIGUOUS})


class Work(NamedTuple):
    """Keys seen as of one version, ready for the tables: of one shard, or of several whose versions are equal.

    Attributes:
        version: As of which all of it is.

        items: What stands under keys of the mapping's entities; *rows* is what they become.

        gone: Keys of entities under which nothing stands that the mapping takes: their rows go.

        marks: What may be acknowledged once the tables have all that.

        size_bytes: Of the items' values.
    """

    version: Version
    items: Sequence[Item]
    rows: PageRows
    gone: Sequence[str]
    marks: Sequence[MarkedKey]
    size_bytes: int = 0

    @property
    def batch(self) -> Batch | None:
        """The items as the target takes them; ``None`` where none of them reaches the tables."""
        if not self.rows.accepted and not self.rows.refused:
            return None
        return Batch(self.items, self.rows, Label(LIVE_RUN, self.version))

    @property
    def keys(self) -> list[str]:
        """Every key that it is about, once."""
        named = [item.key for item in self.items]
        return list(dict.fromkeys([*named, *self.gone, *(mark.key for mark in self.marks)]))


def why_held(fence: Fence) -> str:
    """Return why nothing that is marked may be applied under this fence, or "".

    A sealed store is drained like an open one: what is marked then was accepted before.
    """
    if fence.authority in {Authority.TABLES, Authority.RETIRED}:
        return TABLES_LEAD
    if fence.log is Logging.MARK_ONLY:
        return "a first load is under way"
    if fence.log is Logging.NONE and fence.authority is Authority.STORE:
        return "nothing is mirrored in this stage"
    return ""


def divide(lens: Lens, keys: Sequence[str], seen: Seen, *, unmarked_too: bool) -> Work:
    """Divide what was *seen* of *keys*, in that order.

    Args:
        lens: The mapping at work.

        keys: As they were asked for.

        seen: The answer.

        unmarked_too: Also keys without a mark: of waiting items. Otherwise somebody else mirrored them meanwhile.
    """
    items, absent, marks = [], [], []
    for key, item, n in zip(keys, seen.items, seen.marks, strict=True):
        if n is None and not unmarked_too:
            continue
        if n is not None:
            marks.append(MarkedKey(key, n))
        if not _can_be_known(key):
            # The ledger cannot hold it, so no part of the tool ever took it.
            continue
        if item is None:
            absent.append(key)
        else:
            items.append(item)
    return _work(lens, seen.version, items, absent, marks)


def halves(lens: Lens, work: Work) -> list[Work]:
    """Return *work* in two parts, in its order; of a single key nothing is left to divide, and there are none."""
    keys = work.keys
    if len(keys) < 2:
        return []
    return [part(lens, work, set(some)) for some in (keys[: len(keys) // 2], keys[len(keys) // 2 :])]


def part(lens: Lens, work: Work, keys: Collection[str]) -> Work:
    """Return what of *work* is about these keys."""
    items = [item for item in work.items if item.key in keys]
    gone = [key for key in work.gone if key in keys]
    marks = [mark for mark in work.marks if mark.key in keys]
    return _work(lens, work.version, items, gone, marks)


def _can_be_known(key: str) -> bool:
    if "\0" in key:
        return False
    try:
        return (key.isascii() and len(key) <= MAX_KEY_BYTES) or len(key.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def _work(
    lens: Lens,
    version: Version,
    items: Sequence[Item],
    absent: Sequence[str],
    marks: Sequence[MarkedKey],
) -> Work:
    rows = lens.page(items)
    taken = {accepted.key for accepted in rows.accepted} | {item.key for item, _ in rows.refused}
    # What the mapping does not take, such as one that expires, is as good as gone.
    left = [item.key for item in items if item.key not in taken]
    gone = [key for key in (*absent, *left) if lens.route(key).kind in _OURS]
    size = sum(map(item_bytes, items))
    return Work(version, items, rows, sorted(gone, key=str.encode), marks, size)
