"""Plain items to rows at full speed: one generated function per entity.

The function decodes a blob into a struct that has exactly the mapped members, so any
unmapped, null, misspelt or odd member makes the decoder refuse; the item then takes the
exact path (`forward`). `kvmigrate schema --show-code` prints what is generated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.keys.template_overlap import templates_overlap
from kvmigrate.transform.lens.fast_members import Members, members_of, walk
from kvmigrate.transform.lens.fast_types import NAMES, field_lines, field_type
from kvmigrate.transform.lens.page import Accepted, PageBuilder
from kvmigrate.transform.lens.plan import INTEGERS, ColumnPlan, EntityPlan, TablePlan
from kvmigrate.transform.mapping import Column, Decode, Expires, Role
from kvmigrate.transform.values.content_hash import content_hash
from kvmigrate.transform.values.json_text import MAX_BYTES, MAX_DEPTH

Routed = tuple[int, Item, tuple[str, ...]]
"""An item, its ordinal in the page, and the captures of its key in the template's order."""

PageFunction = Callable[[list[Routed], PageBuilder, int, dict[str, int]], list[Routed]]
_NO_STRUCT_NAME = re.compile(r'[\x00-\x1f"\\]').search
"""Finds member names that the decoder's structs cannot have."""

_KEY_TYPES = {"uuid", "text", *INTEGERS}


@dataclass(frozen=True, slots=True)
class FastEntity:
    """The compiled form of one entity.

    Attributes:
        source: The generated code.

        templates: Positions of the key templates whose items it takes.

        page: Turns plain items of one template into rows and returns the others for
            the exact path. Takes the group, the builder, the template's position and
            the places of its captures.
    """

    source: str
    templates: frozenset[int]
    page: PageFunction


def compile_entity(plan: EntityPlan) -> FastEntity | None:
    """Return the compiled form of an entity, or ``None`` when it has features only the exact path knows."""
    if not _eligible(plan):
        return None
    return _Generator(plan).finish()


def _eligible(plan: EntityPlan) -> bool:
    entity = plan.entity
    if (
        entity.rows_only
        or plan.derive
        or entity.decode not in {Decode.AUTO, Decode.JSON}
        or plan.root.whole is not None
    ):
        return False
    first = entity.keys[0]
    sources = {each.column.source for each in plan.keys}
    if any(capture.name not in sources and len(capture.choices) != 1 for capture in first.captures):
        return False
    if any(templates_overlap(first, other) for other in entity.keys[1:]):
        return False
    if any(each.column.type.array or each.column.type.base not in _KEY_TYPES for each in plan.keys):
        return False
    return all(_eligible_table(table) for table in walk(plan.root))


def _eligible_table(plan: TablePlan) -> bool:
    """A child's elements are objects or scalars of an array; maps and arrays of arrays are not plain."""
    names = [name for member in plan.members for name in member.column.paths[0]]
    names += [name for child in plan.children for name in child.table.each or ()]
    if any(_NO_STRUCT_NAME(name) for name in names):
        return False
    if plan.table.is_map or any(len(child.table.each or ()) != 1 for child in plan.children):
        return False
    return not any(each.column.forward or each.column.has_default for each in plan.columns)


def _count_openings(data: bytes) -> int:
    return data.count(b"{") + data.count(b"[")


