"""JSON with exact numbers, and what it means that two JSON values are equal."""

from __future__ import annotations

import enum
import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from kvmigrate.consistency.compiled import native

NUMBERS = frozenset((int, Decimal))
_CONTAINERS = frozenset((dict, list))


_same = native.same if native else None
"""Whether two values are surely equal, compiled."""


class JsonError(ValueError):
    """The text is no JSON value that can be held exactly; the message says why."""


class JsonNull(enum.Enum):
    """The JSON value null where SQL NULL is possible, too: in a jsonb column."""

    NULL = "null"


JSON_NULL = JsonNull.NULL


def loads(text: str | bytes) -> Any:
    """Return the JSON value: integers as ``int`` of any size, other numbers as ``Decimal``.

    The last of duplicate members wins.

    Raises:
        JsonError: no JSON, no UTF-8, a BOM, NaN or Infinity, nested too deep, or a
            number beyond every exponent.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return _decode(text)
    except UnicodeDecodeError as exc:
        message = f"not UTF-8 at byte {exc.start}"
        raise JsonError(message) from exc
    except json.JSONDecodeError as exc:
        message = f"not JSON: {exc.msg} at character {exc.pos}"
        raise JsonError(message) from exc
    except RecursionError as exc:
        raise JsonError("nested too deep") from exc


def loads_column(text: str | bytes) -> Any:
    """Return the value of a jsonb column; a JSON null is `JSON_NULL`, so that it differs from SQL NULL.

    Raises:
        JsonError: as `loads`.
    """
    value = loads(text)
    return JSON_NULL if value is None else value


def equal(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal.

    Numbers count by exact value (``1 == 1.0``), ``true`` is no number, the order of
    members does not count and that of elements does. Works at any depth.
    """
    return (_same is not None and _same(left, right)) or _equal_one_by_one(left, right)


def _equal_one_by_one(left: Any, right: Any) -> bool:
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        kind = type(one)
        if kind is not type(other):
            if kind in NUMBERS and type(other) in NUMBERS and one == other:
                continue
            return False
        if kind is dict:
            if len(one) != len(other):
                return False
            for name, value in one.items():
                if name not in other:
                    return False
                rival = other[name]
                # Most members are neither: to put them aside first would take most of the time.
                if type(value) not in _CONTAINERS and type(value) is type(rival):
                    if value != rival:
                        return False
                else:
                    pairs.append((value, rival))
        elif kind is list:
            if len(one) != len(other):
                return False
            pairs.extend(zip(one, other, strict=True))
        elif one != other:
            return False
    return True


def compact(value: Any) -> str:
    """Return the one compact text of a JSON value: sorted members, no spaces, plain numbers."""
    out: list[str] = []
    _write(value, out)
    return "".join(out)


def number_text(number: int | Decimal) -> str:
    """Return the plain decimal text of a number: no exponent, no zeros at the end of a fraction, no -0."""
    text = format(Decimal(number), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise JsonError(message)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as exc:
        raise JsonError("a number's exponent is out of range") from exc


def _integer(text: str) -> int:
    # Python refuses to parse long decimal texts to an int at once; by way of a Decimal it does.
    return int(text) if len(text) < 4000 else int(Decimal(text))


_FAST = json.JSONDecoder(parse_float=_decimal, parse_constant=_refuse_constant)
_LONG = json.JSONDecoder(parse_float=_decimal, parse_constant=_refuse_constant, parse_int=_integer)


def _decode(text: str) -> Any:
    if text.startswith("\ufeff"):
        raise JsonError("a byte order mark is not JSON")
    try:
        return _FAST.decode(text)
    except (json.JSONDecodeError, JsonError):
        raise
    except ValueError:
        return _LONG.decode(text)


def _write(value: Any, out: list[str]) -> None:
    if isinstance(value, dict):
        out.append("{")
        for position, name in enumerate(sorted(value)):
            out.append("," if position else "")
            out.append(json.dumps(name, ensure_ascii=False) + ":")
            _write(value[name], out)
        out.append("}")
    elif isinstance(value, list):
        out.append("[")
        for position, element in enumerate(value):
            out.append("," if position else "")
            _write(element, out)
        out.append("]")
    elif type(value) in NUMBERS:
        out.append(number_text(value))
    elif value is JSON_NULL:
        out.append("null")
    else:
        out.append(json.dumps(value, ensure_ascii=False))
