"""Column types one by one: what they accept, what they give back, and what they refuse."""

import json
from decimal import Decimal
from typing import Any

import pytest

from kvmigrate.model import Reason
from kvmigrate.transform.values.column_type import ColumnType, parse_type
from kvmigrate.transform.values.json_text import decode_json, json_equal
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import converter, foreign_uuid, parse_uuid

ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
ISO = ColumnType("timestamptz", formats=("iso",))
BERLIN = ColumnType("timestamptz", formats=("iso",), zone="Europe/Berlin")
SECONDS = ColumnType("timestamptz", formats=("epoch_s",))
MILLIS = ColumnType("timestamptz", formats=("epoch_ms", "iso"))
BASE64, HEX = ColumnType("bytea", formats=("base64",)), ColumnType("bytea", formats=("hex",))
ENUM = ColumnType("enum", values=("a", "1"))


def _kind(kind: str | ColumnType) -> ColumnType:
    return parse_type(kind) if isinstance(kind, str) else kind


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", '"x"'),
        ("boolean", "false"),
        ("smallint", "-32768"),
        ("integer", "1e2"),
        ("bigint", "9223372036854775807"),
        ("numeric(12,2)", "12.500"),
        ("numeric(3,3)", "0.999"),
        ("numeric", "1e-400"),
        ("real", "0.1"),
        ("real", "3.4028235e38"),
        ("double precision", "-0.0"),
        ("uuid", f'"{ID}"'),
        ("date", '"2024-02-29"'),
        ("time", '"10:30:00.000001"'),
        (ISO, '"2024-06-01T12:00:00.123Z"'),
        (ISO, '"0001-01-01T00:00:00.000Z"'),
        (SECONDS, "1717243200.000001"),
        (MILLIS, "-1"),
        ("interval", '"-P3DT1.5S"'),
        (BASE64, '"aGk="'),
        (HEX, '"00ff"'),
        ("jsonb", '{"a":[null,1.50]}'),
        (ENUM, '"1"'),
        ("text[]", '["a",null]'),
    ],
)
def test_canonical_values_come_back(kind: str | ColumnType, text: str) -> None:
    """What the type writes is JSON-equal to what it read, by way of JSON and by way of text."""
    both, value = converter(_kind(kind)), decode_json(text.encode())
    read = both.from_json(value)

    assert json_equal(value, both.to_json(read))
    assert both.to_text(both.from_text(both.to_text(read))) == both.to_text(read)


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        ("text", "12.50", '"12.50"'),
        ("text", "1e2", '"100"'),
        ("text", "-0.0", '"0.0"'),
        ("text", "true", '"true"'),
        ("boolean", '"true"', "true"),
        ("integer", '"-042"', "-42"),
        ("numeric(12,2)", '"1.5"', "1.5"),
        ("real", "16777217", "16777216"),
        ("double precision", "0.10000000000000000000001", "0.1"),
        ("uuid", f'"{{{ID.upper()}}}"', f'"{ID}"'),
        ("uuid", f'"urn:uuid:{ID.replace("-", "")}"', f'"{ID}"'),
        ("time", '"10:30"', '"10:30:00"'),
        (ISO, '"2024-06-01 12:00:00.123456789+02:00"', '"2024-06-01T10:00:00.123456Z"'),
        (BERLIN, '"2024-07-01T12:00"', '"2024-07-01T10:00:00.000Z"'),
        (SECONDS, "0.99999999999999999999999999999999999999", "0.999999"),
        (SECONDS, "-0.00000001", "-0.000001"),
        (MILLIS, '"2024-06-01T12:00:00Z"', "1717243200000"),
        ("interval", '"P1WT36H"', '"P8DT12H"'),
        ("interval", '"-PT0S"', '"PT0S"'),
        (HEX, '"00 FF"', '"00ff"'),
    ],
)
def test_other_spellings_are_read(kind: str | ColumnType, text: str, canonical: str) -> None:
    """A value of another spelling is read, and written the usual way, so that it differs from what came."""
    both, value = converter(_kind(kind)), decode_json(text.encode())
    written = both.to_json(both.from_json(value))

    assert json_equal(decode_json(canonical.encode()), written)
    assert not json_equal(value, written)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("text", "{}", Reason.TYPE),
        ("boolean", "1", Reason.TYPE),
        ("smallint", "32768", Reason.RANGE),
        ("integer", "1.5", Reason.TYPE),
        ("integer", "true", Reason.TYPE),
        ("integer", "1e400", Reason.RANGE),
        ("integer", '"٣"', Reason.TYPE),
        ("integer", '"1_0"', Reason.TYPE),
        ("integer", '" 1"', Reason.TYPE),
        ("bigint", "9223372036854775808", Reason.RANGE),
        ("numeric(12,2)", "0.001", Reason.RANGE),
        ("numeric(12,2)", "10000000000", Reason.RANGE),
        ("numeric", "1e131072", Reason.RANGE),
        ("numeric", "1e-16384", Reason.RANGE),
        ("numeric", '"1e99999999999999999999"', Reason.RANGE),
        ("numeric", '"NaN"', Reason.TYPE),
        ("real", "1e39", Reason.RANGE),
        ("double precision", "1e309", Reason.RANGE),
        ("double precision", "9" * 400, Reason.RANGE),
        ("uuid", f'"{ID}0"', Reason.TYPE),
        ("uuid", f'"{{{ID}"', Reason.TYPE),
        ("date", '"2023-02-29"', Reason.TYPE),
        ("date", '"2024-2-9"', Reason.TYPE),
        ("time", '"24:00:00"', Reason.TYPE),
        ("time", '"10:00:00+01:00"', Reason.TYPE),
        (ISO, '"2024-06-01T12:00:00"', Reason.TYPE),
        (ISO, '"2024-06-01"', Reason.TYPE),
        (ISO, '"9999-12-31T23:59:59-14:00"', Reason.TYPE),
        (ISO, "1717243200", Reason.TYPE),
        (SECONDS, "253402300800", Reason.RANGE),
        (SECONDS, "1e400", Reason.RANGE),
        ("interval", '"P1Y"', Reason.TYPE),
        ("interval", '"P"', Reason.TYPE),
        ("interval", '"PT"', Reason.TYPE),
        ("interval", '"P999999999999D"', Reason.RANGE),
        (BASE64, '"aGk"', Reason.TYPE),
        (BASE64, '"a Gk="', Reason.TYPE),
        (HEX, '"0"', Reason.TYPE),
        ("jsonb", '{"a":[1e200000]}', Reason.RANGE),
        (ENUM, "1", Reason.TYPE),
        ("integer[]", "[1,{}]", Reason.TYPE),
        ("integer[]", "1", Reason.TYPE),
    ],
)
def test_what_does_not_fit_is_refused(kind: str | ColumnType, text: str, reason: Reason) -> None:
    """Wrong types and values out of range are told apart; nothing is rounded, wrapped or guessed."""
    with pytest.raises(ValueRefused) as refused:
        converter(_kind(kind)).from_json(decode_json(text.encode()))

    assert reason is refused.value.reason


