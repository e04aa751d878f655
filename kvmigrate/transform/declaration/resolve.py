"""Drafts of the mapping file to the resolved `Mapping`: generated columns, keys, order."""

from __future__ import annotations

import hashlib

from kvmigrate.errors import MappingError
from kvmigrate.transform.declaration.entity_file import EntityDraft
from kvmigrate.transform.declaration.resolve_keys import link_tables
from kvmigrate.transform.declaration.resolve_table import Scope, resolve_lookup, resolve_primary_key, resolve_root
from kvmigrate.transform.declaration.yaml_nodes import Node
from kvmigrate.transform.keys.pattern import KeyTemplate
from kvmigrate.transform.keys.template_overlap import clashing_templates
from kvmigrate.transform.mapping import Entity, LeaveInKV, Mapping, Pointer, Role


def resolve_mapping(
    drafts: list[EntityDraft],
    *,
    name: str,
    schema: str,
    pointers: list[tuple[Node, Pointer]],
    leave_in_kv: list[tuple[Node, LeaveInKV]],
    fingerprint: str,
    file: str,
) -> Mapping:
    """Resolve what the file leaves implicit, and check what only the whole file shows.

    Raises:
        MappingError: with the place of the declaration at fault.
    """
    nodes = {draft.name: draft.node for draft in drafts}
    entities = {draft.name: _entity(draft) for draft in drafts}
    _check_tables(entities, nodes)
    for node, pointer in pointers:
        _check_pointer(node, pointer, entities)
    every = [(draft.name, node, template) for draft in drafts for node, template in draft.keys]
    every += [("pointers", node, pointer.key) for node, pointer in pointers]
    every += [("leave_in_kv", node, leave.key) for node, leave in leave_in_kv]
    _check_overlap(every)
    return Mapping(
        name=name,
        schema=schema,
        entities=tuple(_load_order(link_tables(entities, nodes))),
        pointers=tuple(pointer for _, pointer in pointers),
        leave_in_kv=tuple(leave for _, leave in leave_in_kv),
        fingerprint=fingerprint,
        file=file,
    )


def _entity(draft: EntityDraft) -> Entity:
    _check_captures(draft)
    key_columns = tuple(each.column.name for each in draft.root.roles(Role.KEY))
    primary_key = () if draft.rows_only else resolve_primary_key(draft.root, default=key_columns)
    by_source_key = draft.rows_only or not _follows_from_key(draft, primary_key)
    scope = Scope(
        rows_only=draft.rows_only,
        owner=_owner_name(draft, needed=by_source_key or _needs_source_key(draft)),
        by_source_key=by_source_key,
        tenant=draft.members["tenant"].text("tenant") if "tenant" in draft.members else "",
        expires=draft.expires,
    )
    root = resolve_root(draft.root, primary_key, scope)
    _check_entity(draft, scope)
    return Entity(
        name=draft.name,
        id=int.from_bytes(hashlib.sha256(draft.name.encode()).digest()[:4], "big") & 0x7FFFFFFF,
        keys=tuple(template for _, template in draft.keys),
        root=root,
        rows_only=draft.rows_only,
        tenant=scope.tenant,
        decode=draft.decode,
        expires=draft.expires,
        on_same_row=draft.option("on_same_row", "first_template", "quarantine"),
        on_nul=draft.on_nul,
        derive=tuple(resolve_lookup(each) for each in draft.derive),
        owner_column=scope.owner,
        owned_by_source_key=by_source_key,
        joined_as=draft.members["joined_as"].name("joined_as") if "joined_as" in draft.members else "",
    )


def _check_captures(draft: EntityDraft) -> None:
    names = {capture.name for _, template in draft.keys for capture in template.captures}
    sources = {each.column.source for each in draft.root.roles(Role.KEY)}
    for each in draft.root.roles(Role.KEY):
        if each.column.source not in names:
            each.node.fail(f"no key pattern of {draft.name!r} captures {each.column.source!r}")
    for node, template in draft.keys:
        for capture in template.captures:
            if capture.name not in sources and not capture.constrains:
                node.fail(
                    f"capture {{{capture.name}}} of {template.text!r} is neither a column nor a constraint: "
                    "its text would be lost",
                    hint=f"add a column {{key: {capture.name}, type: ...}}, or constrain it: {{{capture.name}=a|b}}",
                )


