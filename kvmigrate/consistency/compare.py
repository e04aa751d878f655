"""One item against its rows: every column by path, and the rebuilt blob. Pure: no I/O, no clock."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from kvmigrate.consistency.decode import Decoded, Undecodable, decode_item
from kvmigrate.consistency.difference import Cause, Difference, describe, path_text, spots, value_cause
from kvmigrate.consistency.expect import Expected, ExpectedRow, JsonPath, expected_rows
from kvmigrate.consistency.json_exact import equal
from kvmigrate.consistency.normalise import normalised
from kvmigrate.consistency.plan import MISSING, ColumnPlan, EntityPlan, TablePlan, lookup
from kvmigrate.consistency.rebuild import Rebuilt, Rows, rebuild_planned
from kvmigrate.consistency.value_types import Unfit, is_canonical
from kvmigrate.errors import LensError
from kvmigrate.model import Item
from kvmigrate.transform.mapping import Role

# A store that tells how long an item has left, and not until when, is exact to a millisecond or two.
_EXPIRY_SLACK = dt.timedelta(milliseconds=2)
_MAX_DIFFERENCES = 20
_MAX_SEARCHED = 200


class Outcome(enum.StrEnum):
    """How one comparison ended."""

    MATCH = "match"
    TOLERATED = "tolerated"
    DIFFERENT = "different"
    MISSING = "missing"


class Compared(NamedTuple):
    """The result for one item.

    Attributes:
        differences: Where, when `DIFFERENT` or `MISSING`; at most 20.

        tolerated: Names of the declared normalisations that made up the difference.
    """

    outcome: Outcome
    differences: Sequence[Difference] = ()
    tolerated: frozenset[str] = frozenset()


def compare_item(
    plan: EntityPlan,
    item: Item,
    rows: Rows,
    *,
    awaited: Collection[tuple[str, str, Any]] = (),
    show_values: bool = False,
) -> Compared:
    """Compare an item with its rows, column by column and rebuilt.

    Args:
        plan: The item's entity, prepared.

        item: As the store holds it.

        rows: All rows of the item as psycopg loads them, by table.

        awaited: References (table, column, value) that may be NULL, since the item
            waits for a row that does not exist.

        show_values: Put values into the details. Without it they name kinds only.
    """
    return _Comparison(plan, item, rows, awaited, show_values=show_values).run()


class _Comparison:
    """One comparison, with what all of its steps share."""

    def __init__(
        self,
        plan: EntityPlan,
        item: Item,
        rows: Rows,
        awaited: Collection[tuple[str, str, Any]],
        *,
        show_values: bool,
    ) -> None:
        self.plan, self.item, self.rows, self.show = plan, item, rows, show_values
        self.awaited, self.texts = awaited, False
        self.nulled: set[str] = set()
        self.found: list[Difference] = []
        self.seen: set[JsonPath] = set()
        self.groups: dict[str, dict[tuple[Any, ...], list[Sequence[Any]]]] = {}

    def run(self) -> Compared:
        """Compare, columns first."""
        root = self.plan.root
        if not self.plan.entity.rows_only and not self.rows.get(root.name):
            self._add((), root, None, Cause.MISSING_ROW, "the item has no row")
            return Compared(Outcome.MISSING, self.found)
        decoded = decode_item(self.plan.entity, self.item)
        if isinstance(decoded, Undecodable):
            self._add((), root, None, Cause.TYPE, f"the item cannot be read, and has rows: {decoded.why}")
            return Compared(Outcome.DIFFERENT, self.found)
        self.texts = decoded.texts
        captured = self.plan.captured(self.item.key)
        expected = expected_rows(self.plan, self.item.key, captured, decoded, self.item.expires_at_ms)
        self._compare_columns(expected)
        lost = self._compare_rebuilt(expected, decoded, captured)
        if self.found:
            return Compared(Outcome.DIFFERENT, self.found[:_MAX_DIFFERENCES])
        tolerated = expected.losses | lost | self.nulled
        return Compared(Outcome.TOLERATED if tolerated else Outcome.MATCH, (), tolerated)

    # Columns by path

    def _compare_columns(self, expected: Expected) -> None:
        for problem in expected.problems:
            text = f"{problem.why}; the item should be in quarantine, and has rows"
            place = path_text(_without_personal(self.plan.root, problem.path))
            self.found.append(Difference(self.item.key, place, problem.table, problem.column, Cause.TYPE, text))
            self.seen.add(problem.path)
        for plan in self.plan.tables:
            if plan.parent is not None:
                groups = self.groups[plan.name] = {}
                top = self.plan.entity.rows_only and plan.parent is self.plan.root
                for row in self.rows.get(plan.name, ()):
                    groups.setdefault(() if top else plan.group_of(row), []).append(row)
        if self.plan.entity.rows_only:
            self._compare_children(expected.root, (), top=True)
        else:
            rows = self.rows[self.plan.root.name]
            if len(rows) > 1:
                self._add((), self.plan.root, None, Cause.EXTRA_ROW, f"the item has {len(rows)} rows")
            self._compare_row(expected.root, rows[0])
        for plan in self.plan.tables:
            if any(self.groups.get(plan.name, {}).values()):
                self._add((), plan, None, Cause.EXTRA_ROW, "rows whose parent row is missing")

    def _compare_row(self, expected: ExpectedRow, row: Sequence[Any]) -> None:
        values = expected.values
        for each in expected.plan.checked:
            wanted, actual = values[each.index], row[each.index]
            if wanted is None or actual is None:
                if wanted is not actual:
                    self._differs(expected, each, wanted, actual, row)
            elif not each.kind.same(wanted, actual) and not self._near(each, wanted, actual):
                self._differs(expected, each, wanted, actual, row)
        if expected.plan.rest is not None and row[expected.plan.rest.index] is not None:
            self._check_rest(expected, row, row[expected.plan.rest.index])
        self._compare_children(expected, row)

    def _near(self, each: ColumnPlan, wanted: Any, actual: Any) -> bool:
        return (
            each.role is Role.EXPIRES
            and isinstance(wanted, dt.datetime)
            and isinstance(actual, dt.datetime)
            and abs(wanted - actual) <= _EXPIRY_SLACK
        )

    def _differs(self, expected: ExpectedRow, each: ColumnPlan, wanted: Any, actual: Any, row: Sequence[Any]) -> None:
        if isinstance(wanted, Unfit):
            return  # reported as an item that should be in quarantine
        if actual is None and each.may_wait and self._is_awaited(expected, each, wanted):
            self.nulled.add(f"on_missing null: {expected.plan.name}.{each.name}")
            expected.values[each.index] = None
            return
        where = expected.claims[each.index]
        cause = value_cause(wanted, actual)
        if each.role is Role.SOURCE_KEY or (actual is None and self._in_rest(expected, each, row)):
            cause = Cause.MOVED
        place = (*expected.path, *(where or (each.paths[0] if each.paths else ())))
        show = self.show and not each.personal
        detail = f"the item gives {describe(wanted, show=show)}, the column holds {describe(actual, show=show)}"
        if cause is Cause.MOVED and each.role is not Role.SOURCE_KEY:
            detail += ", the value is in the rest column"
        self._add(place, expected.plan, each, cause, detail)

    def _is_awaited(self, expected: ExpectedRow, each: ColumnPlan, wanted: Any) -> bool:
        place = expected.plan.name, each.name
        return any(place == (table, column) and each.kind.same(wanted, value) for table, column, value in self.awaited)

    def _in_rest(self, expected: ExpectedRow, each: ColumnPlan, row: Sequence[Any]) -> bool:
        rest = row[expected.plan.rest.index] if expected.plan.rest is not None else None
        where = expected.claims[each.index]
        if where is None or not isinstance(rest, dict):
            return False
        found = rest.get("$", {}).get("value", MISSING) if where == () else lookup(_members(rest), where)
        return found is not MISSING and found is not None

    def _check_rest(self, expected: ExpectedRow, row: Sequence[Any], rest: Any) -> None:
        """Rest must not repeat what a column carries whole."""
        if not isinstance(rest, dict) or self.texts:
            return
        members = _members(rest)
        for each in expected.plan.path_columns:
            where, wanted = expected.claims[each.index], expected.values[each.index]
            if not where or wanted is None or isinstance(wanted, Unfit) or row[each.index] is None:
                continue
            found = lookup(members, where)
            if found is MISSING or not is_canonical(each.kind, wanted, found):
                continue
            if found is not None and equal(found, lookup(expected.value, where)):
                text = "the rest column repeats what the column carries"
                self._add((*expected.path, *where), expected.plan, each, Cause.EXTRA_FIELD, text)

    # Children

    def _compare_children(self, expected: ExpectedRow, row: Sequence[Any], *, top: bool = False) -> None:
        for child, wanted in zip(expected.plan.children, expected.children, strict=True):
            groups = self.groups[child.name]
            actual = groups.pop(() if top else child.group_under(row), []) if groups else []
            if len(wanted) != len(actual):
                text = f"the item has {len(wanted)} elements, the table {len(actual)} rows"
                self._add((*expected.path, *child.each), child, None, Cause.CHILD_COUNT, text)
                self._drop_groups(child, actual)
            elif actual:
                self._compare_elements(expected, child, wanted, actual)

    def _drop_groups(self, plan: TablePlan, rows: list[Sequence[Any]]) -> None:
        """Leave the descendants of rows that were not compared out of the orphans."""
        for child in plan.children:
            for row in rows:
                gone = self.groups[child.name].pop(child.group_under(row), [])
                self._drop_groups(child, gone)

    def _compare_elements(
        self, parent: ExpectedRow, child: TablePlan, wanted: list[ExpectedRow], actual: list[Sequence[Any]]
    ) -> None:
        place = child.ordinal or child.map_key
        if place is None:
            return
        by_place = {row[place.index]: row for row in actual}
        if len(by_place) == len(actual) and all(each.values[place.index] in by_place for each in wanted):
            pairs = [(each, by_place[each.values[place.index]]) for each in wanted]
        elif child.is_map:
            text = "the members' names differ from the rows' keys"
            self._add((*parent.path, *child.each), child, place, Cause.MISSING_ROW, text)
            self._drop_groups(child, actual)
            return
        else:
            text = "the positions do not run from 0 without a gap"
            self._add((*parent.path, *child.each), child, place, Cause.ORDER, text)
            pairs = list(zip(wanted, sorted(actual, key=lambda row: row[place.index]), strict=True))
        before = len(self.found)
        for each, row in pairs:
            self._compare_row(each, row)
        if len(self.found) > before and not child.is_map and _reordered(pairs, actual):
            del self.found[before:]
            self._add((*parent.path, *child.each), child, place, Cause.ORDER, "the same rows in another order")

    # The rebuilt blob

    def _compare_rebuilt(self, expected: Expected, decoded: Decoded, captured: Mapping[str, str]) -> frozenset[str]:
        try:
            rebuilt = rebuild_planned(self.plan, self.item.key, self.rows)
        except LensError as exc:
            if not self.found:
                self._add((), self.plan.root, None, Cause.EXTRA_ROW, str(exc))
            return frozenset()
        if self.plan.root.lossy:
            value, losses = normalised(expected.root, captured, texts=decoded.texts)
            drops = self.plan.root.drops
            self._compare_flags(rebuilt, frozenset() if drops else decoded.flags)
            self._compare_values(value, rebuilt.stored)
            return losses | (
                frozenset((f"rest: drop {self.plan.root.name}",)) if drops and decoded.flags else frozenset()
            )
        self._compare_flags(rebuilt, decoded.flags)
        self._compare_values(decoded.value, rebuilt.value)
        return frozenset()

    def _compare_flags(self, rebuilt: Rebuilt, flags: frozenset[str]) -> None:
        root = self.plan.root
        if rebuilt.key != self.item.key and not self._has(root, Role.SOURCE_KEY):
            self._add((), root, root.source_key, Cause.MOVED, f"the rows are those of {rebuilt.key!r}")
        if rebuilt.flags != flags:
            text = f"stored as {sorted(flags) or 'plain JSON'}, rebuilt as {sorted(rebuilt.flags) or 'plain JSON'}"
            self._add((), root, root.rest, Cause.TYPE, text)

    def _has(self, plan: TablePlan, role: Role) -> bool:
        return any(
            each.table == plan.name and plan.table.column(each.column).role is role
            for each in self.found
            if each.column
        )

    def _compare_values(self, value: Any, rebuilt: Any) -> None:
        if equal(value, rebuilt):
            return
        for spot in spots(value, rebuilt):
            if len(self.found) >= _MAX_DIFFERENCES:
                return
            if any(spot.path[: len(path)] == path or path[: len(spot.path)] == spot.path for path in self.seen):
                continue
            plan, column = _owner(self.plan.root, spot.path)
            show = self.show and not (column is not None and column.personal)
            texts = describe(spot.expected, show=show), describe(spot.actual, show=show)
            self._add(spot.path, plan, column, spot.cause, f"the item has {texts[0]}, the rows give {texts[1]}")

    def _add(self, path: JsonPath, plan: TablePlan, column: ColumnPlan | None, cause: Cause, detail: str) -> None:
        self.seen.add(path)
        name = column.name if column is not None else ""
        place = path_text(_without_personal(self.plan.root, path))
        self.found.append(Difference(self.item.key, place, plan.name, name, cause, detail))


def _members(rest: Mapping[str, Any]) -> dict[str, Any]:
    """A rest object's members under their own names."""
    return {name.removeprefix("$"): value for name, value in rest.items() if name != "$"}


