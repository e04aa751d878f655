"""Names of tables, staging tables and owners as SQL: composed once per mapping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from psycopg import sql

from kvmigrate.errors import NotSupportedError
from kvmigrate.transform.keys.pattern import Capture
from kvmigrate.transform.mapping import Column, Entity, ForeignKey, Mapping, Role, Table

ITEM = sql.Identifier("_kvm_item")
"""Staging column before the table's own: the item's ordinal in its batch."""

_PLAIN_TEXT = frozenset({"text", "enum", "uuid", "smallint", "integer", "bigint", "date", "boolean"})


class Key(NamedTuple):
    """A primary key or unique: values that one row holds alone.

    Attributes:
        same_row: The primary key of an entity's root: two items with it are rivals
            for one row, and the mapping says which of them has it.

        in_item: Two elements of one item may collide on it.
    """

    name: str
    columns: tuple[str, ...]
    same_row: bool = False
    in_item: bool = False


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table of the mapping and how it is staged.

    Attributes:
        anchor: Its rows say by themselves to which item they belong.

        lookup: Many items feed it; no item owns its rows.

        gone: Temporary table of the keys of deleted rows, where foreign keys refer to them.
    """

    entity: Entity
    table: Table
    parent: Table | None
    anchor: bool
    lookup: bool
    name: sql.Identifier
    staging: sql.Identifier
    gone: sql.Identifier | None
    keys: tuple[Key, ...]

    @property
    def columns(self) -> sql.Composed:
        """The column names, in order."""
        return names(column.name for column in self.table.columns)

    @property
    def references(self) -> list[ForeignKey]:
        """Its foreign keys to rows of other items."""
        return [key for key in self.table.foreign_keys if not key.owned]


@dataclass(slots=True)
class Layout:
    """All tables of a mapping, in an order in which they can be filled.

    Attributes:
        numbers: What items are written under, by their entity's id.
    """

    mapping: Mapping
    plans: list[TablePlan] = field(init=False)
    by_name: dict[str, TablePlan] = field(init=False)
    candidate: sql.Identifier = field(init=False)
    numbers: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        number = self.mapping.number
        self.numbers = self.mapping.ledger_numbers
        self.candidate = sql.Identifier(f"kvm_{number}_candidate")
        targets = {
            key.target_table for _, table in self.mapping.tables() for key in table.foreign_keys if not key.owned
        }
        self.plans = [
            _plan(self.mapping, position, entity, table, has_referrers=table.name in targets)
            for position, (entity, table) in enumerate(self.mapping.tables())
        ]
        self.by_name = {plan.table.name: plan for plan in self.plans}

    def plans_of(self, entity: Entity) -> list[TablePlan]:
        """Return the plans of the entity's own tables, parents first."""
        return [plan for plan in self.plans if plan.entity is entity and not plan.lookup]

    def anchors(self, entity: Entity) -> list[TablePlan]:
        """Return the plans whose rows name their item: the root, or a rows_only item's top children."""
        return [plan for plan in self.plans_of(entity) if plan.anchor]

    def number_of(self, entity: sql.Composable) -> sql.Composed:
        """Return the SQL of what items of *entity*, an id, are written under now."""
        cases = [
            sql.SQL("WHEN {} THEN {}").format(sql.Literal(each), sql.Literal(number))
            for each, number in self.numbers.items()
        ]
        return sql.SQL("CASE {} {} END").format(entity, sql.SQL(" ").join(cases))

    def owner(self, plan: TablePlan, alias: str) -> tuple[sql.Composed, sql.Composed]:
        """Return joins from *alias* up to the row that names the item, and the item's key as text."""
        joins = sql.Composed([])
        current, here = plan, alias
        while not current.anchor:
            assert current.parent is not None  # noqa: S101 - only anchors have none
            above = f"{here}_up"
            parent = self.by_name[current.parent.name]
            joins += sql.SQL(" JOIN {} AS {} ON {}").format(
                parent.name, sql.Identifier(above), equal_pairs(here, above, current.table.parent)
            )
            current, here = parent, above
        return joins, owner_key(current.entity, here)


def ledger_part(scope: int) -> sql.Identifier:
    """Return the name of the scope's own part of the ledger."""
    return sql.Identifier("kvmigrate", f"ledger_{scope}")


def names(columns: Iterable[str]) -> sql.Composed:
    """Return the quoted names with commas between."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def fields(alias: str, columns: Iterable[str]) -> sql.Composed:
    """Return ``alias.column`` for each, with commas between."""
    return sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns)


def parent_key(child: TablePlan) -> list[tuple[str, str]]:
    """Return the copies of the parent row's primary key, in pairs with it; what else is copied may change."""
    assert child.parent is not None  # noqa: S101 - only roots have none
    return [(mine, theirs) for mine, theirs in child.table.parent if theirs in child.parent.primary_key]


