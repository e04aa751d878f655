"""What stands between a store and its tables, found before a run: one pure function.

`plan`, `backfill` and `doctor` share it. It reads the items once, in any order.

Memory: one 16-byte digest for each row key and each unique value, held in sets (about
100 bytes each in CPython), and one entry for each reference whose parent has not been
seen yet. Values themselves are not kept, and of each conflict at most five keys.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from kvmigrate.model import Item, ItemKind, Reason, Refusal, Row, RowSet
from kvmigrate.transform.keys.pattern import KeyTemplate
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.keys.template_overlap import clashing_templates
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.mapping import Entity, ForeignKey, Mapping, Role, Table
from kvmigrate.transform.values.json_text import number_text

EXAMPLES = 5
LONG_PREFIX_KEYS = 1_000
"""What hosted key-value APIs return at most for one prefix, without saying that there is more."""


class ConflictKind(enum.StrEnum):
    """What is in conflict."""

    TEMPLATES = "overlapping-templates"
    """A key can match two patterns of the mapping, and neither constrains more."""

    AMBIGUOUS_KEY = "ambiguous-key"
    """A key does match two patterns, and neither constrains more."""

    SAME_ROW = "same-row"
    """Two keys, or two elements of one item, yield one row."""

    UNIQUE = "unique"
    """Values that the mapping declares unique are there twice."""

    UNIQUE_BUT_FOR_CASE = "unique-but-for-case"
    """Texts of a key or unique that differ in case or Unicode form only: one under another collation."""

    MISSING_PARENT = "missing-parent"
    """A reference whose item is not in the store, or was refused."""

    ID = "id-does-not-fit"
    """An id, in a key or a reference, that its column's type cannot hold."""

    DUPLICATE_MEMBER = "duplicate-member"
    """An object names a member twice; every reader takes the last."""

    WILDCARD = "wildcard"
    """A pattern's fixed start holds ``_`` or ``%``, and LIKE finds other keys with it."""

    LONG_PREFIX = "long-prefix"
    """More keys under one fixed start than hosted APIs return at once."""


