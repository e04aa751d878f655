"""One entity of the mapping, prepared once for checking many items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from kvmigrate.consistency.routing import Templates
from kvmigrate.consistency.value_types import Unfit, ValueType, value_type
from kvmigrate.errors import ConfigError, LensError
from kvmigrate.transform.mapping import Column, Entity, OnBadValue, OnMissing, RestPolicy, Role, Table
from kvmigrate.transform.path import Path


class Missing:
    """The type of `MISSING`: no such member, which differs from null."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = Missing()
_INTEGERS = frozenset(("smallint", "integer", "bigint"))

Claim = tuple[Path | None, Any]
"""Where a column found its value, and the value; ``(None, MISSING)`` without one."""


def lookup(value: Any, path: Path) -> Any:
    """Return what is at *path*, or `MISSING`; intermediate values that are no object mean missing."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


class ColumnPlan:
    """One column: where its value is and how it is converted."""

    __slots__ = ("column", "default", "index", "kind", "name", "paths", "personal", "role", "single")

    def __init__(self, column: Column, index: int) -> None:
        self.column, self.index, self.name, self.role = column, index, column.name, column.role
        self.kind: ValueType = value_type(column)
        self.paths, self.personal = column.paths, column.personal
        # The common case, one member name, is looked up without a loop.
        self.single = column.paths[0][0] if len(column.paths) == 1 and len(column.paths[0]) == 1 else None
        self.default = self._default()

    @property
    def may_wait(self) -> bool:
        """Whether the column is NULL while the item it references does not exist."""
        reference = self.column.reference
        return reference is not None and reference.on_missing is OnMissing.NULL

    def repeats_key(self, captured: Mapping[str, str]) -> bool:
        """Whether the key gives this column, so that a member can only repeat it.

        A KEY column whose capture this key's pattern lacks is read from its paths instead.
        """
        return self.role is Role.KEY and self.column.source in captured

    def claim(self, value: Any) -> Claim:
        """Return the first alias that holds a value, else the first that holds null."""
        if self.single is not None:
            if type(value) is dict and self.single in value:
                return self.paths[0], value[self.single]
            return None, MISSING
        null: Path | None = None
        for path in self.paths:
            found = lookup(value, path)
            if found is None:
                null = path if null is None else null
            elif found is not MISSING:
                return path, found
        return (None, MISSING) if null is None else (null, None)

    def canonical(self, stored: Any, *, texts: bool) -> Any:
        """Return the canonical JSON (or text, in a hash) of a column value that is not NULL.

        Raises:
            LensError: the value is not of the column's type.
        """
        try:
            return self.kind.to_text(stored) if texts else self.kind.to_json(stored)
        except (AttributeError, TypeError, ValueError) as exc:
            raise LensError(f"column {self.name} holds a value that is no {self.column.type.sql}") from exc

    def capture_json(self, text: str) -> str | int:
        """Return the member by which a blob repeats this capture of its key."""
        if self.column.type.base in _INTEGERS and not self.column.type.array and len(text) < 20:
            try:
                number = int(text)
            except ValueError:
                return text
            return number if str(number) == text else text
        return text

    def _default(self) -> Any:
        if not self.column.has_default:
            return None
        default = self.column.default
        made = self.kind.to_column(default if isinstance(default, str | bool | int | list | dict) else str(default))
        if isinstance(made, Unfit):
            raise ConfigError(
                f"column {self.name!r}: the default {default!r} does not fit {self.column.type.sql}: {made.why}",
                hint="correct the default in the mapping",
            )
        return made


class TablePlan:
    """One table: its columns by what feeds them, and its children.

    Attributes:
        claimers: Columns that claim members: PATH, and KEY with paths.

        parents: Pairs of a PARENT column's index and its source's index in the parent.

        needs_object: Some column is a member, so an element must be an object (or null).

        drops: What no column claims is lost, as the mapping declares.
    """

    def __init__(self, table: Table, parent: TablePlan | None, root: TablePlan | None) -> None:
        self.table, self.name, self.parent = table, table.name, parent
        self.columns = tuple(ColumnPlan(column, index) for index, column in enumerate(table.columns))
        root = root or self
        self.root = root
        self.key_columns = self._of(Role.KEY)
        self.path_columns = self._of(Role.PATH)
        self.claimers = tuple(each for each in self.columns if each.paths and each.role in {Role.PATH, Role.KEY})
        self.whole = tuple(each for each in self.claimers if each.paths[0] == ())
        self.members = tuple(each for each in self.claimers if each.paths[0] != ())
        self.ordinal, self.map_key = self._one(Role.ORDINAL), self._one(Role.MAP_KEY)
        self.source_key, self.expires, self.rest = (
            self._one(Role.SOURCE_KEY),
            self._one(Role.EXPIRES),
            self._one(Role.REST),
        )
        sources = {each.name: each.index for each in parent.columns} if parent else {}
        top = {each.name: each.index for each in root.columns}
        self.parents = tuple((each.index, sources[each.column.source]) for each in self._of(Role.PARENT))
        self.tenants = tuple((each.index, top[each.column.source]) for each in self._of(Role.TENANT))
        self.checked = tuple(each for each in self.columns if each.role is not Role.REST)
        self.needs_object = bool(self.members)
        self.drops = table.rest_policy is RestPolicy.DROP
        self.each: Path = table.each or ()
        self.is_map = table.is_map
        self.children = tuple(TablePlan(child, self, root) for child in table.children)
        self.lossy: bool = (
            self.drops
            or table.on_bad_value is OnBadValue.NULL
            or any(each.column.on_bad_value is OnBadValue.NULL for each in self.columns)
            or any(child.lossy for child in self.children)
        )

    def walk(self) -> Iterator[TablePlan]:
        """Yield this plan, then its children depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def group_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the parent's values that a child row names."""
        return tuple(row[index] for index, _ in self.parents)

    def group_under(self, parent: Sequence[Any]) -> tuple[Any, ...]:
        """Return what `group_of` is for the children of this parent row."""
        return tuple(parent[index] for _, index in self.parents)

    def _of(self, role: Role) -> tuple[ColumnPlan, ...]:
        return tuple(each for each in self.columns if each.role is role)

    def _one(self, role: Role) -> ColumnPlan | None:
        return next(iter(self._of(role)), None)