def equal_pairs(left: str, right: str, pairs: Iterable[tuple[str, str]]) -> sql.Composed:
    """Return the condition that each pair of columns is equal."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, mine), sql.Identifier(right, theirs)) for mine, theirs in pairs
    )


def equal(left: str, right: str, columns: Iterable[str]) -> sql.Composed:
    """Return the condition that both have equal values in *columns*."""
    return equal_pairs(left, right, ((column, column) for column in columns))


def all_set(alias: str, columns: Iterable[str]) -> sql.Composed:
    """Return the condition that none of the columns is NULL."""
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, column)) for column in columns)


def value_text(alias: str, columns: Sequence[str]) -> sql.Composed:
    """Return the SQL text that stands for these values in ``waiting.on_value``."""
    if len(columns) == 1:
        return sql.SQL("{}::text").format(sql.Identifier(alias, columns[0]))
    parts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(alias, column)) for column in columns)
    return sql.SQL("jsonb_build_array({})::text").format(parts)


def value_part(text: sql.Composable, columns: Sequence[Column], position: int) -> sql.Composed:
    """Return the SQL that reads back one column's value out of a `value_text`."""
    kind = sql.SQL(cast("Any", columns[position].type.sql))
    if len(columns) == 1:
        return sql.SQL("({})::{}").format(text, kind)
    return sql.SQL("(({})::jsonb->>{})::{}").format(text, sql.Literal(position), kind)


def owner_key(entity: Entity, alias: str) -> sql.Composed:
    """Return the key of the item that owns a root row, as SQL text.

    Raises:
        NotSupportedError: a key column's type has no one text that SQL and the lens share.
    """
    stored = sql.SQL("{}").format(sql.Identifier(alias, entity.owner_column)) if entity.owner_column else None
    if stored is not None and entity.owned_by_source_key:
        return sql.SQL('{} COLLATE "C"').format(stored)
    rendered = sql.SQL(" || ").join(_rendered(entity, alias))
    whole = sql.SQL("coalesce({}, {})").format(stored, rendered) if stored is not None else rendered
    return sql.SQL('({}) COLLATE "C"').format(whole)


def _rendered(entity: Entity, alias: str) -> Iterator[sql.Composable]:
    columns = {column.source: column for column in entity.root.columns if column.role is Role.KEY}
    for part in entity.keys[0].parts:
        if not isinstance(part, Capture):
            yield sql.Literal(part)
        elif part.name in columns:
            yield _key_text(columns[part.name], alias)
        else:
            yield sql.Literal(part.choices[0] if part.choices else "")


def _key_text(column: Column, alias: str) -> sql.Composed:
    name = sql.Identifier(alias, column.name)
    if column.type.base in _PLAIN_TEXT and not column.type.array:
        return sql.SQL("{}::text").format(name)
    if column.type.base == "timestamptz" and column.type.formats[0] in {"epoch_s", "epoch_ms"}:
        factor = sql.Literal(1000 if column.type.formats[0] == "epoch_ms" else 1)
        return sql.SQL("trim_scale(extract(epoch FROM {}) * {})::text").format(name, factor)
    raise NotSupportedError(
        f"key column {column.name!r} of type {column.type.sql} is not supported yet",
        hint="take the capture as text, uuid, an integer, a date, an enum or an epoch timestamp",
    )


def _plan(mapping: Mapping, position: int, entity: Entity, table: Table, *, has_referrers: bool) -> TablePlan:
    lookup = table in entity.derive
    parent = None if lookup else _parent(entity, table)
    anchor = not lookup and (parent is None or (entity.rows_only and parent is entity.root))
    prefix = f"kvm_{mapping.number}_{position}"
    return TablePlan(
        entity=entity,
        table=table,
        parent=parent,
        anchor=anchor,
        lookup=lookup,
        name=sql.Identifier(mapping.schema, table.name),
        staging=sql.Identifier(prefix),
        gone=sql.Identifier(f"{prefix}_gone") if has_referrers else None,
        keys=() if lookup else tuple(_keys(entity, table, parent, anchor=anchor)),
    )


def _parent(entity: Entity, table: Table) -> Table | None:
    for candidate in entity.root.walk():
        if any(child is table for child in candidate.children):
            return candidate
    return None


def _keys(entity: Entity, table: Table, parent: Table | None, *, anchor: bool) -> Iterator[Key]:
    """Yield the keys on which rows of one batch, or of different items, may collide."""
    root = anchor and not entity.rows_only
    copies = {child for child, _ in table.parent}
    ordinals = {column.name for column in table.columns if column.role is Role.ORDINAL}
    owned = not anchor and parent is not None
    declared = [Key(f"{table.name}_pkey", table.primary_key, same_row=root)]
    declared += [Key(unique.name, unique.columns) for unique in table.uniques if not unique.target]
    for key in declared:
        columns = set(key.columns)
        in_item = not root and not (columns & ordinals)
        # A child's key that holds its parent's key can collide inside the item only.
        if in_item or not (owned and copies <= columns):
            yield key._replace(in_item=in_item)
