"""JSON text to exact values and back."""

from decimal import Decimal
from typing import Any

import pytest

from kvmigrate.model import Reason
from kvmigrate.transform.values.json_text import (
    MAX_BYTES,
    canonical_text,
    check_numbers,
    check_strings,
    decode_json,
    encode_json,
    escape_strings,
    json_equal,
    load_jsonb,
    unescape_strings,
)
from kvmigrate.transform.values.refused import ValueRefused


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"1", 1),
        (b"1.0", Decimal("1.0")),
        (b"12345678901234567890123", 12345678901234567890123),
        (b"1e400", Decimal("1e400")),
        (b"0.1000000000000000055", Decimal("0.1000000000000000055")),
        (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b' \t\r\n{"": [] } ', {"": []}),
    ],
)
def test_values_are_exact(data: bytes, value: Any) -> None:
    """Integers of any size, decimals as spelled, the last of two members."""
    decoded = decode_json(data)

    assert value == decoded
    assert type(value) is type(decoded)
    assert json_equal(value, decode_json(encode_json(decoded)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"\xef\xbb\xbf1", Reason.NOT_JSON),
        (b"NaN", Reason.NOT_JSON),
        (b"[-Infinity]", Reason.NOT_JSON),
        (b"1 1", Reason.NOT_JSON),
        (b"01", Reason.NOT_JSON),
        (b"'a'", Reason.NOT_JSON),
        (b'"\x00"', Reason.NOT_JSON),
        (b"[" + b"1" * 5000 + b", nope", Reason.NOT_JSON),
        (b'"\xff"', Reason.NOT_UTF8),
        (b'"\xed\xa0\x80"', Reason.NOT_UTF8),
        (b"[" * 501 + b"]" * 501, Reason.TOO_DEEP),
        (b'{"a":' * 501 + b"1" + b"}" * 501, Reason.TOO_DEEP),
        (b" " * (MAX_BYTES + 1), Reason.TOO_LARGE),
        (b"1e99999999999999999999", Reason.RANGE),
        (b"-1e-99999999999999999999", Reason.RANGE),
    ],
)
def test_what_is_no_json_is_refused(data: bytes, reason: Reason) -> None:
    """Each refusal has its reason, whatever Python's own reader would make of it."""
    with pytest.raises(ValueRefused) as refused:
        decode_json(data)

    assert reason is refused.value.reason


@pytest.mark.parametrize("data", [b'["a', b"[1,", b"{1}", b"nope", b'"\\x"'])
def test_a_refusal_says_once_where(data: bytes) -> None:
    """The reader's own messages end in different ways; ours has one place in it."""
    with pytest.raises(ValueRefused) as refused:
        decode_json(data)

    assert refused.value.message.startswith("not JSON: ")
    assert 1 == refused.value.message.count(" at ")


def test_brackets_in_strings_are_no_depth() -> None:
    """Only real nesting counts; 500 levels pass, and every function walks them."""
    assert "[" * 900 == decode_json(b'"' + b"[" * 900 + b'"')
    assert '"' + "[" * 900 == decode_json(b'"\\"' + b"[" * 900 + b'"')
    value = decode_json(b'{"a":' * 500 + b'"\\u0000"' + b"}" * 500)

    escaped, found = escape_strings(value)
    assert found
    assert json_equal(value, unescape_strings(escaped))
    assert canonical_text(escaped)
    assert json_equal(escaped, load_jsonb(b'{"$":{"value":' + encode_json(escaped) + b"}}")["$"]["value"])


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, Decimal("1.0"), True),
        (0, Decimal("-0.0"), True),
        (10**400, Decimal("1e400"), True),
        (True, 1, False),
        (False, 0, False),
        ("1", 1, False),
        (None, "", False),
        ([], {}, False),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": Decimal(1)}, True),
        ({"a": None}, {}, False),
        ([[True]], [[1]], False),
        (Decimal("0.1"), Decimal("0.10000000000000000000000000000000000001"), False),
    ],
)
def test_json_equality(one: Any, other: Any, *, equal: bool) -> None:
    """Numbers by exact value; a bool is no number; order of members is nothing, of elements it is."""
    assert equal is json_equal(one, other)
    assert equal is json_equal(other, one)


@pytest.mark.parametrize(
    ("value", "reason", "path"),
    [
        ({"a": ["x", "\0"]}, Reason.NUL, ("a", 1)),
        ({"a\0": 1}, Reason.NUL, ()),
        (["\ud800"], Reason.SURROGATE, (0,)),
        ({"a": {"\udfff": 1}}, Reason.SURROGATE, ("a",)),
    ],
)
def test_texts_that_postgresql_refuses(value: Any, reason: Reason, path: tuple[str | int, ...]) -> None:
    """U+0000 and half characters are found in values and names, with their place."""
    with pytest.raises(ValueRefused) as refused:
        check_strings(value)

    assert (reason, path) == (refused.value.reason, refused.value.path)


def test_escaping_is_reversible_and_rare() -> None:
    """Every text comes back, the escape character too; a value that needs none is left as it is."""
    value = {"a\0\u241b": ["\ud800\u241b0", "\u241bud800", "\udfff\0"], "n": 1}
    escaped, found = escape_strings(value)

    check_strings(escaped)
    assert found
    assert value == unescape_strings(escaped)
    assert ({"a": "\u241b0"}, False) == escape_strings({"a": "\u241b0"})


@pytest.mark.parametrize(
    ("number", "fits"), [("1e131071", True), ("1e131072", False), ("1e-16383", True), ("1e-16384", False)]
)
def test_numbers_that_jsonb_holds(number: str, *, fits: bool) -> None:
    """The limits of PostgreSQL's numeric, at any depth."""
    value = {"a": [Decimal(number)]}
    if fits:
        check_numbers(value)
        return
    with pytest.raises(ValueRefused):
        check_numbers(value)


def test_canonical_text_is_one_text() -> None:
    """Members sorted, no spaces, numbers plain: what jsonb changes does not show."""
    one = decode_json('{"ü":1.50,"b":[1e2,-0.0,{"y":1,"x":null}]}'.encode())
    other = decode_json('{"b":[100,0,{"x":null,"y":1.0}],"ü":1.5}'.encode())

    assert '{"b":[100,0,{"x":null,"y":1}],"ü":1.5}' == canonical_text(one) == canonical_text(other)
