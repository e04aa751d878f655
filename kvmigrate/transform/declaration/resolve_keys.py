"""References to foreign keys, tenant-scoped where both sides share a tenant's root."""

from __future__ import annotations

import dataclasses

from kvmigrate.transform.declaration.resolve_table import object_name
from kvmigrate.transform.declaration.yaml_nodes import Node
from kvmigrate.transform.mapping import Column, Entity, ForeignKey, Role, Table, Unique


def link_tables(entities: dict[str, Entity], nodes: dict[str, Node]) -> dict[str, Entity]:
    """Give every table its foreign keys, and targets the uniques that composite keys need.

    Raises:
        MappingError: a reference to an unknown entity, of another type, or to a
            primary key of several columns.
    """
    targets: dict[str, set[tuple[str, ...]]] = {}
    linked = {name: _link_entity(entity, entities, nodes[name], targets) for name, entity in entities.items()}
    return {name: _with_targets(entity, targets.get(name, set())) for name, entity in linked.items()}


def _link_entity(
    entity: Entity, entities: dict[str, Entity], node: Node, targets: dict[str, set[tuple[str, ...]]]
) -> Entity:
    root = _link_table(entity.root, None, entity, entities, node, targets)
    return dataclasses.replace(entity, root=root)


def _link_table(
    table: Table,
    parent: Table | None,
    entity: Entity,
    entities: dict[str, Entity],
    node: Node,
    targets: dict[str, set[tuple[str, ...]]],
) -> Table:
    keys = []
    if parent is not None and not (entity.rows_only and parent is entity.root):
        keys.append(_to_parent(table, parent))
    if parent is not None or not entity.rows_only:
        for column in table.columns:
            if column.reference is not None:
                key = _reference(table, column, entity, entities, node)
                keys.append(key)
                if len(key.columns) > 1:
                    targets.setdefault(key.entity, set()).add(key.target_columns)
    children = tuple(_link_table(child, table, entity, entities, node, targets) for child in table.children)
    return dataclasses.replace(table, foreign_keys=tuple(keys), children=children)


def _to_parent(table: Table, parent: Table) -> ForeignKey:
    copies = {column.source: column.name for column in table.columns if column.role is Role.PARENT}
    columns = tuple(copies[name] for name in parent.primary_key)
    return ForeignKey(
        object_name(table.name, *columns, "fkey"), table.name, columns, parent.name, parent.primary_key, owned=True
    )


def _reference(table: Table, column: Column, entity: Entity, entities: dict[str, Entity], node: Node) -> ForeignKey:
    reference = column.reference
    assert reference is not None  # noqa: S101 - the caller asked; for the type checker
    if reference.entity not in entities:
        node.fail(
            f"column {column.name!r} references {reference.entity!r}, which is no entity",
            hint=f"entities: {', '.join(entities)}",
        )
    target = entities[reference.entity]
    if target.rows_only or len(target.root.primary_key) != 1:
        node.fail(f"column {column.name!r} references {reference.entity!r}, whose primary key is not one column")
    wanted = target.root.column(target.root.primary_key[0])
    if wanted.type.sql != column.type.sql:
        node.fail(
            f"column {column.name!r} is {column.type.sql}, but {reference.entity}.{wanted.name} is {wanted.type.sql}"
        )
    columns: tuple[str, ...] = (column.name,)
    target_columns: tuple[str, ...] = target.root.primary_key
    if _shared_root(entity, target, entities) and column.name != entity.tenant:
        columns = (entity.tenant, column.name)
        target_columns = (target.tenant, *target_columns)
    return ForeignKey(
        object_name(table.name, column.name, "fkey"),
        table.name,
        columns,
        target.root.name,
        target_columns,
        owned=False,
        column=column.name,
        entity=target.name,
        on_missing=reference.on_missing,
    )


def _shared_root(entity: Entity, target: Entity, entities: dict[str, Entity]) -> bool:
    roots = {_tenant_root(each, entities) for each in (entity, target)}
    return len(roots) == 1 and "" not in roots


def _tenant_root(entity: Entity, entities: dict[str, Entity]) -> str:
    """Entity that the tenant column references, or "" without a tenant or a reference."""
    if not entity.tenant:
        return ""
    column = entity.root.column(entity.tenant)
    return column.reference.entity if column.reference and column.reference.entity in entities else ""


def _with_targets(entity: Entity, wanted: set[tuple[str, ...]]) -> Entity:
    have = {unique.columns for unique in entity.root.uniques}
    added = tuple(
        Unique(object_name(entity.root.name, *columns, "target"), columns, target=True)
        for columns in sorted(wanted - have)
    )
    return (
        dataclasses.replace(entity, root=dataclasses.replace(entity.root, uniques=entity.root.uniques + added))
        if added
        else entity
    )
