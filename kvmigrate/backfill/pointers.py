"""Index keys kept by hand, reconciled with the items both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from kvmigrate.backfill.report import PointerReport
from kvmigrate.stores.base import KVSource
from kvmigrate.target.base import Target
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.listed_ids import column_text, id_of, ids_of, keys_of
from kvmigrate.transform.mapping import Entity, Pointer

UNREADABLE_EXAMPLES = 10

Listed = tuple[Sequence[str], str, Sequence[str]]


def reconcile_pointers(
    source: KVSource, target: Target, lens: Lens, keys: Sequence[str], *, page_keys: int
) -> list[PointerReport]:
    """Compare every declared index with the items; *keys* are the index keys that the sweep met.

    Their values are read again here, after all items are in, so that an index and
    the items it lists are of about the same moment.
    """
    grouped: dict[str, list[str]] = {pointer.key.text: [] for pointer in lens.mapping.pointers}
    for key in keys:
        found = lens.route(key).pointer
        if found is not None:
            grouped[found.key.text].append(key)
    return [
        _Reconciliation(source, target, lens, pointer, page_keys=page_keys).run(grouped[pointer.key.text])
        for pointer in lens.mapping.pointers
        if not lens.mapping.entity(pointer.lists or pointer.points_to).rows_only
    ]


class _Reconciliation:
    """One index pattern against its entity."""

    def __init__(self, source: KVSource, target: Target, lens: Lens, pointer: Pointer, *, page_keys: int) -> None:
        self._source, self._target, self._lens = source, target, lens
        self._pointer, self._page_keys = pointer, page_keys
        self._entity: Entity = lens.mapping.entity(pointer.lists or pointer.points_to)
        self._columns = self._choosing_columns()
        self._unreadable: list[str] = []
        self._read = 0

    def run(self, keys: Sequence[str]) -> PointerReport:
        found = self._target.compare_listed(
            self._entity.name,
            columns=list(self._columns),
            listed=self._listed(iter(keys)),
            identify=lambda key: id_of(self._lens, key),
        )
        examples = {
            "dangling": list(found.dangling_examples),
            "unlisted": list(found.unlisted_examples),
            "unreadable": self._unreadable[:UNREADABLE_EXAMPLES],
        }
        return PointerReport(
            name=self._pointer.key.text,
            keys=self._read,
            listed=found.listed,
            real=found.real,
            dangling=found.dangling,
            unlisted=found.unlisted,
            unreadable=len(self._unreadable),
            examples={name: texts for name, texts in examples.items() if texts},
        )

    def _choosing_columns(self) -> dict[str, str]:
        """Return the entity's columns whose values an index key's captures give: column to capture."""
        captures = [capture.name for capture in self._pointer.key.captures if not capture.choices]
        if self._pointer.by:
            return {self._pointer.by: captures[0]} if captures else {}
        columns = {column.name for column in self._entity.root.columns}
        return {name: name for name in captures if name in columns}

    def _listed(self, keys: Iterator[str]) -> Iterator[Listed]:
        seen: set[tuple[tuple[str, ...], str]] = set()
        while page := list(islice(keys, self._page_keys)):
            for key, item in zip(page, self._source.get_many(page), strict=True):
                if item is None:
                    continue
                self._read += 1
                names = ids_of(self._pointer, item)
                if names is None:
                    self._unreadable.append(key)
                captured = self._lens.route(key).captured
                values = tuple(self._value(column, captured) for column in self._columns)
                for name in names or ():
                    if (values, name) not in seen:
                        yield values, name, keys_of(self._lens, self._entity, name, captured)
                    seen.add((values, name))

    def _value(self, column: str, captured: Mapping[str, str]) -> str:
        return column_text(self._entity.root.column(column), captured[self._columns[column]])
