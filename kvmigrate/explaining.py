"""Where one key stands: in the store, in the tables, between them. `kvmigrate explain KEY`."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple

from kvmigrate.config import Settings
from kvmigrate.dualwrite.value import need_entity, value_of
from kvmigrate.errors import BadValueError, OnlyInStoreError, UnmappedKeyError
from kvmigrate.model import Authority, Item, LedgerStatus, Version
from kvmigrate.reads.compare import difference
from kvmigrate.stores.fence_base import Seen
from kvmigrate.stores.open import open_fenced, open_source
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.read_row import PostgresReadRow
from kvmigrate.transform.lens import Lens

DEADLINE_S = 5.0


class _InTables(NamedTuple):
    """What the tables say; *refused* is why they do not hold the item, or "", *whole* why they have no rows of it."""

    control: Control | None
    version: Version | None
    item: Item | None
    refused: str
    whole: str


def explain_key(settings: Settings, lens: Lens, key: str) -> dict[str, Any]:
    """Return where a key stands, as JSON values; its value is never told.

    Raises:
        FenceMissingError, SourceError, TargetError, DeadlineError, ConfigError.
    """
    try:
        entity = need_entity(key, lens)
    except UnmappedKeyError as exc:
        return _outside(settings, lens, key, str(exc))
    with closing(open_fenced(settings.need_source(), scope=lens.mapping.name)) as store:
        [shard] = store.by_shard([key])
        seen = store.observe(shard, [key])
    with closing(LiveWriter(settings.need_target(), lens)) as writer:
        tables = _in_tables(writer, key, _whole_because(settings.need_target(), lens.mapping.name, key))
    leads = seen.fence.authority in {Authority.TABLES, Authority.RETIRED}
    differs = _difference(seen.items[0], tables.item)
    return {
        "key": key,
        "entity": entity.name,
        "side": "tables" if leads else "kv",
        "epoch": seen.fence.epoch,
        "stage": tables.control.stage.value if tables.control else None,
        "in_store": seen.items[0] is not None,
        "in_tables": tables.item is not None and not tables.whole,
        "tables_version": None if tables.version is None else f"{tables.version.epoch}.{tables.version.n}",
        "marked": seen.marks[0] is not None,
        "different_at": differs,
        "why": _why(seen, tables, differs, leads=leads),
    }


def _outside(settings: Settings, lens: Lens, key: str, why: str) -> dict[str, Any]:
    """Return where a key stands that nothing brings into the tables, or not one by one; the tables are not asked."""
    entity, there = lens.route(key).entity, None
    if settings.source:
        with closing(open_source(settings.source)) as source:
            there = source.get_many([key])[0] is not None
    return {
        "key": key,
        "entity": entity.name if entity is not None else None,
        "side": "kv",
        "epoch": None,
        "stage": None,
        "in_store": there,
        "in_tables": False if entity is None else None,
        "tables_version": None,
        "marked": False,
        "different_at": None,
        "why": f"it is read and written in the store, as before: {why}",
    }


def _in_tables(writer: LiveWriter, key: str, whole: str) -> _InTables:
    control, version = writer.control(), writer.version(key, deadline_s=DEADLINE_S)
    try:
        [item] = writer.get([key], deadline_s=DEADLINE_S)
    except OnlyInStoreError as exc:
        return _InTables(control, version, None, str(exc), whole)
    return _InTables(control, version, item, "", whole)


def _difference(one: Item | None, other: Item | None) -> str | None:
    """Return the path of the first difference; ``None`` where there is none."""
    if one is None or other is None:
        return None if one is other else "."
    try:
        return difference(value_of(one), value_of(other))
    except BadValueError:
        # Its text is no JSON: it has no paths.
        return None if one.value == other.value else "."


def _whole_because(target: str, scope: str, key: str) -> str:
    """Return why an item is kept without rows, or ""."""
    with closing(PostgresReadRow(target, scope, role="explain", seconds=DEADLINE_S)) as row:
        found = row.standing(key)
    if found is not None and found.status is LedgerStatus.QUARANTINED:
        return f"quarantined: {found.reason} at {found.path or '$'}"
    return "kept whole" if found is not None and found.status is LedgerStatus.KEPT else ""


def _why(seen: Seen, tables: _InTables, differs: str | None, *, leads: bool) -> str:
    """Return the first reason that explains the others."""
    if tables.control is None:
        return "the target does not know this mapping: its reads and writes are the store's"
    if tables.refused:
        return f"the tables do not hold it: {tables.refused}"
    if tables.whole and differs is None:
        return f"{tables.whole}; it has no rows, and what is kept says the same as the store"
    if differs is None:
        return "both sides say the same" if seen.items[0] is not None else "it is on neither side"
    if seen.marks[0] is not None:
        return "its newest write is marked, and not in the tables yet: the relay brings it"
    if leads:
        return "the tables lead, and the store does not have their newest state yet: the relay brings it"
    if tables.version is None:
        return "the tables never had it: no backfill reached it, or something wrote it that leaves no marks"
    return "both sides differ, and nothing is on its way: something wrote it that leaves no marks"
