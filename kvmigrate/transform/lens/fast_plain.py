"""The generator of page functions for plain items: one function per entity.

The function decodes a blob into a struct that has exactly the mapped members, so any
unmapped, null, misspelt or odd member makes the decoder refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kvmigrate.model import ItemKind
from kvmigrate.transform.lens.fast_members import Members, members_of, walk
from kvmigrate.transform.lens.fast_types import field_lines, field_type, usual_names
from kvmigrate.transform.lens.page import PageBuilder, Routed
from kvmigrate.transform.lens.plan import INTEGERS, ColumnPlan, EntityPlan, TablePlan
from kvmigrate.transform.mapping import Column, Expires, Role
from kvmigrate.transform.values.json_text import MAX_BYTES, is_deep

PageFunction = Callable[[list[Routed], PageBuilder, int, dict[str, int]], list[Routed]]
"""Turns items of one template into rows and returns those that it cannot take.

Takes the group, the builder, the template's position and the places of its captures.
"""


class PlainGenerator:
    """Writes the page function of one entity for plain items."""

    title = ""

    def __init__(self, plan: EntityPlan) -> None:
        """Start; `finish` does the work."""
        self.plan = plan
        self.names: dict[str, Any] = dict(usual_names())
        self.lines: list[str] = []
        self.tables = walk(plan.root)
        self.numbers = {id(table): position for position, table in enumerate(self.tables)}
        self.copies: dict[tuple[int, int], str] = {}

    def finish(self) -> tuple[str, PageFunction]:
        """Return the code and the function."""
        entity, names = self.plan.entity, self.names
        names.update(JSON=ItemKind.JSON, is_deep=is_deep, decode=self._decoder())
        self._emit_root()
        lines = [
            f"def page(group, builder, template, places):  # {entity.name}{self.title}",
            "    slow = []",
            "    done = []",
            *(f"    at_{n} = places[{each.column.source!r}]" for n, each in enumerate(self.plan.keys)),
            *(f"    rows_{n} = []" for n in range(len(self.tables))),
            *(f"    heads_{n} = builder.heads({len(table.columns)})" for n, table in enumerate(self.tables)),
            *(f"    {line}" for line in self._before()),
            "    for routed in group:",
            "        ordinal, item, captured = routed",
            "        key, b, kind, e = item",
            f"        if kind is not JSON{'' if self._takes_expiry() else ' or e is not None'}:",
            "            slow.append(routed)",
            "            continue",
            *(f"        mark_{n} = len(rows_{n})" for n in range(1, len(self.tables))),
            *(f"        {line}" for line in self._at_start()),
            "        try:",
            "            if not b.isascii(): b.decode()",
            f"            if 92 in b and ({self._forbidden()}): raise Slow",
            f"            if len(b) > 1000 and (len(b) > {MAX_BYTES} or is_deep(b)): raise Slow",
            "            o = decode(b)",
            *self.lines,
            "        except SLOW:",
            "            slow.append(routed)",
            *(f"            del rows_{n}[mark_{n}:]" for n in range(1, len(self.tables))),
            "            continue",
            "        done.append(routed)",
            *(f"        {line}" for line in self._at_end()),
            f"    builder.accept_all(done, {entity.id})",
            *(
                f"    builder.add_rows({table.table.name!r}, rows_{n}, {len(table.columns) + 1})"
                for n, table in enumerate(self.tables)
            ),
            *(f"    {line}" for line in self._after()),
            "    return slow",
        ]
        source = "\n".join(lines) + "\n"
        exec(compile(source, f"<lens of {entity.name}{self.title}>", "exec"), names)  # noqa: S102 - built from the checked mapping: its names appear as literals only
        return source, names["page"]

    def _decoder(self) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(self._struct(self.plan.root)).decode

    def _forbidden(self) -> str:
        """Which escapes the decoder does not look into: it skips the text of numbers and of jsonb columns."""
        return r'b"\\u0000" in b or b"\\ud" in b or b"\\uD" in b'

    def _takes_expiry(self) -> bool:
        return self.plan.entity.expires is Expires.COLUMN

    def _before(self) -> list[str]:
        return []

    def _at_start(self) -> list[str]:
        return []

    def _at_end(self) -> list[str]:
        return []

    def _after(self) -> list[str]:
        return []

    def _emit(self, indent: int, *lines: str) -> None:
        self.lines.extend("    " * indent + line for line in lines)

    def _variable(self, table: TablePlan, position: int) -> str:
        number = self.numbers[id(table)]
        return self.copies.get((number, position), f"p{number}_{position}")

    def _emit_root(self) -> None:
        depth, root = 3, self.plan.root
        for each in self.plan.keys:
            self._emit_key(depth, each)
        for each in root.columns:
            name = self._variable(root, each.position)
            if each.column.role is Role.SOURCE_KEY:
                whole = "pack_text(key)"
                conditional = f"NULL if {self._derived()} else {whole}"
                self._emit(depth, f"{name} = {whole if self.plan.entity.owned_by_source_key else conditional}")
            elif each.column.role is Role.EXPIRES:
                self._emit(
                    depth,
                    "e = item.expires_at_ms",
                    f"if e is not None and not 0 <= e <= {253_402_300_799_999}: raise Slow",
                )
                self._emit(depth, f"{name} = NULL if e is None else instant(8, (e - EPOCH_2000_MS) * 1000)")
        self._emit_row(depth, root, "o")
        self._emit(depth, self._add_row(root))

    def _derived(self) -> str:
        """Whether the key follows from the columns."""
        return "template == 0"

    def _emit_row(self, depth: int, table: TablePlan, holder: str) -> None:
        for each in table.by_role(Role.REST):
            self.copies[self.numbers[id(table)], each.position] = "NULL"
        self._emit_members(depth, table, members_of(table), holder)

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
        array = f"a{self.numbers[id(child)]}"
        self._emit(depth, f"{array} = {value}", f"if {array} is not UNSET:", f"    if not {array}: raise Slow")
        self._emit_rows(depth + 1, parent, child, array)

    def _emit_rows(self, depth: int, parent: TablePlan, child: TablePlan, array: str) -> None:
        number = self.numbers[id(child)]
        for each in child.columns:
            if each.column.role in {Role.PARENT, Role.TENANT}:
                self.copies[number, each.position] = self._copied(parent, each.column.source)
        for name in self._may_be_null(parent, child):
            self._emit(depth, f"if {name} is NULL: raise Slow")
        ordinal = child.by_role(Role.ORDINAL)[0]
        self._emit(depth, f"for n{number}, x{number} in enumerate({array}):")
        self._emit_ordinal(depth + 1, ordinal, self._variable(child, ordinal.position), f"n{number}")
        self._emit_element(depth + 1, child, f"x{number}")
        self._emit(depth + 1, self._add_row(child))

    def _emit_element(self, depth: int, child: TablePlan, value: str) -> None:
        if child.whole is None:
            self._emit_row(depth, child, value)
            return
        for each in child.by_role(Role.REST):
            self.copies[self.numbers[id(child)], each.position] = "NULL"
        self._emit(depth, f"v = {value}")
        self._emit(depth, *field_lines(child.whole, self._variable(child, child.whole.position), self.names))

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

    def _add_row(self, table: TablePlan) -> str:
        """The line that adds a row: its parts only, as all rows of a page are joined at once."""
        number = self.numbers[id(table)]
        fields = [self._variable(table, each.position) for each in table.columns]
        return f"rows_{number} += ({', '.join([f'heads_{number}[ordinal]', *fields])})"

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