class EntityPlan:
    """One entity: its tables, its key patterns, and how its keys are rebuilt."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.root = TablePlan(entity.root, None, None)
        self.templates = Templates((template, entity) for template in entity.keys)
        self.tables = tuple(self.root.walk())[1 if entity.rows_only else 0 :]

    def captured(self, key: str) -> Mapping[str, str]:
        """Return the captures of *key* by the pattern that constrains most, or none."""
        return self.templates.best(key)[1]

    def key_values(self, captured: Mapping[str, str]) -> list[Any]:
        """Return the root's values with only the key's columns filled; `Unfit` where a text does not convert."""
        values: list[Any] = [None] * len(self.root.columns)
        for each in self.root.key_columns:
            text = captured.get(each.column.source)
            values[each.index] = None if text is None else each.kind.from_text(text)
        return values

    def first_key(self, values: Sequence[Any]) -> str | None:
        """Return the first pattern's key for these root values, or ``None`` where they do not give one."""
        captured = {
            each.column.source: each.canonical(values[each.index], texts=True)
            for each in self.root.key_columns
            if values[each.index] is not None and not isinstance(values[each.index], Unfit)
        }
        try:
            return self.entity.keys[0].render(captured)
        except KeyError:
            return None

    def primary_key(self, captured: Mapping[str, str]) -> tuple[Any, ...] | None:
        """Return the root's primary key for these captures, or ``None`` when they give none."""
        values = self.key_values(captured)
        by_name = {each.name: values[each.index] for each in self.root.key_columns}
        made = tuple(by_name.get(name) for name in self.entity.root.primary_key)
        return None if any(value is None or isinstance(value, Unfit) for value in made) else made


PlanOf = Callable[[Entity], EntityPlan]


class PlanCache:
    """Plans by entity, made on first use."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._plans: dict[int, EntityPlan] = {}

    def __call__(self, entity: Entity) -> EntityPlan:
        """Return the plan of *entity*."""
        plan = self._plans.get(id(entity))
        if plan is None or plan.entity is not entity:
            if len(self._plans) >= self._limit:
                self._plans.clear()
            plan = self._plans[id(entity)] = EntityPlan(entity)
        return plan
