"""Binary COPY fields, byte by byte, where PostgreSQL would take wrong ones without a word."""

import datetime as dt
import json
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens.fast_types import SLOW, field_lines, usual_names
from kvmigrate.transform.lens.plan import plan_table
from kvmigrate.transform.values.column_type import ColumnType, parse_type
from kvmigrate.transform.values.pack import NULL, pack_numeric, packer, row_head, staged_row_head
from tests.copy_format import read_value


@pytest.mark.parametrize(
    ("kind", "value", "packed"),
    [
        ("text", "ü", "00000002 c3bc"),
        ("boolean", True, "00000001 01"),
        ("smallint", -2, "00000002 fffe"),
        ("integer", 1, "00000004 00000001"),
        ("bigint", -1, "00000008 ffffffffffffffff"),
        ("numeric", Decimal(0), "00000008 0000 0000 0000 0000"),
        ("numeric", Decimal("-12345.678"), "0000000e 0003 0001 4000 0003 0001 0929 1a7c"),
        ("numeric", Decimal("0.00001"), "0000000a 0001 fffe 0000 0005 03e8"),
        ("numeric", Decimal("1E+8"), "0000000a 0001 0002 0000 0000 0001"),
        ("double precision", 1.0, "00000008 3ff0000000000000"),
        ("date", dt.date(2000, 1, 2), "00000004 00000001"),
        ("time", dt.time(0, 0, 1), "00000008 00000000000f4240"),
        ("interval", dt.timedelta(days=-1, seconds=1), "00000010 00000000000f4240 ffffffff 00000000"),
        ("jsonb", {"a": Decimal("1.50")}, "0000000b 01 7b2261223a312e35307d"),
        ("text[]", [], "0000000c 00000000 00000000 00000019"),
        ("boolean[]", [None], "00000018 00000001 00000001 00000010 00000001 00000001 ffffffff"),
    ],
)
def test_fields(kind: str, value: Any, packed: str) -> None:
    """Length and bytes as the manual of the format says them."""
    assert bytes.fromhex(packed) == packer(parse_type(kind))(value)


def test_null_and_the_head_of_a_row() -> None:
    """NULL is a length of -1; a row starts with its number of fields and the item's ordinal."""
    assert NULL == packer(parse_type("jsonb"))(None) == packer(parse_type("text[]"))(None)
    assert bytes.fromhex("0003 00000004 00000009") == staged_row_head(3, 4, 9)
    assert bytes.fromhex("0003") == row_head(3)


def test_random_numerics_are_read_as_they_were() -> None:
    """Any sign, size and scale; zeros at the ends are no digits but count for the scale."""
    kind = ColumnType("numeric")
    for seed in range(3_000):
        rnd = random.Random(seed)
        digits = rnd.choice(["0", "1", "10000", "9999", str(rnd.randrange(10 ** rnd.randint(1, 40)))])
        value = Decimal(f"{rnd.choice(['', '-'])}{digits}E{rnd.randint(-30, 30)}")
        read = read_value(kind, pack_numeric(value)[4:])

        assert value == read
        assert max(0, -int(value.as_tuple().exponent)) == -int(read.as_tuple().exponent)


def _short_packer(text: str) -> Callable[[bytes], bytes]:
    """What the compiled page makes of a numeric column's JSON text."""
    column = {"type": text, "path": "n"}
    entity = {"keys": ["a:{id}"], "table": "a", "columns": {"id": {"key": "id", "type": "text"}, "n": column}}
    mapping = load_mapping(json.dumps({"version": 1, "name": "short", "entities": {"a": entity}}, indent=1))
    names = dict(usual_names())
    lines = field_lines(plan_table(mapping.entities[0].root).members[0], "p", names)
    exec("\n    ".join(["def pack(v):", *lines, "return p"]), names)  # noqa: S102 - as the lens does
    packed: Callable[[bytes], bytes] = names["pack"]
    return packed


def test_the_short_packer_of_numerics_agrees() -> None:
    """What the compiled page packs from text is the same value; what it cannot, it leaves to the exact path."""
    taken = 0
    for text in ("numeric", "numeric(12,2)", "numeric(5,0)", "numeric(3,3)", "numeric(30,10)"):
        kind = parse_type(text)
        short = _short_packer(text)
        for seed in range(1_500):
            rnd = random.Random(seed)
            whole, fraction = str(rnd.randrange(10 ** rnd.randint(1, 10))), str(rnd.randrange(10 ** rnd.randint(1, 6)))
            token = rnd.choice(["", "-"]) + whole + rnd.choice(["", "." + fraction, "e2", "." + fraction + "00"])
            try:
                packed = short(token.encode())
            except SLOW:
                continue
            taken += 1
            assert Decimal(token) == read_value(kind, packed[4:])
    assert 1_000 < taken
