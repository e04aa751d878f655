"""The tables as lines: every item that the ledger knows, rebuilt or from where it is kept whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from kvmigrate.errors import LensError
from kvmigrate.export.report import ExportReport, Lines, Progress
from kvmigrate.model import Item, LedgerStatus
from kvmigrate.stores.base import KVSource
from kvmigrate.target.reader_base import LedgerEntry, RowReader
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Entity

_PAGE_KEYS = 1000

Payloads = Callable[[Sequence[str]], Mapping[str, Item]]
"""Returns those of the keys whose items are kept whole in quarantine."""


class TargetExport:
    """An export of the tables.

    Args:
        reader: Reads the tables; its jsonb values must be loaded as the lens wants them.

        payloads: Finds quarantined items.

        source: Read for what is in neither place; ``None`` leaves it missing, by name.
    """

    def __init__(self, reader: RowReader, lens: Lens, payloads: Payloads, source: KVSource | None = None) -> None:
        self._reader, self._lens, self._payloads, self._source = reader, lens, payloads, source
        self._entities = {entity.id: entity for entity in lens.mapping.entities}
        self._report = ExportReport()

    def write(
        self,
        out: BinaryIO,
        lines: Lines,
        *,
        only: Sequence[str] = (),
        limit_keys: int | None = None,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write the items to *out*, once, in the byte order of the keys, as of one moment.

        Args:
            out: Gets bytes.

            lines: How lines are written.

            only: Names of entities; all where it is empty.

            limit_keys: Stop after so many items.

            progress: Called after every page with the number of items looked at.

        Raises:
            TargetError, SourceError: a side failed; what was written before stays in *out*.
        """
        wanted = {entity.id for entity in self._lens.mapping.entities if entity.name in only}
        after, seen = "", 0
        with self._reader.snapshot():
            while entries := self._reader.ledger_between(after, None, _PAGE_KEYS, unnamed=True):
                after = entries[-1].key
                chosen = [entry for entry in entries if not only or entry.entity in wanted]
                if limit_keys is not None and seen + len(chosen) > limit_keys:
                    chosen = chosen[: limit_keys - seen]
                    self._report.cut_short = True
                out.writelines(lines.item(item) for item in self._page(chosen))
                seen += len(chosen)
                if progress:
                    progress("export", seen, None)
                if self._report.cut_short:
                    break
        return self._report

    def _page(self, entries: Sequence[LedgerEntry]) -> list[Item]:
        """Return the items of a page of entries that can be had, in the page's order."""
        found = self._rebuilt([entry for entry in entries if entry.status == LedgerStatus.OK])
        self._report.rebuilt += len(found)
        aside = [entry for entry in entries if entry.status != LedgerStatus.OK]
        whole = {LedgerStatus.QUARANTINED, LedgerStatus.KEPT}
        kept = self._payloads([entry.key for entry in aside if entry.status in whole])
        self._report.from_quarantine += len(kept)
        for item in kept.values():
            self._report.miss_value(item)
        found.update(kept)
        self._read([entry for entry in aside if entry.key not in kept], found)
        items = [found[entry.key] for entry in entries if entry.key in found]
        self._report.exported += len(items)
        return items

    def _rebuilt(self, entries: Sequence[LedgerEntry]) -> dict[str, Item]:
        """Return the items of the entries whose rows are there."""
        found: dict[str, Item] = {}
        for number in {entry.entity for entry in entries}:
            keys = [entry.key for entry in entries if entry.entity == number]
            entity = self._entities.get(number)
            if entity is None:
                for key in keys:
                    self._report.miss(key, "its entity is not in this mapping")
                continue
            rows = self._reader.rows(entity, {key: self._owner(entity, key) for key in keys})
            for key in keys:
                try:
                    found[key] = self._lens.backward(entity, key, rows[key])
                except LensError as exc:
                    self._report.miss(key, f"it cannot be rebuilt: {str(exc).removeprefix(f'{key}: ')}")
        return found

    def _owner(self, entity: Entity, key: str) -> Sequence[object]:
        return self._lens.primary_key(entity, key) or (key,)

    def _read(self, entries: Sequence[LedgerEntry], found: dict[str, Item]) -> None:
        """Add the items that only the store has."""
        keys = [entry.key for entry in entries]
        items = self._source.get_many(keys) if self._source and keys else [None] * len(keys)
        for entry, item in zip(entries, items, strict=True):
            if item is not None:
                found[entry.key] = item
                self._report.read += 1
                self._report.miss_value(item)
            elif self._source is None:
                self._report.miss(entry.key, f"it is {entry.status}: only the store has it")
            else:
                self._report.miss(entry.key, f"it is {entry.status}, and the store no longer has it")
