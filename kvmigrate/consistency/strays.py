"""Rows that no ledger entry accounts for, and rows without a parent row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kvmigrate.consistency.difference import Cause, Difference
from kvmigrate.consistency.home import tells_home
from kvmigrate.consistency.judge import EXTRA
from kvmigrate.consistency.page_read import TableSide
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.stores.base import KVSource
from kvmigrate.target.reader_base import LedgerEntry, Owner
from kvmigrate.transform.mapping import Entity

Progress = Callable[[str, int, int | None], None]


class StrayRows:
    """Finds rows of no item, and counts them in a report as extra."""

    def __init__(
        self,
        source: KVSource,
        tables: TableSide,
        report: VerifyReport,
        settle_s: float,
        found: Callable[[str, Sequence[str]], None],
    ) -> None:
        self.source, self.tables, self.report, self.settle_s = source, tables, report, settle_s
        self.found = found

    def look(self, page_keys: int, progress: Progress) -> None:
        """Look at every row that PostgreSQL alone cannot match with the ledger."""
        done = 0
        for entity in self.tables.entities.values():
            if not self.tables.concerns(entity.id):
                continue
            for page in self.tables.reader.owners(entity, page_keys, unaccounted=tells_home(entity)):
                self._check_owners(self.tables.plans(entity), page)
                done += len(page)
                progress("rows", done, None)
            for table, count in self.tables.reader.orphans(entity).items():
                text = f"{count} rows have no parent row"
                self._note_extra(entity, Difference("", "$", table, "", Cause.EXTRA_ROW, text), rows=count)

    def _check_owners(self, plan: EntityPlan, page: Sequence[Owner]) -> None:
        strays: dict[str, str] = {}
        keyed: dict[str, str] = {}
        for owner in page:
            key = address_of(plan, owner)
            if key is None:
                text = "a row tells no key that it could be rebuilt to"
                self._note_extra(plan.entity, Difference("", "$", owner.table, "", Cause.EXTRA_ROW, text))
            else:
                (keyed if is_at_home(plan, owner, key) else strays)[key] = owner.table
        known = self.tables.reader.ledger(list(keyed))
        unknown = [key for key in keyed if not _accounts_for(known.get(key), plan.entity)]
        if unknown:
            time.sleep(self.settle_s)
            known = self.tables.reader.ledger(unknown)
            rows = self.tables.rows((key, plan) for key in unknown)
            items = self.source.get_many(unknown)
            for key, item in zip(unknown, items, strict=True):
                # An item that the store holds was judged, as missing from the ledger, on the way there.
                is_gone = item is None or self.tables.router.route(key).entity is not plan.entity
                if is_gone and rows.get(key) and not _accounts_for(known.get(key), plan.entity):
                    strays[key] = keyed[key]
        for key, table in strays.items():
            text = "the row belongs to no item that the ledger knows"
            self._note_extra(plan.entity, Difference(key, "$", table, "", Cause.EXTRA_ROW, text))

    def _note_extra(self, entity: Entity, difference: Difference, *, rows: int = 1) -> None:
        self.report.count(EXTRA, entity.name, items=rows)
        self.report.note(difference, items=rows)
        self.found(difference.key, [str(difference.cause)])


def address_of(plan: EntityPlan, owner: Owner) -> str | None:
    """Return the key that a row says it is of; ``None`` where it tells none."""
    if owner.source_key is not None:
        return owner.source_key
    return plan.first_key([owner.values.get(each.name) for each in plan.root.columns])


def is_at_home(plan: EntityPlan, owner: Owner, key: str) -> bool:
    """Whether the row stands where the item with this key has its row."""
    if plan.entity.owned_by_source_key:
        return True
    here = tuple(owner.values.get(name) for name in plan.entity.root.primary_key)
    return plan.primary_key(plan.captured(key)) == here


def _accounts_for(entry: LedgerEntry | None, entity: Entity) -> bool:
    return entry is not None and not entry.deleted and entry.entity == entity.id
