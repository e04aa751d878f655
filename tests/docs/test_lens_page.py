"""``docs/reference/lens.md``: every line of its tables is what the lens does, and the way back gives the item."""

import datetime as dt
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from kvmigrate.model import Item, Reason, Refusal, RowSet
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.mapping import Column, Role
from kvmigrate.transform.values.json_text import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_FRACTION_DIGITS,
    MAX_INTEGER_DIGITS,
    decode_json,
    encode_json,
    json_equal,
)
from kvmigrate.transform.values.types import FOREIGN_ID_NAMESPACE
from kvmigrate.transform.values.types_time import EPOCH
from tests.docs.fragments import whole, written
from tests.docs.pages import DOCS, code, table

PAGE = DOCS / "reference" / "lens.md"
ITEMS = table(PAGE, "| columns | the item | columns hold | rest |")
TYPES = table(PAGE, "| type | value | column | rest |")
KEY = "thing:7"
NEVER_RAISED = {Reason.TOO_MANY_ROWS}


def lens_of(columns: str) -> Lens:
    """Return the lens of a table with these columns."""
    return compile_mapping(load_mapping(written(whole("columns", columns))))


def printed(value: Any, column: Column) -> str | None:
    """Return what ``column::text`` prints in PostgreSQL, in UTC; ``None`` for NULL."""
    if value is None:
        return None
    if isinstance(value, list):
        element = [printed(each, column) or "NULL" for each in value]
        return "{" + ",".join(element) + "}"
    if column.type.base == "jsonb":
        return encode_json(value).decode()
    return printed_scalar(value, column)


def printed_scalar(value: Any, column: Column) -> str:
    """Return what PostgreSQL prints of a value that is no array, no NULL and no JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        text = value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".")
        return text + "+00"
    if isinstance(value, dt.timedelta):
        days = f"{value.days} day{'s' if value.days != 1 else ''}" if value.days else ""
        clock = (EPOCH + dt.timedelta(seconds=value.seconds)).strftime("%H:%M:%S") if value.seconds else ""
        return f"{days} {clock}".strip()
    if isinstance(value, bytes):
        return r"\x" + value.hex()
    if isinstance(value, float) and column.type.base == "real":
        return f"{value:.6g}"
    if isinstance(value, Decimal) and column.type.scale is not None:
        return f"{value:.{column.type.scale}f}"
    return str(value)


def rows_of(lens: Lens, data: str) -> RowSet | Refusal:
    """Return what the lens makes of an item, after proving that the rows give it back."""
    item = Item(KEY, data.encode())
    found = lens.forward(item)
    assert isinstance(found, RowSet | Refusal)
    if isinstance(found, RowSet):
        rows: dict[str, list[Sequence[Any]]] = {}
        for row in found.rows:
            rows.setdefault(row.table, []).append(row.values)
        back = lens.backward(lens.mapping.entity("thing"), None, rows)
        assert item.key == back.key
        assert isinstance(back.value, bytes)
        # A declared loss comes back as null.
        assert found.normalised or json_equal(decode_json(data.encode()), decode_json(back.value))
    return found


def refused_as(found: RowSet | Refusal, cell: str) -> bool:
    """Whether the page says that the item is refused; then for the same reason."""
    if not cell.startswith("refused"):
        assert isinstance(found, RowSet), found
        return False
    assert isinstance(found, Refusal)
    assert cell.removeprefix("refused: ") == str(found.reason)
    return True


@pytest.mark.parametrize(("columns", "item", "hold", "rest"), ITEMS, ids=[f"{row[0]} {row[1]}" for row in ITEMS])
def test_items(columns: str, item: str, hold: str, rest: str) -> None:
    """The columns hold what the page says, the rest too, and the item comes back."""
    lens = lens_of(code(columns))
    found = rows_of(lens, code(item))
    if refused_as(found, hold):
        return
    assert isinstance(found, RowSet)
    root = lens.mapping.entity("thing").root
    values = dict(zip((column.name for column in root.columns), found.rows[0].values, strict=True))
    shown = {name: printed(values[name], root.column(name)) for name in json.loads(code(hold))}
    assert json.loads(code(hold)) == shown
    expected = None if rest == "NULL" else decode_json(code(rest).encode())
    assert json_equal(expected, values["rest"]), values["rest"]


@pytest.mark.parametrize(("kind", "value", "column", "rest"), TYPES, ids=[f"{row[0]} {row[1]}" for row in TYPES])
def test_types(kind: str, value: str, column: str, rest: str) -> None:
    """Each value becomes what the page says, and stays in rest when the page says so."""
    lens = lens_of(f"v: {{path: v, {code(kind)}}}")
    found = rows_of(lens, f'{{"v": {code(value)}}}')
    if refused_as(found, column):
        return
    assert isinstance(found, RowSet)
    root = lens.mapping.entity("thing").root
    position = [each.name for each in root.columns].index("v")
    held = next(at for at, each in enumerate(root.columns) if each.role is Role.REST)
    assert code(column) == printed(found.rows[0].values[position], root.column("v"))
    expected = None if rest == "nothing" else {"v": decode_json(code(value).encode())}
    assert json_equal(expected, found.rows[0].values[held])


def test_page_has_every_type() -> None:
    """Each column type stands in the table of types."""
    shown = {re.split(r"[(\[]", code(row[0]).split(",")[0].removeprefix("type: ").strip('"'))[0] for row in TYPES}
    scalars = "text boolean smallint integer bigint numeric real uuid date time timestamptz interval bytea jsonb enum"
    assert {*scalars.split(), "double precision"} == shown


def test_page_has_every_reason() -> None:
    """Each reason that can be given is explained, and no other."""
    cells = [row[0] for row in table(PAGE, "| reason | meaning |")]
    explained = {each.strip().strip("`") for cell in cells for each in cell.split(",")}
    assert {str(reason) for reason in {*Reason} - NEVER_RAISED} == explained


def test_limits() -> None:
    """The limits of the page are those of the code."""
    values = dict(row[:2] for row in table(PAGE, "| limit | value | beyond it |"))
    assert f"{MAX_DEPTH} levels" == values["nesting"]
    assert f"{MAX_BYTES >> 20} MiB" == values["size of a value"]
    digits = f"{MAX_INTEGER_DIGITS:,} before the point, {MAX_FRACTION_DIGITS:,} behind"
    assert digits == values["digits of a number"]


def test_namespace() -> None:
    """The namespace of foreign ids is the published one."""
    assert str(FOREIGN_ID_NAMESPACE) in PAGE.read_text(encoding="utf-8")
