"""The laws of the lens, over random mappings and items of any kind.

The seeds are drawn by hypothesis, always the same ones; ``HYPOTHESIS_PROFILE=soak`` draws
many more, and others each time.
"""

import dataclasses
import datetime as dt
import os
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmigrate.errors import LensError
from kvmigrate.model import Item, ItemKind, Reason, Refusal, Row, RowSet
from kvmigrate.transform.lens import Left, Lens, PageRows, compile_mapping
from kvmigrate.transform.lens.forward import decode_item
from kvmigrate.transform.lens.plan import find
from kvmigrate.transform.mapping import Column, Entity, OnBadValue, Role, Table
from kvmigrate.transform.values.json_text import decode_json, json_equal
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import converter
from tests.copy_format import read_rows, read_unstaged
from tests.strategies_mapping import Plan, make_item, make_plan

Rows = dict[str, list[tuple[Any, ...]]]

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
seeds = st.integers(0, (1 << 40) - 1)
law = settings(
    max_examples=20_000 if SOAK else 250,
    derandomize=not SOAK,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_ITEMS = 6


def _made(seed: int, count: int = _ITEMS) -> tuple[random.Random, Plan, Lens, list[Item]]:
    rnd = random.Random(seed)
    plan = make_plan(rnd)
    return rnd, plan, compile_mapping(plan.mapping), [make_item(rnd, plan) for _ in range(count)]


def _tables(plan: Plan) -> dict[str, Table]:
    return {table.name: table for _, table in plan.mapping.tables()}


def _stored(lens: Lens, row_set: RowSet, rnd: random.Random) -> Rows:
    """The rows as they come back from the database: in any order, times in the session's zone."""
    tables = {table.name: table for _, table in lens.mapping.tables()}
    zone = rnd.choice([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=45))])
    rows: Rows = {}
    for name, data in lens.pack(row_set, 3).items():
        found = [tuple(_in_zone(value, zone) for value in values) for _, values in read_rows(data, tables[name])]
        rnd.shuffle(found)
        rows[name] = found
    return rows


def _in_zone(value: Any, zone: dt.tzinfo) -> Any:
    if isinstance(value, dt.datetime) and 1 < value.year < 9999:
        return value.astimezone(zone)
    return value


def _lossless(row_set: RowSet) -> bool:
    return all(name.startswith(("default:", "expires:")) for name in row_set.normalised)


def _equal_rows(one: RowSet, other: RowSet) -> bool:
    return len(one.rows) == len(other.rows) and all(
        mine.table == theirs.table and all(map(_equal_values, mine.values, theirs.values))
        for mine, theirs in zip(_sorted(one), _sorted(other), strict=True)
    )


def _sorted(row_set: RowSet) -> list[Row]:
    def order(row: Row) -> tuple[str, list[str]]:
        return row.table, [str(each.normalize() if isinstance(each, Decimal) else each) for each in row.values[:5]]

    return sorted(row_set.rows, key=order)


def _equal_values(one: Any, other: Any) -> bool:
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return json_equal(one, other)
    return bool(one == other)


@law
@given(seeds)
def test_forward_is_total_and_deterministic(seed: int) -> None:
    """Whatever is stored becomes rows, a refusal or stays; twice the same, from another lens too."""
    _, plan, lens, items = _made(seed)
    other = compile_mapping(plan.mapping)
    for item in items:
        found = lens.forward(item)

        assert isinstance(found, RowSet | Refusal | Left)
        assert repr(found) == repr(lens.forward(item)) == repr(other.forward(item))
        if isinstance(found, Refusal):
            assert item.key == found.key
            assert found.path.startswith("$")
            assert isinstance(found.reason, Reason)


@law
@given(seeds)
def test_what_was_stored_comes_back(seed: int) -> None:
    """Through the database's own spelling of every value, key, value, flags and expiry are the same again."""
    rnd, plan, lens, items = _made(seed)
    entity = plan.mapping.entities[0]
    for item in items:
        found = lens.forward(item)
        if not isinstance(found, RowSet):
            continue
        rows = _stored(lens, found, rnd)
        back = lens.backward(entity, item.key, rows)

        assert item.key == back.key
        if found.rows:
            assert item.key == lens.backward(entity, None, rows).key
        if not _lossless(found):
            continue
        assert item.kind is back.kind
        if found.rows and not any(name.startswith("expires") for name in found.normalised):
            assert item.expires_at_ms == back.expires_at_ms
        escape = entity.on_nul == "escape"
        value, flags = decode_item(item, entity.decode, escape=escape)
        again, flags_again = decode_item(back, entity.decode, escape=escape)
        assert flags == flags_again
        assert json_equal(value, again), (item, back, plan.text)
        second = lens.forward(back)
        assert isinstance(second, RowSet)
        assert _equal_rows(found, second), (item, back)