def test_an_element_that_does_not_fit_is_named() -> None:
    """The path of a refusal inside an array holds the position."""
    with pytest.raises(ValueRefused) as refused:
        converter(parse_type("integer[]")).from_json([1, None, "x"])

    assert (2,) == refused.value.path


@pytest.mark.parametrize(
    ("kind", "stored", "text"),
    [
        ("numeric(12,2)", Decimal("1.50"), "1.5"),
        ("numeric(12,2)", Decimal("100.00"), "100"),
        ("numeric", Decimal("1E+3"), "1000"),
        ("numeric", Decimal("-0.0"), "0"),
        ("real", 0.10000000149011612, "0.1"),
        ("double precision", 1e16, "10000000000000000"),
        ("boolean", True, "true"),
        ("jsonb", {"b": Decimal("1.50"), "a": [None, "ü"]}, '{"a":[null,"ü"],"b":1.5}'),
        ("numeric(6,2)[]", [Decimal("1.50"), None], "[1.5,null]"),
    ],
)
def test_canonical_text_follows_from_the_stored_value(kind: str, stored: Any, text: str) -> None:
    """Keys and hash fields are spelled from what the database keeps: one text for one value."""
    assert text == converter(parse_type(kind)).to_text(stored)


@pytest.mark.parametrize(("kind", "text"), [("jsonb", '"\\u0000"'), ("text[]", '["\\ud800"]'), ("jsonb", "[" * 501)])
def test_text_that_holds_json_is_checked(kind: str, text: str) -> None:
    """What the escapes of JSON inside a text spell cannot pass by."""
    with pytest.raises(ValueRefused):
        converter(parse_type(kind)).from_text(text)


def test_foreign_ids_are_salted_by_entity() -> None:
    """Equal ids of two entities differ; the same id of one entity is always the same, and no UUID is hashed."""
    assert foreign_uuid("gift", "1") != foreign_uuid("client", "1")
    assert foreign_uuid("gift", "1") == foreign_uuid("gift", "1")
    assert 5 == foreign_uuid("gift", "1").version
    assert ID == str(parse_uuid(ID.upper()))
    assert parse_uuid("1") is None


def test_every_type_names_itself() -> None:
    """Aliases and spaces are read; unknown types and wrong arguments are refused with what would be right."""
    assert "numeric(12,2)[]" == parse_type(" Decimal ( 12 , 2 ) []".replace("( ", "(")).sql
    assert "double precision" == parse_type("float8").sql
    for wrong in ("varchar", "numeric(0)", "numeric(2,3)", "jsonb[]", "text[][]", ""):
        with pytest.raises(ValueError, match=r"known|numeric takes|not supported"):
            parse_type(wrong)


def test_messages_of_refusals_do_not_show_values() -> None:
    """A converter does not know which column is personal, so it never names the value."""
    for kind in ("integer", "uuid", "date", "interval", "timestamptz", "numeric(3,1)", "boolean", "text[]"):
        checked = parse_type(kind)
        with pytest.raises(ValueRefused) as refused:
            converter(ISO if checked.base == "timestamptz" else checked).from_json("secret-4711")
        assert "4711" not in json.dumps(refused.value.message)
