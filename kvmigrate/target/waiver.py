"""Waiving items that are quarantined or wait: from then on they are kept, and a flip does not mind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from kvmigrate.errors import FenceError
from kvmigrate.model import Authority, Item, LedgerStatus
from kvmigrate.target.attempt import Parts
from kvmigrate.target.layout import Layout
from kvmigrate.target.live_base import Control
from kvmigrate.target.payload import NOT_KEPT, decode_payload, encode_payload
from kvmigrate.target.postgres import WRITER_LOCK
from kvmigrate.target.session import Session
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.values.content_hash import content_hash

Connection = psycopg.Connection[Any]
Stored = Callable[[Sequence[str]], Sequence[Item | None]]

PAGE_ITEMS = 200

_KEYS = """
SELECT key FROM kvmigrate.ledger
WHERE scope = %(scope)s AND status IN ('waiting', 'quarantined') AND NOT deleted AND key > %(after)s
    AND (%(every)s OR key = ANY(%(keys)s))
ORDER BY key LIMIT %(limit)s
"""

_LOCKED = """
SELECT l.key, l.entity, l.content_hash, q.payload, q.payload_kind, (extract(epoch FROM q.expires_at) * 1000)::bigint
FROM kvmigrate.ledger AS l
LEFT JOIN kvmigrate.quarantine AS q ON q.scope = l.scope AND q.key = l.key AND (q.epoch, q.n) = (l.epoch, l.n)
WHERE l.scope = %s AND l.key = ANY(%s) AND l.status IN ('waiting', 'quarantined') AND NOT l.deleted
ORDER BY l.key FOR UPDATE OF l
"""


_KEEP = """
INSERT INTO kvmigrate.kept (scope, key, value, kind, expires_at)
VALUES (%s, %s, %b, %s, 'epoch'::timestamptz + %s * interval '1 millisecond')
ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, kind = excluded.kind, expires_at = excluded.expires_at
"""

# Year 255,000: a store takes later ones, a timestamp does not.
_LAST_EXPIRY_MS = 8_000_000_000_000_000


@dataclass(slots=True)
class Waived:
    """What was waived.

    Attributes:
        kept: Keys that are kept now.

        changed: Keys that were written meanwhile, so that what stands in the store is another version.

        unknown: Keys that are neither quarantined nor waiting.
    """

    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


class Waiver:
    """Waives items of one scope, in transactions of its own. One thread at a time."""

    def __init__(self, url: str, lens: Lens, control: Control) -> None:
        """Open nothing yet; *control* was read a moment ago.

        Raises:
            FenceError: the tables are the authority, or it is on its way.
        """
        if control.epoch == 0 or control.authority is not Authority.STORE:
            raise FenceError(
                "items can be waived while both sides are kept the same and the store is the authority",
                hint="that is from stage dualwrite to live; `kvmigrate stage show` tells where it is",
            )
        self._session = Session(url, application_name="kvmigrate:waiver")
        self._parts = Parts(Layout(lens.mapping), lens, control.scope)
        self._name, self._epoch = lens.mapping.name, control.epoch

    def keep(self, keys: Sequence[str], stored: Stored, *, every: bool = False) -> Waived:
        """Keep items whole that are quarantined or wait; rows of earlier versions go.

        A quarantined item's value is the one that was refused. A waiting item's value stands in the store alone: it
        is kept if it is the one that the ledger knows.

        Args:
            keys: Which; ignored with *every*.

            stored: Reads items from the store, in the order of the keys.

            every: All of them, those too that begin to wait as others lose their rows.

        Raises:
            FenceError: another epoch or authority took over. TargetError: what was waived before stays so.
        """
        found = Waived()
        while page := self._page(keys, "", every=every, known=found):
            values = dict(zip(page, stored(page), strict=True))
            self._keep_page(page, values, found)
        known = {*found.kept, *found.changed}
        found.unknown = [] if every else [key for key in keys if key not in known]
        return found

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def _page(self, keys: Sequence[str], after: str, *, every: bool, known: Waived) -> list[str]:
        """Return the next keys that were not looked at: those that are kept have another status by now."""
        done = set(known.changed)
        while True:
            values = {"scope": self._parts.scope, "after": after, "every": every, "keys": list(keys)}
            page = self._session.run(
                lambda connection, values=values: connection.execute(  # type: ignore[misc]
                    _KEYS, {**values, "limit": PAGE_ITEMS}
                ).fetchall()
            )
            fresh = [key for (key,) in page if key not in done]
            if fresh or not page:
                return fresh
            after = page[-1][0]

    def _keep_page(self, keys: Sequence[str], stored: dict[str, Item | None], found: Waived) -> None:
        parts = self._parts

        def work(connection: Connection) -> tuple[list[str], list[str]]:
            with connection.transaction():
                connection.execute("SELECT kvmigrate.fence(%s, %s, 'K')", [self._name, self._epoch])
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WRITER_LOCK, parts.scope])
                parts.staging.ensure(connection)
                connection.execute("SET CONSTRAINTS ALL DEFERRED")
                rows = connection.execute(_LOCKED, [parts.scope, list(keys)]).fetchall()
                whole = {row[0]: item for row in rows if (item := _whole(row, stored.get(row[0]))) is not None}
                entities = [(key, entity) for key, entity, *_ in rows if key in whole]
                parts.removal.delete_items(connection, entities)
                parts.removal.displace_referrers(connection)
                self._take(connection, list(whole.values()))
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                return list(whole), [row[0] for row in rows if row[0] not in whole]

        kept, changed = self._session.run(work)
        found.kept += kept
        # A key that was settled meanwhile is in neither; the next page does not have it.
        found.changed += changed

    def _take(self, connection: Connection, items: Sequence[Item]) -> None:
        """Keep items whole at the version that the ledger has, instead of waiting or in quarantine."""
        scope, keys = self._parts.scope, [item.key for item in items]
        with connection.cursor() as cursor:
            cursor.executemany(_KEEP, [_kept_row(scope, item) for item in items])
        connection.execute("DELETE FROM kvmigrate.waiting WHERE scope = %s AND key = ANY(%s)", [scope, keys])
        connection.execute("DELETE FROM kvmigrate.quarantine WHERE scope = %s AND key = ANY(%s)", [scope, keys])
        self._parts.ledger.set_status(connection, keys, LedgerStatus.KEPT)


def _kept_row(scope: int, item: Item) -> tuple[Any, ...]:
    payload, kind = encode_payload(item)
    expires = None if item.expires_at_ms is None else min(item.expires_at_ms, _LAST_EXPIRY_MS)
    return scope, item.key, payload or b"", kind, expires


def _whole(row: tuple[Any, ...], stored: Item | None) -> Item | None:
    """Return the item at the version that the ledger has; ``None`` where that is nowhere any more."""
    key, _, known, payload, kind, expires_at_ms = row
    if kind is not None and kind != NOT_KEPT:
        return decode_payload(key, payload, kind, expires_at_ms)
    if stored is not None and known is not None and content_hash(stored) == bytes(known):
        return stored
    return None
