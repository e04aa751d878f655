"""An entity prepared for comparing its items by the page: what is decoded, read and compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from kvmigrate.consistency.plan import ColumnPlan, EntityPlan, TablePlan
from kvmigrate.consistency.quick_types import QuickType, quick_type
from kvmigrate.target.reader_base import Spelling
from kvmigrate.transform.keys.pattern import Capture
from kvmigrate.transform.mapping import Decode, Role
from kvmigrate.transform.path import Path

_UUID_FORM = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}
_KEY_TYPES = frozenset(("text", "enum", "uuid", *_BITS))
_EMPTY = (Role.SOURCE_KEY, Role.EXPIRES, Role.REST)


class Unsupported(Exception):  # noqa: N818 - not an error: the entity's items go the long way
    """The mapping says something of the entity that the quick way does not know."""


class Members:
    """An object of the blob, or an object inside one: the struct as which msgspec decodes it.

    Attributes:
        parts: What stands in each field, in order: the path of a member, or more members.

        nothing: The values of an object that has none of the members.
    """

    def __init__(self, path: Path, members: Mapping[str, Any]) -> None:
        self.path = path
        self.parts: list[Path | Members] = []
        fields = []
        for number, (name, member) in enumerate(members.items()):
            inner = isinstance(member, dict)
            part = Members((*path, name), member) if inner else (*path, name)
            self.parts.append(part)
            kind = part.struct if isinstance(part, Members) else member
            fields.append((f"f{number}", kind, msgspec.field(default=None, name=name)))
        try:
            self.struct: Any = msgspec.defstruct("Members", fields, forbid_unknown_fields=True, gc=False)
        except ValueError as exc:
            raise Unsupported from exc
        self.nothing = (None,) * len(fields)

    def spread(self, objects: Sequence[Any]) -> tuple[dict[Path, Sequence[Any]], set[int]]:
        """Return the values of *objects* by path, and the positions of those that hold an empty object.

        No column tells an empty object inside the blob from a missing one, so rest must, and the long way looks.
        """
        found: dict[Path, Sequence[Any]] = {}
        hollow: set[int] = set()
        self._spread(objects, found, hollow, inner=False)
        return found, hollow

    def _spread(
        self, objects: Sequence[Any], found: dict[Path, Sequence[Any]], hollow: set[int], *, inner: bool
    ) -> None:
        if inner:
            rows = [self.nothing if each is None else msgspec.structs.astuple(each) for each in objects]
            hollow.update(
                place for place, each in enumerate(objects) if each is not None and rows[place] == self.nothing
            )
        else:
            rows = list(map(msgspec.structs.astuple, objects))
        columns = zip(*rows, strict=True) if rows else [()] * len(self.parts)
        for part, column in zip(self.parts, columns, strict=False):
            if isinstance(part, Members):
                part._spread(column, found, hollow, inner=True)  # noqa: SLF001 - its own kind
            else:
                found[part] = column


class QuickColumn:
    """One column: how it is read, and what it is compared with."""

    def __init__(self, each: ColumnPlan, spelling: Spelling, quick: QuickType | None = None) -> None:
        self.plan, self.spelling, self.quick = each, spelling, quick
        self.path: Path | None = each.paths[0] if each.paths else None
        self.nullable = each.default is None and not each.column.required


class QuickTable:
    """One table: the struct of an element, its columns by what feeds them, its children.

    Attributes:
        members: ``None`` where an element is a value and no object.
    """

    def __init__(self, plan: TablePlan, entity: EntityPlan) -> None:
        self.plan, self.name = plan, plan.name
        self.columns = [self._column(each, plan, entity) for each in plan.columns]
        self.spellings = {each.plan.name: each.spelling for each in self.columns}
        self.children = [QuickTable(child, entity) for child in plan.children]
        _check_child(plan)
        self.members = None if plan.whole else Members((), self._tree())

    def of(self, *roles: Role) -> list[QuickColumn]:
        """Return the columns with one of these roles."""
        return [each for each in self.columns if each.plan.role in roles]

    def element(self) -> Any:
        """Return as what msgspec decodes an element of this table."""
        if self.members is not None:
            return self.members.struct
        [whole] = [each for each in self.of(Role.PATH) if each.quick]
        return whole.quick.member if whole.quick else None

    def walk(self) -> Iterator[QuickTable]:
        """Yield this table, then its children depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def _column(self, each: ColumnPlan, plan: TablePlan, entity: EntityPlan) -> QuickColumn:
        match each.role:
            case Role.KEY:
                if each.column.type.base not in _KEY_TYPES or each.column.type.array or each.column.forward:
                    raise Unsupported
                return QuickColumn(each, Spelling.TEXT)
            case Role.PATH:
                quick = quick_type(each.column, each.kind)
                return QuickColumn(each, quick.spelling, quick)
            case Role.PARENT | Role.TENANT:
                above = plan.parent if each.role is Role.PARENT else plan.root
                source = next(other for other in above.columns if other.name == each.column.source) if above else each
                if above is None or source.role in _EMPTY:
                    raise Unsupported
                return QuickColumn(each, self._column(source, above, entity).spelling)
            case Role.ORDINAL:
                return QuickColumn(each, Spelling.VALUE)
            case Role.MAP_KEY if each.column.type.base == "text" and not each.column.forward:
                return QuickColumn(each, Spelling.VALUE)
            case role if role in _EMPTY:
                return QuickColumn(each, Spelling.PRESENT)
        raise Unsupported

    def _tree(self) -> dict[str, Any]:
        """The members that columns and children take, by name, and inside."""
        tree: dict[str, Any] = {}
        for each in self.columns:
            if each.path is not None and each.plan.role in {Role.KEY, Role.PATH}:
                _plant(tree, each.path, each.quick.member if each.quick else _key_member(each.plan))
        for child in self.children:
            below = child.element()
            _plant(tree, child.plan.each, dict[str, below] if child.plan.is_map else list[below])  # type: ignore[valid-type]
        aliases = [path for each in self.columns for path in each.plan.paths[1:]]
        if any(_overlaps(tree, path) for path in aliases):
            raise Unsupported
        return tree