def _follows_from_key(draft: EntityDraft, primary_key: tuple[str, ...]) -> bool:
    """Whether every key pattern yields the whole primary key."""
    sources = {each.column.name: each.column.source for each in draft.root.roles(Role.KEY)}
    patterns = [{capture.name for capture in template.captures} for _, template in draft.keys]
    return all(name in sources and all(sources[name] in names for names in patterns) for name in primary_key)


def _needs_source_key(draft: EntityDraft) -> bool:
    """Whether some key cannot be rebuilt from the columns by the first pattern."""
    keys = draft.root.roles(Role.KEY)
    if len(draft.keys) > 1 or any(each.column.foreign_ids for each in keys):
        return True
    sources = {each.column.source for each in keys}
    return any(capture.name not in sources and len(capture.choices) != 1 for capture in draft.keys[0][1].captures)


def _owner_name(draft: EntityDraft, *, needed: bool) -> str:
    if "source_key" in draft.members:
        return draft.members["source_key"].name("source_key")
    return "source_key" if needed else ""


def _check_entity(draft: EntityDraft, scope: Scope) -> None:
    names = {each.column.name for each in draft.root.columns}
    if scope.tenant and scope.tenant not in names:
        draft.members["tenant"].fail(f"tenant: {scope.tenant!r} is not a column of {draft.name!r}")
    if draft.rows_only:
        if not draft.root.children:
            draft.node.fail("rows_only needs children: they are the only rows")
        if draft.root.uniques or draft.root.indexes or draft.root.primary_key:
            draft.node.fail("rows_only has no parent row: declare keys and indexes on its children")
        stray = [each for each in draft.root.columns if each.column.role is not Role.KEY]
        if stray:
            stray[0].node.fail("rows_only has no parent row: its columns can only come from the key")
    for each in draft.root.columns:
        if each.column.role in {Role.ORDINAL, Role.MAP_KEY}:
            each.node.fail(f"{each.column.role} goes with a child table")


def _check_tables(entities: dict[str, Entity], nodes: dict[str, Node]) -> None:
    seen: dict[str, str] = {}
    ids: dict[int, str] = {}
    for entity in entities.values():
        if ids.setdefault(entity.id, entity.name) != entity.name:
            nodes[entity.name].fail(f"the names {ids[entity.id]!r} and {entity.name!r} get the same number; rename one")
        for table in (*entity.derive, *entity.tables):
            if table.name in seen:
                nodes[entity.name].fail(
                    f"table {table.name!r} belongs to {seen[table.name]!r} and {entity.name!r}: a row has one owner",
                    hint="give several key patterns to one entity, or feed a shared table with derive:",
                )
            seen[table.name] = entity.name


def _check_pointer(node: Node, pointer: Pointer, entities: dict[str, Entity]) -> None:
    name = pointer.lists or pointer.points_to
    if name not in entities:
        node.fail(f"pointer: there is no entity {name!r}", hint=f"entities: {', '.join(entities)}")
    entity = entities[name]
    columns = {column.name for column in entity.root.columns}
    if pointer.by and pointer.by not in columns:
        node.fail(f"pointer: {pointer.by!r} is not a column of {name!r}")
    if pointer.lists:
        for capture in pointer.key.captures:
            if capture.name not in columns and not capture.constrains:
                node.fail(
                    f"pointer: capture {capture.name!r} is not a column of {name!r}, so the list cannot be checked"
                )


def _check_overlap(every: list[tuple[str, Node, KeyTemplate]]) -> None:
    for place, rival in clashing_templates([template for _, _, template in every]):
        name, node, template = every[place]
        other_name, _, other = every[rival]
        node.fail(
            f"keys can match both {template.text!r} ({name}) and {other.text!r} ({other_name})",
            hint="constrain one of them more: {x=a|b}, {x=uuid}, {x=int}",
        )


def _load_order(entities: dict[str, Entity]) -> list[Entity]:
    """Parents before those that reference them; circles stay in file order."""
    order: list[Entity] = []
    state: dict[str, bool] = {}

    def visit(name: str) -> None:
        if name in state:
            return
        state[name] = True
        for table in entities[name].tables:
            for key in table.foreign_keys:
                if not key.owned:
                    visit(key.entity)
        order.append(entities[name])

    for name in entities:
        try:
            visit(name)
        except RecursionError as exc:
            message = "references are nested too deep"
            raise MappingError(message) from exc
    return order