@law
@given(seeds)
def test_a_page_gives_the_rows_of_its_items(seed: int) -> None:
    """The compiled page and the exact path agree on every row, place, count and reason, in pages of any mix."""
    rnd, plan, lens, items = _made(seed, 12)
    items.insert(rnd.randrange(12), Item("nobody:1", b"{}"))
    page = lens.page(items)
    tables = _tables(plan)
    expected: dict[tuple[str, int], list[Any]] = defaultdict(list)
    normalised: Counter[str] = Counter()
    refused, left, unmatched, accepted, rest_bytes = [], [], [], set(), 0
    for ordinal, item in enumerate(items):
        found = lens.forward(item)
        if isinstance(found, RowSet):
            accepted.add((ordinal, item.key))
            normalised.update(found.normalised)
            for name, data in lens.pack(found, ordinal).items():
                expected[name, ordinal] = [values for _, values in read_rows(data, tables[name])]
        elif isinstance(found, Refusal):
            refused.append((item, found))
        elif item.key == "nobody:1":
            unmatched.append(item.key)
        else:
            left.append(found)
    actual: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for name, data in page.tables.items():
        for ordinal, values in read_rows(data, tables[name]):
            actual[name, ordinal].append(values)
        assert page.row_counts[name] == sum(len(rows) for (table, _), rows in actual.items() if table == name)
        rest = [position for position, column in enumerate(tables[name].columns) if column.role is Role.REST]
        rest_bytes = sum(1 for _, values in read_rows(data, tables[name]) for at in rest if values[at] is not None)
        assert (rest_bytes > 0) == (page.rest_bytes.get(name, 0) > 0)

    assert expected == actual, plan.text
    assert accepted == {(each.ordinal, each.key) for each in page.accepted}
    assert sorted(refused, key=repr) == sorted(page.refused, key=repr)
    assert sorted(left) == sorted(page.left)
    assert unmatched == page.unmatched
    assert dict(normalised) == page.normalised


@law
@given(seeds)
def test_unstaged_rows_are_the_columns_alone(seed: int) -> None:
    """Without ordinals a page has the same rows in the same order, and says the same of every item."""
    _, plan, lens, items = _made(seed, 12)
    staged, unstaged = lens.page(items), lens.page(items, staged=False)
    tables = _tables(plan)

    assert (True, False) == (staged.staged, unstaged.staged)
    expected = {name: [values for _, values in read_rows(data, tables[name])] for name, data in staged.tables.items()}
    assert expected == {name: read_unstaged(data, tables[name]) for name, data in unstaged.tables.items()}
    for each in dataclasses.fields(PageRows):
        if each.name not in {"staged", "tables"}:
            assert getattr(staged, each.name) == getattr(unstaged, each.name)


@law
@given(seeds)
def test_columns_come_first(seed: int) -> None:
    """A value that its column can hold is in the column and, when spelled as usual, nowhere else."""
    _, plan, lens, items = _made(seed)
    entity = plan.mapping.entities[0]
    for item in items:
        found = lens.forward(item)
        if not isinstance(found, RowSet) or entity.rows_only or item.kind is not ItemKind.JSON:
            continue
        value, _ = decode_item(item, entity.decode, escape=entity.on_nul == "escape")
        for position, column in enumerate(entity.root.columns):
            if column.role is not Role.PATH or column.foreign_ids:
                continue
            claimed = next((each for path in column.paths if (each := find(value, path)[1]) is not None), None)
            if claimed is None:
                continue
            _check_first(entity, column, claimed, found.rows[0].values[position], found.rows[0].values)


def _check_first(entity: Entity, column: Column, claimed: Any, held: Any, row: Sequence[Any]) -> None:
    convert = converter(column.type)
    try:
        wanted = convert.from_json(claimed)
    except ValueRefused:
        assert held is None
        assert column.on_bad_value is not OnBadValue.QUARANTINE
        return
    assert _equal_values(wanted, held)
    rest = next((row[at] for at, each in enumerate(entity.root.columns) if each.role is Role.REST), None) or {}
    if json_equal(convert.to_json(wanted), claimed) and column.paths != ((),):
        taken = [path for path in column.paths if path[0][:1] != "$" and find(rest, path)[0]]
        assert not taken or column.name in rest["$"]["at"]


