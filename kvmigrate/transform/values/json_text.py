"""JSON text to exact values and back: no float in between, nothing accepted by luck."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec

from kvmigrate.model import Reason
from kvmigrate.transform.values.refused import ValueRefused

MAX_DEPTH = 500
MAX_BYTES = 128 * 1024 * 1024
ESCAPE = "\u241b"

# What PostgreSQL's numeric can hold: digits before and after the point.
MAX_INTEGER_DIGITS = 131_072
MAX_FRACTION_DIGITS = 16_383
_MAX_INT_DIGITS = 4_000

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSAFE = re.compile("[\x00\u241b\ud800-\udfff]")
_ESCAPED = re.compile("\u241b(\u241b|0|u([0-9a-f]{4}))")

_encoder = msgspec.json.Encoder(decimal_format="number")
_sorting_encoder = msgspec.json.Encoder(order="sorted")
encode_json: Callable[[Any], bytes] = _encoder.encode
"""Return compact JSON text; `Decimal` is written as a number, exactly."""


def decode_json(data: bytes) -> Any:
    """Return the exact value of JSON text: integers as int, other numbers as `Decimal`.

    The last of duplicate members wins.

    Raises:
        ValueRefused: not UTF-8, not JSON, too deep or too large.
    """
    if len(data) > MAX_BYTES:
        raise ValueRefused(Reason.TOO_LARGE, f"larger than {MAX_BYTES >> 20} MiB")
    if is_deep(data):
        raise ValueRefused(Reason.TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise ValueRefused(Reason.NOT_UTF8, f"not UTF-8 at byte {exc.start}") from exc
    try:
        return _loads(text)
    except json.JSONDecodeError as exc:
        raise ValueRefused(Reason.NOT_JSON, f"not JSON: {exc.msg.removesuffix(' at')} at character {exc.pos}") from exc
    except InvalidOperation as exc:
        raise ValueRefused(Reason.RANGE, "a number with an exponent that no computer holds") from exc


def load_jsonb(text: bytes | str) -> Any:
    """Return the exact value of a jsonb column's text, as the lens wants it.

    PostgreSQL checked the text already, and what the lens stored may be a few levels
    deeper than an item: a refused depth could never be read back.
    """
    return _loads(text if isinstance(text, str) else text.decode())


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Python caps int() at 4,300 digits; such numbers stay exact as Decimal.
        return json.loads(text, parse_float=Decimal, parse_int=_long_int, parse_constant=_constant)


def _constant(name: str) -> NoReturn:
    raise ValueRefused(Reason.NOT_JSON, f"not JSON: {name} is no JSON value")


def _long_int(text: str) -> int | Decimal:
    return int(text) if len(text) <= _MAX_INT_DIGITS else Decimal(text)


def is_deep(data: bytes) -> bool:
    """Whether JSON text is nested deeper than `MAX_DEPTH`."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for byte in _STRINGS.sub(b"", data).translate(None, _NO_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def number_text(number: int | Decimal) -> str:
    """Return the one plain spelling of a number: no exponent, no zeros at the end of a fraction.

    Keys and hash members are texts. Their spelling must follow from the value alone,
    as PostgreSQL keeps ``1e3`` as ``1000`` and, in ``numeric(12,2)``, ``1.5`` as ``1.50``.
    """
    text = f"{number:f}" if isinstance(number, Decimal) else str(number)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def stored_number_text(number: int | Decimal) -> str:
    """Return a number's text as jsonb prints it: no exponent, no negative zero, zeros at the end kept.

    A text column made of a number is compared with the number that `rest` remembers,
    and that has passed through jsonb.
    """
    if isinstance(number, Decimal):
        return f"{abs(number) if number.is_zero() else number:f}"
    return str(number)


