"""A table's draft to its full list of columns, keys and indexes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from kvmigrate.transform.declaration.table_file import TableDraft, index_parts
from kvmigrate.transform.declaration.yaml_nodes import Node
from kvmigrate.transform.mapping import (
    Column,
    Expires,
    Index,
    OnBadValue,
    OnMissing,
    RestPolicy,
    Role,
    Table,
    Unique,
)
from kvmigrate.transform.path import Path, format_path
from kvmigrate.transform.tables.identifiers import shorten
from kvmigrate.transform.values.column_type import ColumnType

EXPIRES_AT = "expires_at"


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """What an entity's tables share."""

    rows_only: bool
    owner: str
    by_source_key: bool
    tenant: str
    expires: Expires


def object_name(*parts: str) -> str:
    """Join *parts* with ``_`` into a name PostgreSQL keeps whole, hashing the tail of a long one."""
    return shorten("_".join(parts))


def resolve_primary_key(draft: TableDraft, *, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return the declared primary key, else *default*. Raises `MappingError` when there is none."""
    if not draft.primary_key and not default:
        draft.node.fail(f"table {draft.name!r} needs a primary_key")
    names = {each.column.name for each in draft.columns} | {child for child, _ in draft.parent}
    for node in draft.primary_key:
        if node.value not in names:
            node.fail(f"primary_key: {node.value!r} is not a column of {draft.name!r}")
    return tuple(node.value for node in draft.primary_key) or default


def resolve_root(draft: TableDraft, primary_key: tuple[str, ...], scope: Scope) -> Table:
    """Resolve an entity's root and its children. Raises `MappingError`."""
    real = not scope.rows_only
    generated = _generated(draft, scope, carries_item=real, owner_always=scope.by_source_key)
    return _table(draft, [each.column for each in draft.columns] + generated, primary_key, scope, depth=0)


def resolve_lookup(draft: TableDraft) -> Table:
    """Resolve a table that items feed and do not own. Raises `MappingError`."""
    scope = Scope(rows_only=False, owner="", by_source_key=False, tenant="", expires=Expires.UNDECLARED)
    primary_key = resolve_primary_key(draft, default=())
    for each in draft.columns:
        if each.column.role is not Role.PATH or each.column.reference:
            each.node.fail("a lookup's columns are plain paths into the item")
        if each.column.has_default:
            each.node.fail("a lookup takes what the items say; a default goes with a root table's column")
    table = _table(draft, [each.column for each in draft.columns], primary_key, scope, depth=-1)
    return dataclasses.replace(table, rest="", rest_policy=RestPolicy.DROP)


def _child(
    draft: TableDraft, parent: tuple[Column, ...], parent_key: tuple[str, ...], scope: Scope, depth: int
) -> Table:
    by_name = {column.name: column for column in parent}
    copies = []
    for child, node in draft.parent:
        source = node.text("a parent column")
        if source not in by_name or by_name[source].role in {Role.REST, Role.EXPIRES, Role.SOURCE_KEY}:
            node.fail(f"parent: {source!r} is not a column of the parent")
        original = by_name[source]
        reference = original.reference if scope.rows_only and depth == 1 else None
        copies.append(
            Column(child, original.type, Role.PARENT, source=source, reference=reference, not_null=original.required)
        )
    missing = [name for name in parent_key if name not in {copy.source for copy in copies}]
    if missing:
        draft.node.fail(
            f"child {draft.name!r} must copy the parent's primary key",
            hint=f"parent: {{{', '.join(f'{name}: {name}' for name in missing)}}}",
        )
    if scope.tenant and scope.tenant in by_name and scope.tenant not in {copy.source for copy in copies}:
        tenant = by_name[scope.tenant]
        copies.append(Column(scope.tenant, tenant.type, Role.TENANT, source=scope.tenant, not_null=True))
    top = scope.rows_only and depth == 1
    columns = [
        *copies,
        *(each.column for each in draft.columns),
        *_generated(draft, scope, carries_item=top, owner_always=True),
    ]
    counters = [each.column.name for each in draft.columns if each.column.role in {Role.ORDINAL, Role.MAP_KEY}]
    default = (*(copy.name for copy in copies if copy.role is Role.PARENT), *counters)
    return _table(draft, columns, resolve_primary_key(draft, default=default), scope, depth=depth)


def _generated(draft: TableDraft, scope: Scope, *, carries_item: bool, owner_always: bool) -> list[Column]:
    columns = []
    if carries_item and scope.owner:
        columns.append(Column(scope.owner, ColumnType("text"), Role.SOURCE_KEY, not_null=owner_always))
    if carries_item and scope.expires is Expires.COLUMN:
        columns.append(Column(EXPIRES_AT, ColumnType("timestamptz", formats=("iso",)), Role.EXPIRES))
    if draft.rest_policy is RestPolicy.KEEP and draft.rest:
        columns.append(Column(draft.rest, ColumnType("jsonb"), Role.REST))
    return columns


def _table(
    draft: TableDraft, columns: list[Column], primary_key: tuple[str, ...], scope: Scope, *, depth: int
) -> Table:
    _check_columns(draft, columns, primary_key)
    must = {*primary_key, scope.tenant} if depth != 0 or not scope.rows_only else set()
    finished = tuple(
        dataclasses.replace(
            column,
            not_null=column.not_null
            or column.required
            or column.name in must
            or column.role in {Role.ORDINAL, Role.MAP_KEY},
            required=column.required or (column.name in must and column.role in {Role.PATH, Role.KEY}),
        )
        for column in columns
    )
    names = {column.name for column in finished}
    owner = next((column for column in finished if column.role is Role.SOURCE_KEY and column.not_null), None)
    uniques = _uniques(draft, names, scope.tenant)
    indexes = _indexes(draft, names)
    if owner is not None and not scope.rows_only:
        uniques.append(Unique(object_name(draft.name, owner.name, "key"), (owner.name,)))
    elif owner is not None:
        indexes.append(Index(object_name(draft.name, owner.name, "idx"), ((owner.name, False),)))
    return Table(
        name=draft.name,
        columns=finished,
        primary_key=primary_key,
        uniques=tuple(uniques),
        indexes=tuple(indexes),
        each=draft.each,
        is_map=draft.is_map,
        parent=tuple((child, node.value) for child, node in draft.parent),
        rest=draft.rest,
        rest_policy=draft.rest_policy,
        on_bad_value=draft.on_bad_value,
        children=tuple(_child(child, finished, primary_key, scope, depth + 1) for child in draft.children),
    )


def _check_columns(draft: TableDraft, columns: list[Column], primary_key: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for each in draft.columns:
        reference = each.column.reference
        nullable = reference is not None and reference.on_missing is OnMissing.NULL
        if each.column.name in primary_key and (nullable or each.column.on_bad_value is not OnBadValue.QUARANTINE):
            each.node.fail(
                f"{each.column.name!r} is in the primary key and cannot be null: an item without it is refused"
            )
    for column in columns:
        if column.name in seen:
            draft.node.fail(
                f"table {draft.name!r} has two columns called {column.name!r}",
                hint="rest: OTHER_NAME and source_key: OTHER_NAME rename the generated ones",
            )
        seen.add(column.name)
        if column.name in primary_key and column.type.base == "jsonb":
            draft.node.fail(f"{column.name!r} cannot be in a primary key: it is {column.type.sql}")
    claims: list[tuple[str, Path, Node]] = [
        (each.column.name, path, each.node) for each in draft.columns for path in each.column.paths
    ]
    claims += [(child.name, child.each, child.node) for child in draft.children if child.each is not None]
    for position, (name, path, node) in enumerate(claims):
        for other_name, other, _ in claims[:position]:
            shorter = min(len(path), len(other))
            if path[:shorter] == other[:shorter]:
                node.fail(
                    f"{name!r} and {other_name!r} both claim {format_path(min(path, other, key=len))!r}: "
                    "a value has one place in the tables"
                )


def _known(node: Node, names: Iterable[str], what: str) -> str:
    name = node.text(f"{what}: a column's name")
    if name not in set(names):
        node.fail(f"{what}: {name!r} is not a column of this table")
    return name


def _uniques(draft: TableDraft, names: set[str], tenant: str) -> list[Unique]:
    uniques = []
    for node in draft.uniques:
        columns = [_known(each, names, "unique") for each in node.items("unique: a list of columns")]
        if not columns or len(set(columns)) != len(columns):
            node.fail("unique is a list of lists of different column names")
        if tenant in names and tenant not in columns:
            columns.insert(0, tenant)
        uniques.append(Unique(object_name(draft.name, *columns, "key"), tuple(columns)))
    return uniques


def _indexes(draft: TableDraft, names: set[str]) -> list[Index]:
    indexes = []
    for node in draft.indexes:
        parts = index_parts(node)
        for name, _, place in parts:
            if name not in names:
                place.fail(f"indexes: {name!r} is not a column of this table")
        columns = tuple((name, descends) for name, descends, _ in parts)
        indexes.append(Index(object_name(draft.name, *(name for name, _ in columns), "idx"), columns))
    return indexes