@law
@given(seeds)
def test_a_changed_row_comes_back_changed(seed: int) -> None:
    """A column changed by SQL is what the rebuilt item says, and all other columns stay as they were."""
    rnd, plan, lens, items = _made(seed)
    entity = plan.mapping.entities[0]
    for item in items:
        found = lens.forward(item)
        if not isinstance(found, RowSet) or not found.rows or not _lossless(found):
            continue
        flags = decode_item(item, entity.decode, escape=entity.on_nul == "escape")[1]
        if "nul" in flags:
            continue  # without its NUL the item would not be escaped any more, nor its other texts
        rows = _stored(lens, found, rnd)
        changed = _change(rnd, plan, rows, as_text=item.kind is ItemKind.HASH)
        if changed is None:
            continue
        name, index, position, new = changed
        try:
            back = lens.backward(entity, item.key, rows)
        except LensError:
            continue  # rest holds something where the column's object would be: said, not guessed
        again = lens.forward(back)

        assert isinstance(again, RowSet), (again, plan.text, item, changed, back)
        table = _tables(plan)[name]
        key = [at for at, column in enumerate(table.columns) if column.name in table.primary_key]
        after = _stored(lens, again, rnd)
        row = next(row for row in after[name] if all(row[at] == rows[name][index][at] for at in key))
        convert = converter(table.columns[position].type)
        assert (new is None) == (row[position] is None), (changed, item, back, plan.text)
        assert new is None or json_equal(convert.to_json(new), convert.to_json(row[position])), (changed, row, back)
        for other, column in enumerate(table.columns):
            if other != position and column.role is not Role.REST:
                assert _equal_values(rows[name][index][other], row[other]), (column.name, item, back, plan.text)


def _change(rnd: random.Random, plan: Plan, rows: Rows, *, as_text: bool) -> tuple[str, int, int, Any] | None:
    """Set one column of one row to another value of its type, or to NULL; return what was done."""
    tables = _tables(plan)
    name = rnd.choice(sorted(rows))
    table = tables[name]
    if table.rest_policy != "keep":
        return None
    named = {column for each, column in plan.samples if each == name}
    choices = [at for at, each in enumerate(table.columns) if each.role is Role.PATH and each.name in named]
    if not choices:
        return None
    position = rnd.choice(choices)
    column = table.columns[position]
    index = rnd.randrange(len(rows[name]))
    token = rnd.choice(plan.samples[name, column.name][0])
    new = converter(column.type).from_json(decode_json(token.encode()))
    if isinstance(new, float) and column.type.base == "real":
        new = float(f"{new:.6g}")
    if not column.not_null and rnd.random() < 0.3:
        new = None
    if as_text and new is None and (column.paths == ((),) or column.has_default):
        return None  # a hash has no null
    row = list(rows[name][index])
    row[position] = new
    rows[name][index] = tuple(row)
    return name, index, position, new


def test_the_laws_meet_every_part_of_the_lens() -> None:
    """The random mappings reach the compiled and the exact path, every kind of table, and most reasons."""
    fast = 0
    seen: Counter[str] = Counter()
    for seed in range(400):
        _, plan, lens, items = _made(seed)
        fast += bool(lens._fast)
        for table in _tables(plan).values():
            seen.update([f"map {table.is_map}", str(table.rest_policy), f"nested {bool(table.children)}"])
        for item in items:
            found = lens.forward(item)
            seen.update([str(found.reason) if isinstance(found, Refusal) else type(found).__name__])
            if isinstance(found, RowSet):
                seen.update(note for row in found.rows for value in row.values for note in _notes(value))

    assert 100 < fast < 300
    assert 600 < seen["RowSet"]
    wanted = {"map True", "keep", "reject", "drop", "nested True", "at", "absent", "item", "map_key", "value"}
    reasons = set(Reason) - {
        *(Reason.TOO_LARGE, Reason.AMBIGUOUS_KEY, Reason.SAME_ROW, Reason.MISSING_PARENT, Reason.OTHER_TENANT),
        *(Reason.TOO_MANY_ROWS, Reason.FUNCTION, Reason.DATABASE),
    }
    assert set() == {*wanted, *map(str, reasons)} - set(seen)


def _notes(value: Any) -> Mapping[str, Any]:
    notes = value.get("$", {}) if isinstance(value, dict) else {}
    return notes if isinstance(notes, dict) else {}