def _reordered(pairs: Sequence[tuple[ExpectedRow, Sequence[Any]]], actual: Sequence[Sequence[Any]]) -> bool:
    """Whether rows differ from their elements, and yet are the rows of other elements. Long lists are not searched."""
    if not 1 < len(pairs) <= _MAX_SEARCHED or all(_same_content(*pair) for pair in pairs):
        return False
    left = list(actual)
    for each, _ in pairs:
        place = next((place for place, row in enumerate(left) if _same_content(each, row)), None)
        if place is None:
            return False
        del left[place]
    return True


def _same_content(expected: ExpectedRow, row: Sequence[Any]) -> bool:
    for each in expected.plan.path_columns:
        wanted, actual = expected.values[each.index], row[each.index]
        if wanted is None or actual is None:
            if wanted is not actual:
                return False
        elif not each.kind.same(wanted, actual):
            return False
    return True


def _owner(root: TablePlan, path: JsonPath) -> tuple[TablePlan, ColumnPlan | None]:
    """The table that holds what is at *path*, and the column that claims it (else the rest column)."""
    plan, left = root, path
    while True:
        child = next(
            (each for each in plan.children if len(left) > len(each.each) and left[: len(each.each)] == each.each), None
        )
        if child is None:
            break
        plan, left = child, left[len(child.each) + 1 :]
    column = next((each for each in plan.claimers if any(left[: len(path)] == path for path in each.paths)), plan.rest)
    return plan, column


def _without_personal(root: TablePlan, path: JsonPath) -> JsonPath:
    """Return *path* with a star for each member's name that is a personal value."""
    plan, place, shown = root, 0, list(path)
    while child := next(
        (
            each
            for each in plan.children
            if len(path) > (end := place + len(each.each)) and path[place:end] == each.each
        ),
        None,
    ):
        place += len(child.each)
        if child.map_key is not None and child.map_key.personal:
            shown[place] = "*"
        plan, place = child, place + 1
    return tuple(shown)
