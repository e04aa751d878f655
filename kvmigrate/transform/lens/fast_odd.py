"""The generator of page functions for odd items: members that no column claims, nulls, other spellings.

The function decodes a blob into exact values and takes each member as the plain function
does when it is spelt as usual, else by the exact rules of its column (`odd_values`).
What is left becomes `rest`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from kvmigrate.transform.lens.fast_members import Members, members_of, walk
from kvmigrate.transform.lens.fast_plain import PlainGenerator
from kvmigrate.transform.lens.fast_types import exact_lines, field_lines
from kvmigrate.transform.lens.forward import repeated_key
from kvmigrate.transform.lens.odd_values import (
    decode_exactly,
    key_rebuilder,
    odd_aliases,
    odd_column,
    odd_key,
    odd_rest,
)
from kvmigrate.transform.lens.plan import INTEGERS, ColumnPlan, EntityPlan, TablePlan
from kvmigrate.transform.mapping import Expires, OnBadValue, RestPolicy, Role


def can_be_odd(plan: EntityPlan) -> bool:
    """Whether all aliases of an entity stand side by side at the top, and none repeats the key."""
    aliased = [column for table in walk(plan.root) for column in table.aliased]
    return all(each.column.role is not Role.KEY and max(map(len, each.column.paths)) == 1 for each in aliased)


class OddGenerator(PlainGenerator):
    """Writes the page function of one entity for odd items."""

    title = ", odd"

    def __init__(self, plan: EntityPlan) -> None:
        """Start; `finish` does the work."""
        super().__init__(plan)
        self.names.update(Decimal=Decimal, ODD=(AttributeError, TypeError, *self.names["SLOW"]))
        self.kept = [n for n, table in enumerate(self.tables) if table.table.rest_policy is RestPolicy.KEEP]

    def _decoder(self) -> Callable[[bytes], Any]:
        return decode_exactly

    def _takes_expiry(self) -> bool:
        return self.plan.entity.expires in {Expires.COLUMN, Expires.IGNORE}

    def _before(self) -> list[str]:
        return ["losses = []", *(f"bytes_{n} = 0" for n in self.kept)]

    def _at_start(self) -> list[str]:
        return ["lost = []", *(f"size_{n} = 0" for n in self.kept)]

    def _at_end(self) -> list[str]:
        ignored = ['if e is not None: losses.append("expires: ignore")']
        sizes = [f"bytes_{n} += size_{n}" for n in self.kept]
        return ["losses += lost", *sizes, *(ignored if self.plan.entity.expires is Expires.IGNORE else [])]

    def _after(self) -> list[str]:
        sizes = ", ".join(f"{self.tables[n].table.name!r}: bytes_{n}" for n in self.kept)
        return [f"builder.add_odd(losses, {{{sizes}}})"]

    def _emit_root(self) -> None:
        self._emit(3, "if type(o) is not dict: raise Slow", "derived = True")
        super()._emit_root()

    def _emit_key(self, depth: int, plan: ColumnPlan) -> None:
        name, base = self._variable(self.plan.root, plan.position), plan.column.type.base
        self.names[f"k_{name}"], self.names["rebuilds"] = odd_key(plan), key_rebuilder(self.plan)
        self._emit(depth, f"v = {self._captured(plan.column)}", "try:")
        if base in INTEGERS:
            self._emit(depth + 1, "t, v = v, int(v)", "if str(v) != t: raise Slow")
        self._emit(depth + 1, *field_lines(plan, name, self.names))
        self._emit(depth, "except SLOW:")
        self._emit(depth + 1, f"{name} = k_{name}({self._captured(plan.column)})")
        self._emit(depth + 1, "derived = rebuilds(key, captured, places)")
        if not self.plan.entity.owner_column:
            self._emit(depth + 1, "if not derived: raise Slow")

    def _derived(self) -> str:
        return "template == 0 and derived"

    def _emit_row(self, depth: int, table: TablePlan, holder: str) -> None:
        number = self.numbers[id(table)]
        members, rest = members_of(table), table.by_role(Role.REST)
        self._emit(depth, f"notes_{number} = {{}}", f"kept_{holder} = set()")
        self._emit_members(depth, table, members, holder)
        aliases = {path[0] for each in table.aliased for path in each.column.paths}
        left, name = self._left({*members.by_name, *aliases}, holder), f"r{number}"
        self.names[f"rest_{number}"] = odd_rest(table)
        self._emit(depth, f"left = {left}", f"{name} = NULL")
        self._emit(depth, f"if left or notes_{number}:")
        self._emit(depth + 1, f"{name} = rest_{number}(left, notes_{number}, lost)")
        if number in self.kept:
            self._emit(depth + 1, f"size_{number} += len({name}) - 5")
        for each in rest:
            self.copies[number, each.position] = name

    def _left(self, claimed: set[str], holder: str) -> str:
        """What no column takes of an object; nulls stay."""
        self.names[f"claimed_{holder}"] = frozenset(claimed)
        test = f"n not in claimed_{holder} or x is None or n in kept_{holder}"
        return f"{{n: x for n, x in {holder}.items() if {test}}}"

    def _emit_members(self, depth: int, table: TablePlan, members: Members, holder: str) -> None:
        for position, (name, found) in enumerate(members.by_name.items()):
            if isinstance(found, Members):
                self._emit_inner(depth, table, found, name, (holder, f"{holder}_{position}"))
            elif isinstance(found, TablePlan):
                self._emit_elements(depth, table, found, name, holder)
            else:
                self._emit_member(depth, table, found, name, holder)

    def _emit_inner(self, depth: int, table: TablePlan, members: Members, name: str, holders: tuple[str, str]) -> None:
        """A nested object. Emptied it is gone; one that was empty, or is no object, stays."""
        outer, inner = holders
        columns = [leaf for leaf in members.leaves() if isinstance(leaf, ColumnPlan)]
        self._emit(depth, f"{inner} = {outer}.get({name!r})", f"if type({inner}) is dict:")
        self._emit(depth + 1, f"kept_{inner} = set()")
        self._emit_members(depth + 1, table, members, inner)
        self._emit(depth + 1, f"left = {self._left({*members.by_name}, inner)}", f"if left or not {inner}:")
        self._emit(depth + 2, f"{outer}[{name!r}] = left", f"kept_{outer}.add({name!r})")
        self._emit(depth, "else:", f"    kept_{outer}.add({name!r})")
        for leaf in columns:
            if leaf.column.role is Role.KEY:
                self._emit(depth + 1, self._note_absent(table, leaf))
            elif leaf.column.not_null:
                self._emit(depth + 1, "raise Slow")
            else:
                self._emit(depth + 1, f"{self._variable(table, leaf.position)} = NULL")

    def _note_absent(self, table: TablePlan, plan: ColumnPlan) -> str:
        return f"notes_{self.numbers[id(table)]}.setdefault('absent', []).append({plan.column.name!r})"

    def _emit_member(self, depth: int, table: TablePlan, plan: ColumnPlan, name: str, holder: str) -> None:
        variable = self._variable(table, plan.position)
        if plan.column.role is Role.KEY:
            self._emit(depth, f"v = {holder}.get({name!r}, UNSET)", "if v is UNSET:")
            self._emit(depth + 1, self._note_absent(table, plan))
            self._emit(depth, f"elif type(v) is bool or v != repeated_{variable}({self._captured(plan.column)}):")
            self._emit(depth + 1, f"kept_{holder}.add({name!r})")
            self.names[f"repeated_{variable}"] = _repeated(plan.column.type.base)
        elif plan in table.aliased:
            self.names[f"claim_{variable}"] = odd_aliases(table, plan)
            notes = f"notes_{self.numbers[id(table)]}"
            self._emit(depth, f"{variable} = claim_{variable}({holder}, kept_{holder}, lost, {notes})")
        else:
            self._emit(depth, f"v = {holder}.get({name!r})")
            self.names[f"odd_{variable}"] = odd_column(table, plan)
            exactly = f"{variable} = odd_{variable}(v, {name!r}, {holder}, kept_{holder}, lost)"
            self._emit_value(depth, plan, variable, exactly)

    def _emit_value(self, depth: int, plan: ColumnPlan, variable: str, exactly: str) -> None:
        """Pack ``v``: spelt as usual, null, or by the exact rules."""
        none = "raise Slow" if plan.column.not_null else f"{variable} = NULL"
        found = exact_lines(plan, variable, self.names)
        if found is None:
            self._emit(depth, f"if v is None: {none}", f"else: {exactly}")
            return
        condition, lines = found
        self._emit(depth, f"if {condition}:", "    try:", *(f"        {line}" for line in lines))
        self._emit(depth, "    except ODD:", f"        {exactly}")
        self._emit(depth, f"elif v is None: {none}", f"else: {exactly}")

    def _emit_elements(self, depth: int, parent: TablePlan, child: TablePlan, name: str, holder: str) -> None:
        number = self.numbers[id(child)]
        array = f"a{number}"
        self._emit(depth, f"{array} = {holder}.get({name!r})", f"if type({array}) is list and {array}:")
        self._emit_rows(depth + 1, parent, child, array)
        policy = child.table.on_bad_value
        self._emit(depth, f"elif {array} is not None:")
        if policy is OnBadValue.KEEP_RAW:
            self._emit(depth + 1, f"kept_{holder}.add({name!r})")
            return
        self._emit(depth + 1, f"if type({array}) is list: kept_{holder}.add({name!r})")
        if policy is OnBadValue.NULL:
            loss = f"on_bad_value null: {child.table.name}"
            self._emit(depth + 1, f"else: lost.append({loss!r}); {holder}[{name!r}] = None")
        else:
            self._emit(depth + 1, "else: raise Slow")

    def _emit_element(self, depth: int, child: TablePlan, value: str) -> None:
        if child.whole is None:
            self._emit(depth, f"if type({value}) is not dict: raise Slow")
            self._emit_row(depth, child, value)
            return
        self._emit_scalar(depth, child, child.whole, value)

    def _emit_scalar(self, depth: int, child: TablePlan, whole: ColumnPlan, value: str) -> None:
        """An element that is the column's value: what the column cannot carry is noted."""
        number, variable = self.numbers[id(child)], self._variable(child, whole.position)
        self.names[f"odd_{variable}"], self.names[f"rest_{number}"] = odd_column(child, whole), odd_rest(child)
        self._emit(depth, f"v, held, kept, r{number} = {value}, {{'': {value}}}, set(), NULL")
        self._emit_value(depth, whole, variable, f"{variable} = odd_{variable}(v, '', held, kept, lost)")
        self._emit(depth, "if kept or held[''] is None:")
        self._emit(depth + 1, f"r{number} = rest_{number}({{}}, {{'value': held['']}}, lost)")
        if number in self.kept:
            self._emit(depth + 1, f"size_{number} += len(r{number}) - 5")
        for each in child.by_role(Role.REST):
            self.copies[number, each.position] = f"r{number}"


def _repeated(base: str) -> Callable[[str], Any]:
    return lambda text: repeated_key(base, text, as_text=False)
