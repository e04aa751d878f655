"""The compiled mapping: what backfill, mirror, applier and export call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvmigrate.errors import LensError, MappingError
from kvmigrate.model import ADDRESS_SEPARATOR, Item, ItemKind, Reason, Refusal, RowSet
from kvmigrate.transform.keys.route import Route, RouteKind, Router
from kvmigrate.transform.lens import emitted
from kvmigrate.transform.lens.backward import Rows, backward_item, expiry_of, key_of
from kvmigrate.transform.lens.emitted import Emitter
from kvmigrate.transform.lens.fast import FastEntity, compile_entity
from kvmigrate.transform.lens.fast_back import FastBack, can_go_back, compile_back
from kvmigrate.transform.lens.forward import Missing, forward_item
from kvmigrate.transform.lens.page import Left, PageBuilder, PageRows, Routed
from kvmigrate.transform.lens.plan import EntityPlan, TablePlan, plan_entity
from kvmigrate.transform.mapping import Entity, Expires, Mapping, Role
from kvmigrate.transform.path import json_path
from kvmigrate.transform.values.pack import packer
from kvmigrate.transform.values.refused import ValueRefused

_WANTED = frozenset({RouteKind.ENTITY, RouteKind.POINTER, RouteKind.AMBIGUOUS})
TTL_STAYS = "it expires, and expires is leave_in_kv"
"""Why an item stays that has an expiry."""


class Lens:
    """A mapping at work, both ways. It is pure: the same item gives the same rows."""

    def __init__(self, mapping: Mapping) -> None:
        """Compile *mapping*; `compile_mapping` is the way in."""
        self.mapping = mapping
        self._router = Router(mapping)
        self.entity_of = self._router.entity_of
        """Return the entity of a usual key; ``None`` says nothing, only that `route` must be asked."""
        self._plans = {entity.name: plan_entity(entity) for entity in mapping.entities}
        self._packers = {
            table.table.name: _TablePacker(table) for plan in self._plans.values() for table in _tables(plan)
        }
        self._exploding = _hash_keys(mapping)
        compiled = {name: compile_entity(plan) for name, plan in self._plans.items()}
        self._compiled = {name: fast for name, fast in compiled.items() if fast}
        self._back: dict[str, FastBack | None] = {}
        self._fast: dict[int, FastEntity] = {}
        for candidate in self._router.candidates:
            fast = compiled[candidate.route.entity.name] if candidate.route.entity else None
            if fast is not None and candidate.route.template in fast.templates:
                self._fast[candidate.number] = fast
        self._emitter = self._make_emitter()

    def _back_of(self, entity: str) -> FastBack | None:
        """Return the compiled way back, made when it is first needed; ``None`` where the exact path is the only one."""
        if entity not in self._back:
            plan = self._plans[entity]
            self._back[entity] = compile_back(plan) if entity in self._compiled and can_go_back(plan) else None
        return self._back[entity]

    def _make_emitter(self) -> Emitter | None:
        """Compile the programs of entities with generated code, where there is something to run them."""
        plans = {
            each.number: self._plans[each.route.entity.name]
            for each in self._router.candidates
            if each.number in self._fast and each.route.entity is not None
        }
        return Emitter(emitted.native, self._router, plans) if emitted.native is not None and plans else None

    def route(self, key: str) -> Route:
        """Return where a key belongs."""
        return self._router.route(key)

    def wants(self, key: str) -> bool:
        """Whether the value of this key must be read: an entity's, a pointer's, or a clash to quarantine."""
        found = self._router.find(key)
        kind = self._router.route(key).kind if found is None else found[0].route.kind
        return kind in _WANTED

    def wants_all(self, keys: list[str]) -> bool:
        """Return what `wants` says of all these keys together."""
        return self.owns_all(keys) or all(map(self.wants, keys))

    def owns_all(self, keys: list[str]) -> bool:
        """Whether every key is a usual one of an entity; ``False`` says nothing, only that each must be asked about."""
        return self._emitter is not None and self._emitter.takes(keys)

    @property
    def has_exploding(self) -> bool:
        """Whether there is any hash that is a table of records."""
        return bool(self._exploding)

    def explodes(self, key: str) -> bool:
        """Whether a hash under this key is a table of records."""
        return key in self._exploding

    def forward(self, item: Item, *, missing: Missing = ()) -> RowSet | Refusal | Left:
        """Return the rows of one item, or why it has none.

        Args:
            item: An item whose key belongs to an entity.

            missing: References (table, column, column value) to make null, as their
                parent does not exist.
        """
        return self._forward(item, self._router.route(item.key), missing)

    def _forward(self, item: Item, route: Route, missing: Missing = ()) -> RowSet | Refusal | Left:
        if route.kind is RouteKind.AMBIGUOUS:
            return Refusal(item.key, "$", Reason.AMBIGUOUS_KEY, route.reason)
        if route.entity is None:
            return Left(item.key, route.reason or "no key pattern matches")
        if route.entity.expires is Expires.LEAVE_IN_KV and item.expires_at_ms is not None:
            return Left(item.key, TTL_STAYS)
        try:
            return forward_item(self._plans[route.entity.name], item, route.captured, missing)
        except ValueRefused as exc:
            return Refusal(item.key, json_path(*exc.path), exc.reason, exc.message)

    def pack(self, row_set: RowSet, ordinal: int) -> dict[str, bytes]:
        """Return the rows of a row set as binary COPY rows by table, staged, like `page` does."""
        builder = PageBuilder()
        self._add(builder, row_set, ordinal)
        return builder.finish().tables

    def page(self, items: Sequence[Item], *, staged: bool = True) -> PageRows:
        """Return what a page of items becomes. Every item is in exactly one list of the result.

        Args:
            items: No key twice.

            staged: Put the item's ordinal before the columns of each row; else the rows
                are ready for COPY straight into their tables.
        """
        builder = PageBuilder(staged=staged)
        groups: dict[int, list[Routed]] = {}
        find, fast, emitter = self._router.find, self._fast, self._emitter
        for ordinal, item in enumerate(items) if emitter is None else emitter.page(items, builder):
            found = find(item.key)
            if found is None or found[0].number not in fast:
                self._exact(builder, ordinal, item)
            else:
                groups.setdefault(found[0].number, []).append((ordinal, item, found[1]))
        for number, group in groups.items():
            candidate = self._router.candidates[number]
            template, places = candidate.route.template, candidate.places
            rest = group if emitter is None else emitter.group(group, builder, candidate)
            rest = fast[number].page(rest, builder, template, places) if rest else rest
            odd = fast[number].odd
            if rest and odd is not None:
                rest = odd(rest, builder, template, places)
            for ordinal, item, _ in rest:
                self._exact(builder, ordinal, item)
        return builder.finish()

    def _exact(self, builder: PageBuilder, ordinal: int, item: Item) -> None:
        route = self._router.route(item.key)
        if route.entity is None and route.kind is not RouteKind.AMBIGUOUS:
            builder.aside(item, route)
            return
        found = self._forward(item, route)
        if isinstance(found, Refusal):
            builder.page.refused.append((item, found))
        elif isinstance(found, Left):
            builder.page.left.append(found)
        elif route.entity is not None:
            self._add(builder, found, ordinal)
            builder.accept(ordinal, item, route.entity.id)

    def _add(self, builder: PageBuilder, row_set: RowSet, ordinal: int) -> None:
        for row in (*row_set.derived, *row_set.rows):
            table = self._packers[row.table]
            packed, rest_bytes = table.pack(row.values)
            builder.add_row(row.table, builder.heads(table.columns)[ordinal] + packed, rest_bytes)
        builder.normalised.update(row_set.normalised)

    def backward(self, entity: Entity, key: str | None, rows: Rows) -> Item:
        """Return the item that *rows* correspond to.

        Args:
            entity: The entity that owns the rows.

            key: The item's key; ``None`` rebuilds it from the rows.

            rows: All rows of the item by table, in column order, as psycopg loads
                them; jsonb loaded exactly (numbers as int and `Decimal`).

        Raises:
            LensError: no blob can correspond to these rows.
        """
        plan = self._plans[entity.name]
        key = key_of(plan, rows) if key is None else key
        back, found = self._back_of(entity.name), self._router.find(key)
        if back is not None and found is not None and found[0].number in self._fast:
            value = back.value(found[1], found[0].places, rows)
            if value is not None:
                return Item(key, value, ItemKind.JSON, expiry_of(plan, rows))
        route = self._router.route(key)
        if route.entity is not entity:
            message = f"{key}: the key does not belong to {entity.name!r}"
            raise LensError(message, key=key, hint="the row's source_key was changed, or the mapping's keys were")
        return backward_item(plan, key, route.captured, rows)

    def show_code(self, entity: str | None = None) -> str:
        """Return the generated code of one entity, or of all; those without say so, and which take the emitter.

        Raises:
            KeyError: the mapping has no such entity.
        """
        names = [self._plans[entity].entity.name] if entity else list(self._plans)
        compiled = self._compiled
        parts = [self._head_of_code(name) + (compiled[name].source if name in compiled else "") for name in names]
        return "\n\n".join(parts + [back.source for back in map(self._back_of, names) if back is not None])

    def _head_of_code(self, entity: str) -> str:
        """Say who makes the rows of an entity's plain items."""
        if entity not in self._compiled:
            return f"# {entity}: no generated code; every item takes the exact path\n"
        if self._emitter is None:
            return f"# {entity}: the compiled emitter was not built here; the code below does all\n"
        if entity not in self._emitter.entities:
            return f"# {entity}: the compiled emitter lacks a type of it; the code below does all\n"
        return f"# {entity}: plain items take the compiled emitter, which gives what the code below gives\n"

    def primary_key(self, entity: Entity, key: str) -> tuple[Any, ...] | None:
        """Return the root's primary key as the key alone gives it, or ``None`` when it does not."""
        if entity.owned_by_source_key:
            return None
        plan, captured = self._plans[entity.name], self._router.route(key).captured
        by_name = {each.column.name: each for each in plan.keys}
        try:
            return tuple(
                by_name[name].from_text(captured[by_name[name].column.source]) for name in entity.root.primary_key
            )
        except (ValueRefused, KeyError):
            return None