_HINTS = {
    ConflictKind.TEMPLATES: "constrain one of the patterns more: {x=a|b}, {x=uuid}, {x=int}",
    ConflictKind.AMBIGUOUS_KEY: "constrain one of the patterns more: {x=a|b}, {x=uuid}, {x=int}",
    ConflictKind.SAME_ROW: "on_same_row: first_template keeps the first pattern's item and lets the other wait",
    ConflictKind.UNIQUE: "correct the data, or take the unique out of the mapping",
    ConflictKind.UNIQUE_BUT_FOR_CASE: "an application that compares without case will find two; correct the data",
    ConflictKind.MISSING_PARENT: 'on_missing: wait, quarantine or "null" says what becomes of the item',
    ConflictKind.ID: "foreign_ids: uuid5 takes ids of any form; or make the column text",
    ConflictKind.DUPLICATE_MEMBER: "the last one is taken, as your application does; the others were never read",
    ConflictKind.WILDCARD: "escape _ and % in LIKE, or compare with starts_with",
    ConflictKind.LONG_PREFIX: "page through such prefixes; a single call returns the first 1,000 keys",
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """One kind of conflict in one place.

    Attributes:
        entity: The entity, or "" where it is about keys of none.

        columns: ``table.column`` of the columns concerned.

        count: How many items (or references, or keys) are in it; 0 for one that only may happen.

        examples: Keys, at most five.

        hint: What to do.
    """

    kind: ConflictKind
    entity: str
    columns: tuple[str, ...]
    count: int
    examples: tuple[str, ...]
    hint: str


def find_conflicts(mapping: Mapping, items: Iterable[Item]) -> list[Conflict]:
    """Return what in *items* cannot become rows as the mapping says, or only at a price.

    Every kind, entity and set of columns is one conflict. The order is that of
    `ConflictKind`, then of entities and columns.
    """
    finder = _Finder(mapping)
    for item in items:
        finder.add(item)
    return finder.finish()


@dataclass(slots=True)
class _Found:
    count: int = 0
    examples: list[str] = field(default_factory=list)


class _Finder:
    """What was seen so far."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self.lens: Lens = compile_mapping(mapping)
        self.found: dict[tuple[ConflictKind, str, tuple[str, ...]], _Found] = {}
        self.keys = _KeyWatch(mapping)
        self.rows = {entity.name: _RowWatch(entity) for entity in mapping.entities}
        self.parents: dict[str, set[bytes]] = {entity.name: set() for entity in mapping.entities}
        # (parent's entity, digest) -> by reference: count and first key.
        self.orphans: dict[tuple[str, bytes], dict[tuple[str, str], _Found]] = {}

    def note(self, kind: ConflictKind, entity: str, columns: Sequence[str], key: str) -> None:
        """Count one more case."""
        self._merge(kind, entity, tuple(columns), 1, [key])

    def _merge(self, kind: ConflictKind, entity: str, columns: tuple[str, ...], count: int, keys: list[str]) -> None:
        found = self.found.setdefault((kind, entity, columns), _Found())
        found.count += count
        found.examples.extend(key for key in keys if len(found.examples) < EXAMPLES and key not in found.examples)

    def add(self, item: Item) -> None:
        """Look at one item."""
        route = self.lens.route(item.key)
        self.keys.add(item.key)
        if route.kind is RouteKind.AMBIGUOUS:
            self.note(ConflictKind.AMBIGUOUS_KEY, "", (), item.key)
        if route.entity is None:
            return
        if _has_duplicate_member(item):
            self.note(ConflictKind.DUPLICATE_MEMBER, route.entity.name, (), item.key)
        made = self.lens.forward(item)
        if isinstance(made, RowSet):
            self._add_rows(route.entity, made)
        elif isinstance(made, Refusal):
            self._add_refusal(route.entity, made)

    def _add_rows(self, entity: Entity, made: RowSet) -> None:
        watch = self.rows[entity.name]
        for kind, columns in watch.add(made.rows):
            self.note(kind, entity.name, columns, made.key)
        for row in made.rows:
            if row.table == entity.root.name and len(entity.root.primary_key) == 1:
                self._add_parent(entity.name, _digest([row.values[watch.positions[row.table][0][0]]]))
            for at, key in watch.references[row.table]:
                if row.values[at] is not None:
                    self._add_reference(entity.name, key, _digest([row.values[at]]), made.key)

    def _add_parent(self, entity: str, digest: bytes) -> None:
        self.parents[entity].add(digest)
        self.orphans.pop((entity, digest), None)

    def _add_reference(self, entity: str, key: ForeignKey, digest: bytes, item_key: str) -> None:
        if digest in self.parents[key.entity]:
            return
        waiting = self.orphans.setdefault((key.entity, digest), {})
        found = waiting.setdefault((entity, f"{key.table}.{key.column}"), _Found(examples=[item_key]))
        found.count += 1

    def _add_refusal(self, entity: Entity, refusal: Refusal) -> None:
        if refusal.reason is Reason.SAME_ROW:
            self.note(ConflictKind.SAME_ROW, entity.name, (), refusal.key)
        if refusal.reason not in {Reason.TYPE, Reason.RANGE}:
            return
        if refusal.path == "$":
            keys = [f"{entity.root.name}.{each.name}" for each in entity.root.columns if each.role is Role.KEY]
            self.note(ConflictKind.ID, entity.name, keys, refusal.key)
            return
        for table in entity.tables:
            for column in table.columns:
                if column.reference and any(_ends_with(refusal.path, path) for path in column.paths):
                    self.note(ConflictKind.ID, entity.name, [f"{table.name}.{column.name}"], refusal.key)

    def finish(self) -> list[Conflict]:
        """Return all conflicts."""
        for waiting in self.orphans.values():
            for (entity, column), found in waiting.items():
                self._merge(ConflictKind.MISSING_PARENT, entity, (column,), found.count, found.examples)
        for kind, entity, columns, found in (*_static(self.mapping), *self.keys.finish()):
            self._merge(kind, entity, columns, found.count, found.examples)
        order = {kind: position for position, kind in enumerate(ConflictKind)}
        return [
            Conflict(kind, entity, columns, found.count, tuple(found.examples), _HINTS[kind])
            for (kind, entity, columns), found in sorted(
                self.found.items(), key=lambda pair: (order[pair[0][0]], *pair[0][1:])
            )
        ]


class _RowWatch:
    """The keys and uniques of one entity's tables, as digests."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.owners = {entity.root.name} if not entity.rows_only else {each.name for each in entity.root.children}
        self.positions: dict[str, list[tuple[int, ...]]] = {}
        self.references: dict[str, list[tuple[int, ForeignKey]]] = {}
        self.exact: dict[tuple[str, int], set[bytes]] = {}
        self.folded: dict[tuple[str, int], set[bytes]] = {}
        self.names: dict[tuple[str, int], tuple[str, ...]] = {}
        for table in entity.tables:
            self._watch(table)

    def _watch(self, table: Table) -> None:
        places = {column.name: at for at, column in enumerate(table.columns)}
        groups = [table.primary_key, *(each.columns for each in table.uniques if not each.target)]
        self.positions[table.name] = [tuple(places[name] for name in group) for group in groups]
        self.references[table.name] = [
            (places[key.column], key) for key in table.foreign_keys if not key.owned and key.column
        ]
        for number, group in enumerate(groups):
            self.names[table.name, number] = tuple(f"{table.name}.{name}" for name in group)
            self.exact[table.name, number], self.folded[table.name, number] = set(), set()

    def add(self, rows: Sequence[Row]) -> list[tuple[ConflictKind, tuple[str, ...]]]:
        """Note one item's rows; return its conflicts with those before, each once."""
        conflicts: dict[tuple[ConflictKind, tuple[str, ...]], None] = {}
        same_row = False
        for row in rows:
            for number, places in enumerate(self.positions[row.table]):
                values = [row.values[at] for at in places]
                kind = self._kind(row.table, number, values)
                # The children of two items with one row collide as a matter of course.
                if kind is None or (same_row and number == 0):
                    continue
                if kind is ConflictKind.UNIQUE and number == 0:
                    kind, same_row = ConflictKind.SAME_ROW, row.table in self.owners
                conflicts[kind, self.names[row.table, number]] = None
        return list(conflicts)

    def _kind(self, table: str, number: int, values: list[Any]) -> ConflictKind | None:
        if any(value is None for value in values):
            return None
        exact, digest = self.exact[table, number], _digest(values)
        if digest in exact:
            return ConflictKind.UNIQUE
        exact.add(digest)
        if not any(isinstance(value, str) for value in values):
            return None
        folded, digest = self.folded[table, number], _digest([_fold(value) for value in values])
        if digest in folded:
            return ConflictKind.UNIQUE_BUT_FOR_CASE
        folded.add(digest)
        return None


class _KeyWatch:
    """The fixed starts of the key patterns, and which keys a LIKE with them finds."""

    def __init__(self, mapping: Mapping) -> None:
        self.starts: dict[str, str] = {}
        for entity in mapping.entities:
            for template in entity.keys:
                if start := _fixed_start(template):
                    self.starts.setdefault(start, entity.name)
        self.like = {start: re.compile(_like(start), re.DOTALL) for start in self.starts if re.search("[_%]", start)}
        self.counts: Counter[str] = Counter()
        self.caught: dict[str, _Found] = {}
        self._lengths = sorted({len(start) for start in self.starts})

    def add(self, key: str) -> None:
        """Count one key."""
        for length in self._lengths:
            if key[:length] in self.starts:
                self.counts[key[:length]] += 1
        for start, pattern in self.like.items():
            if not key.startswith(start) and pattern.match(key):
                found = self.caught.setdefault(start, _Found())
                found.count += 1
                found.examples.extend([key] if len(found.examples) < EXAMPLES else [])

    def finish(self) -> list[tuple[ConflictKind, str, tuple[str, ...], _Found]]:
        """Return the traps: LIKE finding keys of others, and starts that too many keys have."""
        out: list[tuple[ConflictKind, str, tuple[str, ...], _Found]] = []
        for start, found in self.caught.items():
            out.append((ConflictKind.WILDCARD, self.starts[start], (), found))
        for start, count in self.counts.items():
            if count > LONG_PREFIX_KEYS:
                out.append((ConflictKind.LONG_PREFIX, self.starts[start], (), _Found(count, [f"{start}*"])))
        return out


def _static(mapping: Mapping) -> list[tuple[ConflictKind, str, tuple[str, ...], _Found]]:
    """Pairs of patterns that some key could match, whether or not one does."""
    every = [(entity.name, template) for entity in mapping.entities for template in entity.keys]
    every += [("", pointer.key) for pointer in mapping.pointers] + [("", leave.key) for leave in mapping.leave_in_kv]
    return [
        (
            ConflictKind.TEMPLATES,
            every[place][0] or every[rival][0],
            (),
            _Found(0, [every[place][1].text, every[rival][1].text]),
        )
        for place, rival in clashing_templates([template for _, template in every])
    ]


def _has_duplicate_member(item: Item) -> bool:
    if item.kind is not ItemKind.JSON or not isinstance(item.value, bytes):
        return False
    twice = False

    def watch(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        members = dict(pairs)
        twice = twice or len(members) < len(pairs)
        return members

    try:
        value = json.loads(item.value, object_pairs_hook=watch, parse_int=str, parse_float=str)
        if isinstance(value, str) and value[:1] in {"{", "["}:
            json.loads(value, object_pairs_hook=watch, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        # Not JSON: the lens says so, and better.
        return False
    return twice


def _digest(values: Sequence[Any]) -> bytes:
    texts = [number_text(each) if isinstance(each, Decimal) else repr(each) for each in values]
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _fold(value: Any) -> Any:
    return unicodedata.normalize("NFKC", value).casefold() if isinstance(value, str) else value


def _fixed_start(template: KeyTemplate) -> str:
    first = template.parts[0]
    return first if isinstance(first, str) and len(template.parts) > 1 and not template.hash_field else ""


def _like(start: str) -> str:
    return "".join("." if char == "_" else ".*" if char == "%" else re.escape(char) for char in start)


def _ends_with(path: str, member: tuple[str, ...]) -> bool:
    """Whether a JSON path for people ends with a column's member."""
    return bool(member) and (path.endswith((f".{member[-1]}", f"[{member[-1]!r}]")))
