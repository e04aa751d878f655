"""Plain rows back to items at full speed: one generated function per entity.

Rows are plain when every ``rest`` is NULL: then each column's canonical value stands at its
first path and nothing else is in the blob. Other rows take the exact path (`backward`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvmigrate.transform.lens.backward import Rows
from kvmigrate.transform.lens.fast_members import Members, members_of, walk
from kvmigrate.transform.lens.forward import repeated_key
from kvmigrate.transform.lens.plan import INTEGERS, ColumnPlan, EntityPlan, TablePlan
from kvmigrate.transform.mapping import Role
from kvmigrate.transform.values.json_text import encode_json
from kvmigrate.transform.values.types_time import EPOCH, format_instant

_CACHE_ENTRIES = 100_000
_PLAIN = frozenset({"text", "enum", "boolean", "numeric", "jsonb", *INTEGERS})
_MILLISECOND = dt.timedelta(milliseconds=1)
_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class FastBack:
    """The compiled way back of one entity.

    Attributes:
        source: The generated code.

        value: Takes the captures and their places, and an item's rows; returns its
            bytes, or ``None`` for the exact path.
    """

    source: str
    value: Callable[[tuple[str, ...], dict[str, int], Rows], bytes | None]


class _Written(dict[Any, Any]):
    """Remembers the JSON values of columns that repeat, up to a bound."""

    def __init__(self, write: Callable[[Any], Any]) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, value: Any) -> Any:
        written = self._write(value)
        if len(self) < _CACHE_ENTRIES:
            self[value] = written
        return written


def compile_back(plan: EntityPlan) -> FastBack:
    """Compile the way back of an entity that `fast.compile_entity` takes, children at most one deep."""
    return _Generator(plan).finish()


def can_go_back(plan: EntityPlan) -> bool:
    """Whether the entity's children are at most one deep, so that their rows need no grouping."""
    return not any(child.children for child in plan.root.children)


class _Generator:
    """Writes the function of one entity."""

    def __init__(self, plan: EntityPlan) -> None:
        self.plan = plan
        self.names: dict[str, Any] = {"encode": encode_json, "repeated": _repeated}
        self.lines: list[str] = []

    def finish(self) -> FastBack:
        root = self.plan.root
        head = [
            f"def value(captured, places, rows):  # {self.plan.entity.name}",
            f"    found = rows.get({root.table.name!r}, ())",
            "    if len(found) != 1: return None",
            "    r = found[0]",
            *self._rest_check(root, "r", 1),
            *self._kids(),
            "    o = {}",
        ]
        self._emit_members(1, members_of(root), "o", "r")
        source = "\n".join([*head, *self.lines, "    return encode(o)"]) + "\n"
        exec(compile(source, f"<lens of {self.plan.entity.name}, back>", "exec"), self.names)  # noqa: S102 - as in fast
        return FastBack(source, self.names["value"])

    def _rest_check(self, plan: TablePlan, row: str, depth: int) -> list[str]:
        return [
            f"{'    ' * depth}if {row}[{each.position}] is not None: return None" for each in plan.by_role(Role.REST)
        ]

    def _kids(self) -> list[str]:
        lines = []
        for number, child in enumerate(walk(self.plan.root)[1:], 1):
            ordinal = child.by_role(Role.ORDINAL)[0].position
            lines.append(f"    kids_{number} = rows.get({child.table.name!r}, ())")
            self.names[f"order_{number}"] = lambda row, at=ordinal: row[at]
            lines.append(f"    if len(kids_{number}) > 1: kids_{number} = sorted(kids_{number}, key=order_{number})")
        return lines

    def _emit(self, depth: int, *lines: str) -> None:
        self.lines.extend("    " * depth + line for line in lines)

    def _emit_members(self, depth: int, members: Members, holder: str, row: str) -> None:
        for position, (name, found) in enumerate(members.by_name.items()):
            if isinstance(found, Members):
                inner = f"{holder}_{position}"
                self._emit(depth, f"{inner} = {{}}")
                self._emit_members(depth, found, inner, row)
                self._emit(depth, f"if {inner}: {holder}[{name!r}] = {inner}")
            elif isinstance(found, TablePlan):
                self._emit_child(depth, found, f"{holder}[{name!r}]")
            elif found.column.role is Role.KEY:
                text = f"captured[places[{found.column.source!r}]]"
                whole = f"repeated({found.column.type.base!r}, {text})" if found.column.type.base in INTEGERS else text
                self._emit(depth, f"{holder}[{name!r}] = {whole}")
            else:
                self._emit(depth, f"v = {row}[{found.position}]")
                self._emit(depth, f"if v is not None: {holder}[{name!r}] = {self._written(found)}")

    def _emit_child(self, depth: int, child: TablePlan, target: str) -> None:
        number = next(n for n, each in enumerate(walk(self.plan.root)) if each is child)
        kids, values, row = f"kids_{number}", f"values_{number}", f"k{number}"
        self._emit(depth, f"if {kids}:", f"    {values} = []", f"    for {row} in {kids}:")
        self.lines += self._rest_check(child, row, depth + 2)
        if child.whole is not None:
            self._emit(depth + 2, f"v = {row}[{child.whole.position}]", "if v is None: return None")
            self._emit(depth + 2, f"{values}.append({self._written(child.whole)})")
        else:
            self._emit(depth + 2, f"e{number} = {{}}")
            self._emit_members(depth + 2, members_of(child), f"e{number}", row)
            self._emit(depth + 2, f"{values}.append(e{number})")
        self._emit(depth + 1, f"{target} = {values}")

    def _written(self, plan: ColumnPlan) -> str:
        kind = plan.column.type
        if kind.base in _PLAIN and not kind.array:
            return "v"
        if kind.base == "text":
            return "v"
        # Numbered, as names of tables may be equal once they are fit for Python.
        helper = f"w{len(self.names)}"
        if kind.base == "uuid" and not kind.array and plan.column.reference:
            self.names[helper] = _Written(plan.to_json)
            return f"{helper}[v]"
        self.names[helper] = _writer(plan)
        return f"{helper}(v)"


def _repeated(base: str, text: str) -> Any:
    """The member that repeats an integer key: ``7`` of the key ``7``, and ``"007"`` of ``007``."""
    return repeated_key(base, text, as_text=False)


def _writer(plan: ColumnPlan) -> Callable[[Any], Any]:
    kind = plan.column.type
    if kind.base != "timestamptz" or kind.array:
        return plan.to_json
    return (
        _instant if kind.formats[0] == "iso" else _milliseconds(plan) if kind.formats[0] == "epoch_ms" else plan.to_json
    )


def _instant(value: dt.datetime) -> str:
    """`format_instant`, short for the usual case: whole milliseconds in UTC."""
    if value.utcoffset() or value.microsecond % _US_PER_MS:
        return format_instant(value)
    return value.isoformat(timespec="milliseconds")[:23] + "Z"


def _milliseconds(plan: ColumnPlan) -> Callable[[dt.datetime], Any]:
    def write(value: dt.datetime) -> Any:
        return plan.to_json(value) if value.microsecond % _US_PER_MS else (value - EPOCH) // _MILLISECOND

    return write