def compile_mapping(mapping: Mapping) -> Lens:
    """Compile a checked mapping.

    Raises:
        MappingError: a function that the mapping names cannot be imported.
    """
    try:
        return Lens(mapping)
    except ValueError as exc:
        raise MappingError(
            str(exc), file=mapping.file, hint="the module must be importable where kvmigrate runs"
        ) from exc


class _TablePacker:
    """Packs the rows of one table."""

    def __init__(self, plan: TablePlan) -> None:
        self._packers = tuple(packer(each.column.type) for each in plan.columns)
        self.columns = len(self._packers)
        rest = plan.by_role(Role.REST)
        self._rest = rest[0].position if rest else None

    def pack(self, values: Sequence[Any]) -> tuple[bytes, int]:
        """Return the row without its head, and the bytes of JSON text in its rest."""
        fields = [pack(value) for pack, value in zip(self._packers, values, strict=True)]
        # Length word and jsonb version byte are no rest.
        rest_bytes = 0 if self._rest is None or values[self._rest] is None else len(fields[self._rest]) - 5
        return b"".join(fields), rest_bytes


def _tables(plan: EntityPlan) -> list[TablePlan]:
    out, pending = list(plan.derive), [plan.root]
    while pending:
        table = pending.pop()
        out.append(table)
        pending.extend(table.children)
    return out


def _hash_keys(mapping: Mapping) -> frozenset[str]:
    templates = [template for entity in mapping.entities for template in entity.keys if template.hash_field]
    return frozenset(template.text.split(ADDRESS_SEPARATOR, 1)[0] for template in templates)