def canonical_text(value: Any) -> str:
    """Return the one compact text of a JSON value: sorted members, no spaces, plain numbers."""
    return _sorting_encoder.encode(_plain_numbers(value)).decode()


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, Decimal):
        return msgspec.Raw(number_text(value).encode())
    # Plain loops, as in `_map_strings`.
    if isinstance(value, list):
        elements = []
        for element in value:
            elements.append(_plain_numbers(element))  # noqa: PERF401
        return elements
    if isinstance(value, dict):
        members = {}
        for name, member in value.items():
            members[name] = _plain_numbers(member)
        return members
    return value


def json_equal(one: Any, other: Any) -> bool:
    """Return JSON equality: numbers by value, a bool is no number, member order is nothing."""
    if isinstance(one, str):
        return bool(one == other)
    pairs = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, dict):
            if not isinstance(right, dict) or left.keys() != right.keys():
                return False
            pairs.extend((value, right[name]) for name, value in left.items())
        elif isinstance(left, list):
            if not isinstance(right, list) or len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif isinstance(right, dict | list) or isinstance(left, bool) != isinstance(right, bool) or left != right:
            return False
    return True


def check_strings(value: Any) -> None:
    """Refuse a value that holds U+0000 or a lone surrogate anywhere, names included.

    Raises:
        ValueRefused: with the path of the first one found.
    """
    _walk_strings(value, ())


def _walk_strings(value: Any, path: tuple[str | int, ...]) -> None:
    if isinstance(value, str):
        _check_string(value, path)
    elif isinstance(value, list):
        for position, element in enumerate(value):
            _walk_strings(element, (*path, position))
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_string(name, path)
            _walk_strings(member, (*path, name))


def _check_string(text: str, path: tuple[str | int, ...]) -> None:
    hint = "PostgreSQL text cannot hold it; on_nul: escape keeps it reversibly"
    if "\0" in text:
        raise ValueRefused(Reason.NUL, f"holds U+0000: {hint}", path)
    if _SURROGATE.search(text):
        raise ValueRefused(Reason.SURROGATE, f"holds a lone surrogate: {hint}", path)


def check_numbers(value: Any) -> None:
    """Refuse a value with a number that PostgreSQL's numeric, and so jsonb, cannot hold.

    Raises:
        ValueRefused: with reason RANGE.
    """
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
        elif isinstance(each, Decimal):
            check_numeric(each)


def check_numeric(number: Decimal) -> None:
    """Refuse a number beyond PostgreSQL's numeric. Raises `ValueRefused`."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # noqa: S101 - JSON has no NaN or infinity
    if number.adjusted() >= MAX_INTEGER_DIGITS or exponent < -MAX_FRACTION_DIGITS:
        raise ValueRefused(Reason.RANGE, "a number with more digits than PostgreSQL's numeric holds")


def escape_strings(value: Any) -> tuple[Any, bool]:
    """Return the value with NUL and lone surrogates escaped, and whether any was found.

    Without one the value is returned as it is: `ESCAPE` is then ordinary text.
    """
    try:
        check_strings(value)
    except ValueRefused:
        return _map_strings(value, lambda text: _UNSAFE.sub(_escape, text)), True
    return value, False


def unescape_strings(value: Any) -> Any:
    """Undo `escape_strings`."""
    return _map_strings(value, lambda text: _ESCAPED.sub(_unescape, text))


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    if char == ESCAPE:
        return ESCAPE * 2
    return ESCAPE + ("0" if char == "\0" else f"u{ord(char):04x}")


def _unescape(found: re.Match[str]) -> str:
    if found[2]:
        return chr(int(found[2], 16))
    return "\0" if found[1] == "0" else ESCAPE


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    # Plain loops: a comprehension would take a second frame for each of up to 500 levels.
    if isinstance(value, list):
        elements = []
        for element in value:
            elements.append(_map_strings(element, change))  # noqa: PERF401
        return elements
    if isinstance(value, dict):
        members = {}
        for name, member in value.items():
            members[change(name)] = _map_strings(member, change)
        return members
    return value