class _Generator:
    """Writes the function of one entity."""

    def __init__(self, plan: EntityPlan) -> None:
        self.plan = plan
        self.names: dict[str, Any] = dict(NAMES)
        self.lines: list[str] = []
        self.tables = walk(plan.root)
        self.numbers = {id(table): position for position, table in enumerate(self.tables)}
        self.copies: dict[tuple[int, int], str] = {}

    def finish(self) -> FastEntity:
        entity, names = self.plan.entity, self.names
        names["decode"] = msgspec.json.Decoder(self._struct(self.plan.root)).decode
        names.update(JSON=ItemKind.JSON, Accepted=Accepted, digest=xxhash.xxh3_128_digest)
        names["count"] = _count_openings
        names.update(content_hash=content_hash, join=b"".join)
        expires = self.plan.entity.expires is Expires.COLUMN
        head = [
            f"def page(group, builder, template, places):  # {entity.name}",
            "    slow = []",
            "    accept = builder.page.accepted.append",
            *(f"    at_{n} = places[{each.column.source!r}]" for n, each in enumerate(self.plan.keys)),
            *(f"    rows_{n} = []" for n in range(len(self.tables))),
            *(f"    heads_{n} = builder.heads({len(table.columns)})" for n, table in enumerate(self.tables)),
            "    for routed in group:",
            "        ordinal, item, captured = routed",
            "        key, b, kind, e = item",
            f"        if kind is not JSON{'' if expires else ' or e is not None'}:",
            "            slow.append(routed)",
            "            continue",
            "        try:",
            "            if not b.isascii(): b.decode()",
            r'            if b"\\" in b and (b"\\u0000" in b or b"\\ud" in b or b"\\uD" in b): raise Slow',
            f"            if len(b) > 1000 and (count(b) > {MAX_DEPTH} or len(b) > {MAX_BYTES}): raise Slow",
            "            o = decode(b)",
        ]
        self._emit_root()
        tail = [
            "        except SLOW:",
            "            slow.append(routed)",
            "            continue",
            *self._commit_lines(),
            "        found = digest(b) if e is None else content_hash(item)",
            f"        accept(Accepted(ordinal, key, {entity.id}, found, e))",
            *(f"    builder.add_rows({table.table.name!r}, rows_{n})" for n, table in enumerate(self.tables)),
            "    return slow",
        ]
        source = "\n".join([*head, *self.lines, *tail]) + "\n"
        exec(compile(source, f"<lens of {entity.name}>", "exec"), names)  # noqa: S102 - built from the checked mapping: its names appear as literals only
        return FastEntity(source, self._templates(), names["page"])

    def _templates(self) -> frozenset[int]:
        """The templates that capture every KEY column."""
        sources = {each.column.source for each in self.plan.keys}
        captured = [{capture.name for capture in template.captures} for template in self.plan.entity.keys]
        return frozenset(position for position, names in enumerate(captured) if sources <= names)

    def _commit_lines(self) -> list[str]:
        lines = ["        rows_0.append(row)"]
        lines += [f"        rows_{n} += kids_{n}" for n in range(1, len(self.tables))]
        return lines

    def _emit(self, indent: int, *lines: str) -> None:
        self.lines.extend("    " * indent + line for line in lines)

    def _variable(self, table: TablePlan, position: int) -> str:
        number = self.numbers[id(table)]
        return self.copies.get((number, position), f"p{number}_{position}")

    def _emit_root(self) -> None:
        depth, root = 3, self.plan.root
        for n in range(1, len(self.tables)):
            self._emit(depth, f"kids_{n} = []")
        for each in self.plan.keys:
            self._emit_key(depth, each)
        for each in root.columns:
            name = self._variable(root, each.position)
            if each.column.role is Role.SOURCE_KEY:
                whole = "pack_text(key)"
                conditional = f"NULL if template == 0 else {whole}"
                self._emit(depth, f"{name} = {whole if self.plan.entity.owned_by_source_key else conditional}")
            elif each.column.role is Role.EXPIRES:
                self._emit(
                    depth,
                    "e = item.expires_at_ms",
                    f"if e is not None and not 0 <= e <= {253_402_300_799_999}: raise Slow",
                )
                self._emit(depth, f"{name} = NULL if e is None else instant(8, (e - EPOCH_2000_MS) * 1000)")
            elif each.column.role is Role.REST:
                self._emit(depth, f"{name} = NULL")
        self._emit_members(depth, root, members_of(root), "o")
        self._emit(depth, f"row = {self._joined(root, [self._variable(root, each.position) for each in root.columns])}")

    def _emit_key(self, depth: int, plan: ColumnPlan) -> None:
        name, base = self._variable(self.plan.root, plan.position), plan.column.type.base
        self._emit(depth, f"v = {self._captured(plan.column)}")
        if base in INTEGERS:
            self._emit(depth, "t, v = v, int(v)", "if str(v) != t: raise Slow")
        self._emit(depth, *field_lines(plan, name, self.names))

    def _emit_members(self, depth: int, table: TablePlan, members: Members, holder: str) -> None:
        for position, found in enumerate(members.by_name.values()):
            value = f"{holder}.f{position}"
            if isinstance(found, Members):
                self._emit_object(depth, table, found, value, f"{holder}_{position}")
            elif isinstance(found, TablePlan):
                self._emit_child(depth, table, found, value)
            else:
                self._emit_column(depth, table, found, value)

    def _emit_object(self, depth: int, table: TablePlan, members: Members, value: str, holder: str) -> None:
        """A nested object; one without any mapped member stays in rest, so it is not plain."""
        columns = [leaf for leaf in members.leaves() if isinstance(leaf, ColumnPlan)]
        self._emit(depth, f"{holder} = {value}", f"if {holder} is UNSET:")
        if any(leaf.column.not_null or leaf.column.role is Role.KEY for leaf in columns):
            self._emit(depth + 1, "raise Slow")
        for leaf in columns:
            if leaf.column.role is not Role.KEY:
                self._emit(depth + 1, f"{self._variable(table, leaf.position)} = NULL")
        self._emit(depth + 1, "pass")
        self._emit(depth, "else:")
        self._emit_members(depth + 1, table, members, holder)
        present = [f"{holder}.f{position} is UNSET" for position in range(len(members.by_name))]
        self._emit(depth + 1, f"if {' and '.join(present)}: raise Slow")

    def _emit_column(self, depth: int, table: TablePlan, plan: ColumnPlan, value: str) -> None:
        name, column = self._variable(table, plan.position), plan.column
        if column.role is Role.KEY:
            self._emit(depth, f"if {value} != {self._repeated(column)}: raise Slow")
            return
        self._emit(depth, f"v = {value}")
        lines = field_lines(plan, name, self.names)
        if column.not_null:
            self._emit(depth, *lines)
            return
        self._emit(depth, "if v is UNSET:", f"    {name} = NULL", "else:")
        self._emit(depth + 1, *lines)

    def _repeated(self, column: Column) -> str:
        text = self._captured(column)
        return f"int({text})" if column.type.base in INTEGERS else text

    def _captured(self, column: Column) -> str:
        return f"captured[at_{[each.column.name for each in self.plan.keys].index(column.name)}]"

    def _emit_child(self, depth: int, parent: TablePlan, child: TablePlan, value: str) -> None:
        number = self.numbers[id(child)]
        ordinal = child.by_role(Role.ORDINAL)[0]
        self._emit(depth, f"a{number} = {value}", f"if a{number} is not UNSET:")
        inner, same = depth + 2, []
        for each in child.columns:
            if each.column.role in {Role.PARENT, Role.TENANT}:
                self.copies[number, each.position] = self._copied(parent, each.column.source)
                same.append(self.copies[number, each.position])
            elif each.column.role is Role.REST:
                self.copies[number, each.position] = "NULL"
        # The generated columns stand first: what all rows of one parent share is joined once.
        self._emit(depth + 1, f"if not a{number}: raise Slow", f"s{number} = {self._joined(child, same)}")
        for name in self._may_be_null(parent, child):
            self._emit(depth + 1, f"if {name} is NULL: raise Slow")
        self._emit(depth + 1, f"for n{number}, x{number} in enumerate(a{number}):")
        self._emit_ordinal(inner, ordinal, self._variable(child, ordinal.position), f"n{number}")
        if child.whole is not None:
            self._emit(inner, f"v = x{number}")
            self._emit(inner, *field_lines(child.whole, self._variable(child, child.whole.position), self.names))
        else:
            self._emit_members(inner, child, members_of(child), f"x{number}")
        own = [self._variable(child, each.position) for each in child.columns[len(same) :]]
        self._emit(inner, f"kids_{number}.append(join((s{number}, {', '.join(own)},)))")

    def _may_be_null(self, parent: TablePlan, child: TablePlan) -> list[str]:
        """The copies that the child must have and the parent may not."""
        nullable = {each.column.name for each in parent.columns if not each.column.not_null}
        return [
            self.copies[self.numbers[id(child)], each.position]
            for each in child.columns
            if each.column.role in {Role.PARENT, Role.TENANT}
            and each.column.not_null
            and each.column.source in nullable
        ]

    def _emit_ordinal(self, depth: int, plan: ColumnPlan, name: str, counter: str) -> None:
        if plan.column.type.base == "integer":
            self._emit(depth, f"{name} = ordinals[{counter}]")
        else:
            self._emit(depth, f"v = {counter}", *field_lines(plan, name, self.names))

    def _copied(self, parent: TablePlan, name: str) -> str:
        position = next(each.position for each in parent.columns if each.column.name == name)
        return self._variable(parent, position)

    def _joined(self, table: TablePlan, fields: list[str]) -> str:
        """A row's head and its first fields."""
        heads = f"heads_{self.numbers[id(table)]}"
        return f"join(({heads}[ordinal], {', '.join(fields)},))" if fields else f"{heads}[ordinal]"

    def _struct(self, plan: TablePlan) -> Any:
        return self._struct_of(members_of(plan), plan.table.name)

    def _struct_of(self, members: Members, name: str) -> Any:
        fields: list[Any] = []
        rename: dict[str, str] = {}
        for position, (member, found) in enumerate(members.by_name.items()):
            attribute = f"f{position}"
            rename[attribute] = member
            if isinstance(found, Members):
                kind, required = self._struct_of(found, f"{name}.{member}"), False
            elif isinstance(found, TablePlan):
                element = field_type(found.whole) if found.whole is not None else self._struct(found)
                kind, required = list[element], False  # type: ignore[valid-type]  # a type made at run time
            else:
                kind = self._member_type(found)
                required = found.column.not_null or found.column.role is Role.KEY
            fields.append((attribute, kind) if required else (attribute, kind | msgspec.UnsetType, msgspec.UNSET))
        return msgspec.defstruct(name, fields, kw_only=True, gc=False, rename=rename, forbid_unknown_fields=True)

    def _member_type(self, plan: ColumnPlan) -> Any:
        if plan.column.role is Role.KEY:
            return int if plan.column.type.base in INTEGERS else str
        return field_type(plan)