class QuickEntity:
    """One entity: its tables, and which of its keys the quick way takes.

    Attributes:
        decode: Bytes to the struct of the root; raises one of `NOT_EXACT`.

        spellings: By table and column, how the rows are read.
    """

    def __init__(self, plan: EntityPlan) -> None:
        self.plan, self.entity = plan, plan.entity
        template = plan.entity.keys[0]
        captures = {capture.name for capture in template.captures}
        keys = {each.column.source: each for each in plan.root.key_columns}
        if (
            plan.entity.rows_only
            or plan.entity.owned_by_source_key
            or plan.entity.decode not in {Decode.AUTO, Decode.JSON}
            or len({each.column.source for each in plan.root.key_columns}) != len(plan.root.key_columns)
            or not keys.keys() <= captures
            or not set(plan.entity.root.primary_key) <= {each.name for each in keys.values()}
            or plan.root.whole
        ):
            raise Unsupported
        self.root = QuickTable(plan.root, plan)
        if self.root.members is None:
            raise Unsupported
        self.decode = msgspec.json.Decoder(self.root.members.struct).decode
        self.spellings = {table.name: table.spellings for table in self.root.walk()}
        by_name = {each.name: each.column.source for each in keys.values()}
        self.finders = [by_name[name] for name in plan.entity.root.primary_key]
        self.fits = {name: _fits(each) for name, each in keys.items()}
        self._render = template.render
        # The common case, one capture between two texts, is rendered without a loop.
        head, *rest = ["", *template.parts] if isinstance(template.parts[0], Capture) else template.parts
        self._single = [*map(str, rest[1:]), ""][0] if len(captures) == len(template.captures) == 1 else None
        self._head = str(head)

    def takes(self, key: str, captured: Mapping[str, str]) -> bool:
        """Whether the columns tell *key* by the first pattern, as they are spelled."""
        if self._single is not None and len(captured) == 1:
            for name, fits in self.fits.items():
                text = captured.get(name)
                return text is not None and self._head + text + self._single == key and bool(fits(text))
        try:
            rendered = self._render({name: captured[name] for name in self.fits})
        except KeyError:
            return False
        return rendered == key and all(fits(captured[name]) for name, fits in self.fits.items())


def quick_entity(plan: EntityPlan) -> QuickEntity | None:
    """Return the entity prepared, or ``None`` where its items must go the long way."""
    try:
        return QuickEntity(plan)
    except Unsupported:
        return None


def _check_child(plan: TablePlan) -> None:
    if plan.parent is None:
        return
    place = plan.map_key if plan.is_map else plan.ordinal
    if place is None or not plan.each or (plan.whole and (plan.members or plan.children or len(plan.whole) > 1)):
        raise Unsupported


def _fits(each: ColumnPlan) -> Any:
    base = each.column.type.base
    if base == "uuid":
        return _UUID_FORM.fullmatch
    if base not in _BITS:
        allowed = frozenset(each.column.type.values)
        return allowed.__contains__ if base == "enum" else bool
    bits = _BITS[base]

    def is_plain(text: str) -> bool:
        # Short enough for a member that repeats it to be a number.
        return (
            len(text) < 20
            and text.isascii()
            and text.removeprefix("-").isdigit()
            and str(int(text)) == text
            and -(2**bits) <= int(text) < 2**bits
        )

    return is_plain


def _key_member(each: ColumnPlan) -> Any:
    return int if each.column.type.base in _BITS else str


def _plant(tree: dict[str, Any], path: Path, member: Any) -> None:
    """Put a member's type at *path*. Only one column may claim a place, and none a place inside another's."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise Unsupported
    if path[-1] in tree:
        raise Unsupported
    tree[path[-1]] = member


def _overlaps(tree: Any, path: Path) -> bool:
    """Whether *path* is a place of the tree, or inside one, or around one."""
    for name in path:
        if not isinstance(tree, dict):
            return True
        if name not in tree:
            return False
        tree = tree[name]
    return True
