"""One item, its ledger entry and its rows: in which count of the report it belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xxhash

from kvmigrate.consistency.compare import Outcome, compare_item
from kvmigrate.consistency.difference import Cause, Difference
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.rebuild import Rows
from kvmigrate.model import Item, ItemKind, LedgerStatus
from kvmigrate.target.reader_base import Awaited, LedgerEntry
from kvmigrate.transform.mapping import Expires

LEDGER = "kvmigrate.ledger"
_QUARANTINE = "kvmigrate.quarantine"
_WAITING = "kvmigrate.waiting"
_KEPT = "kvmigrate.kept"
# As for the comparison of expiries: what a store tells of them is exact to a millisecond or two.
_EXPIRY_SLACK_MS = 2

MATCHED, TOLERATED, DIFFERENT = "matched", "tolerated", "different"
MISSING, EXTRA = "missing", "extra"
PENDING, NOT_COMPARABLE = "pending", "not_comparable"
OUTSIDE = "outside"

_COUNTS = {
    Outcome.MATCH: MATCHED,
    Outcome.TOLERATED: TOLERATED,
    Outcome.DIFFERENT: DIFFERENT,
    Outcome.MISSING: MISSING,
}


class Verdict(NamedTuple):
    """Where an item is counted, and why.

    Attributes:
        counted: matched, tolerated, different, missing, extra, pending, not_comparable,
            or outside for what neither side has to show.
    """

    counted: str
    differences: Sequence[Difference] = ()
    tolerated: frozenset[str] = frozenset()

    @property
    def settled(self) -> bool:
        """Whether there is nothing that a second look could clear up."""
        return self.counted not in {DIFFERENT, MISSING, EXTRA}


class Judge:
    """Judges the items of one mapping."""

    def __init__(self, *, show_values: bool) -> None:
        self._show_values = show_values

    def item(
        self,
        plan: EntityPlan | None,
        item: Item,
        entry: LedgerEntry | None,
        rows: Rows,
        awaited: Sequence[Awaited] = (),
    ) -> Verdict:
        """Judge an item that the store holds. Without *plan* its key is claimed by several patterns.

        *awaited* are its references to rows that do not exist.
        """
        if plan is not None and leaves_in_kv(plan, item):
            return self.gone(plan, item.key, entry, rows)
        if entry is None or entry.deleted:
            known = "has its rows as deleted" if entry else "does not know the item"
            return _one(MISSING, item.key, LEDGER, Cause.MISSING_ROW, f"the ledger {known}")
        match entry.status:
            case LedgerStatus.WAITING:
                if entry.waits:
                    return Verdict(PENDING)
                text = "the ledger says that the item waits, and nothing says for what"
                return _one(DIFFERENT, item.key, _WAITING, Cause.MISSING_ROW, text)
            case LedgerStatus.QUARANTINED:
                return _quarantined(item, entry)
            case LedgerStatus.KEPT if is_content(item, entry.content_hash):
                return Verdict(NOT_COMPARABLE)
            case LedgerStatus.KEPT:
                text = "another version of the item is kept"
                return _one(DIFFERENT, item.key, _KEPT, Cause.STALE, text)
        if plan is None or entry.entity != plan.entity.id:
            text = "the ledger has the item as one of another entity"
            return _one(DIFFERENT, item.key, LEDGER, Cause.MOVED, text)
        return self._rows(plan, item, entry, rows, awaited)

    def gone(self, plan: EntityPlan | None, key: str, entry: LedgerEntry | None, rows: Rows) -> Verdict:
        """Judge a key that the store does not hold (or that stays there by declaration)."""
        table = next((name for name, values in rows.items() if values), "")
        if entry is not None and entry.expired:
            return Verdict(PENDING)
        if table:
            return _one(
                EXTRA, key, table, Cause.EXTRA_ROW, "the tables have rows of an item that the store does not hold"
            )
        if entry is None or entry.deleted:
            return Verdict(OUTSIDE)
        if entry.status != LedgerStatus.OK:
            return Verdict(PENDING)
        text = "the ledger has an item that the store does not hold" + ("" if plan else ", of an unknown entity")
        return _one(EXTRA, key, LEDGER, Cause.EXTRA_ROW, text)

    def _rows(
        self, plan: EntityPlan, item: Item, entry: LedgerEntry, rows: Rows, awaited: Sequence[Awaited]
    ) -> Verdict:
        compared = compare_item(plan, item, rows, awaited=awaited, show_values=self._show_values)
        differences = compared.differences
        if compared.outcome is Outcome.DIFFERENT and not is_content(item, entry.content_hash):
            first = differences[0]
            text = f"the tables hold another version of the item; there are {len(differences)} differences"
            differences = (first._replace(cause=Cause.STALE, detail=text),)
        return Verdict(_COUNTS[compared.outcome], differences, compared.tolerated)


def leaves_in_kv(plan: EntityPlan, item: Item) -> bool:
    """Whether the mapping leaves this item where it is because it expires."""
    return plan.entity.expires is Expires.LEAVE_IN_KV and item.expires_at_ms is not None


def is_content(item: Item, content_hash: bytes | None) -> bool:
    """Whether *content_hash* is that of the item as stored: XXH3-128 of its bytes, kind and expiry."""
    expiries = [item.expires_at_ms]
    if item.expires_at_ms is not None:
        slack = range(1, _EXPIRY_SLACK_MS + 1)
        expiries += [item.expires_at_ms + step * sign for step in slack for sign in (1, -1)]
    return any(_hash(item, expiry) == content_hash for expiry in expiries)


def _hash(item: Item, expires_at_ms: int | None) -> bytes:
    hasher = xxhash.xxh3_128()
    if isinstance(item.value, bytes):
        hasher.update(item.value)
    elif isinstance(item.value, str):
        hasher.update(item.value.encode())
    elif isinstance(item.value, Mapping):
        for name, text in sorted(item.value.items()):
            for part in (name, text):
                hasher.update(len(part).to_bytes(8, "big"))
                hasher.update(part)
    elif isinstance(item.value, tuple):
        for element in item.value:
            hasher.update(len(element).to_bytes(8, "big"))
            hasher.update(element)
    if item.kind is not ItemKind.JSON:
        hasher.update(b"\xffkind" + item.kind.value.encode())
    if expires_at_ms is not None:
        hasher.update(b"\xffexpires")
        hasher.update(expires_at_ms.to_bytes(8, "big", signed=True))
    return hasher.digest()


def _quarantined(item: Item, entry: LedgerEntry) -> Verdict:
    if not entry.quarantined:
        text = "the ledger says that the item is in quarantine, and it is not there"
        return _one(DIFFERENT, item.key, _QUARANTINE, Cause.MISSING_ROW, text)
    return Verdict(NOT_COMPARABLE if is_content(item, entry.content_hash) else PENDING)


def _one(counted: str, key: str, table: str, cause: Cause, detail: str) -> Verdict:
    return Verdict(counted, (Difference(key, "$", table, "", cause, detail),))
