"""What the generated code knows of column types: the decoder's type, and the lines that pack.

Each rule covers canonical values only. Whatever it does not cover raises `Slow` (or one of
`SLOW`), and the item takes the exact path; so these rules decide speed, never meaning.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import struct
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from kvmigrate.transform.lens.plan import ColumnPlan
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import decode_json, json_equal
from kvmigrate.transform.values.pack import NULL, POSTGRES_DAY, pack_jsonb, pack_text, packer
from kvmigrate.transform.values.refused import ValueRefused


class Slow(Exception):  # noqa: N818 - a signal that never leaves the generated code
    """This item is not plain: take the exact path."""


SLOW = (
    Slow,
    ValueRefused,
    msgspec.MsgspecError,
    ValueError,
    KeyError,
    OverflowError,
    IndexError,
    struct.error,
    RecursionError,
)

CACHE_ENTRIES = 100_000
"""How many values of a column are remembered."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII).fullmatch
_US_PER_DAY = 86_400_000_000
_EPOCH_2000_MS = 946_684_800_000
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_NUMERIC_WHOLE_DIGITS, _NUMERIC_FRACTION_DIGITS = 8, 4
_INTEGERS = {"smallint": ("h", 2), "integer": ("i", 4), "bigint": ("q", 8)}
_numeric = struct.Struct("!ihhHh").pack
_two_words = struct.Struct("!hh").pack
_word = struct.Struct("!h").pack

EXPONENT = re.compile(rb"\d[eE][-+]?\d{4,}").search
"""Finds a number that jsonb might not hold exactly (or hex text that looks like one)."""


_MANY_DIGITS = 15_000
_LONG_NUMBER = re.compile(rb"(?<!\d)\d{%d}" % _MANY_DIGITS).search


class Packed(dict[Any, bytes]):
    """Remembers packed values of columns that repeat, up to a bound."""

    def __init__(self, pack: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._pack = pack

    def __missing__(self, value: Any) -> bytes:
        packed = self._pack(value)
        if len(self) < CACHE_ENTRIES:
            self[value] = packed
        return packed


class _Days(dict[str, int]):
    """Canonical dates to microseconds since 2000, remembered."""

    def __missing__(self, text: str) -> int:
        if not _DAY(text):
            raise Slow
        self[text] = micros = (dt.date.fromisoformat(text).toordinal() - POSTGRES_DAY) * _US_PER_DAY
        return micros


class _Wholes(dict[bytes, bytes]):
    """The digits before a decimal's point to two base-10000 words, remembered up to a bound."""

    def __init__(self, digits: int) -> None:
        super().__init__()
        self._digits = digits

    def __missing__(self, text: bytes) -> bytes:
        # *text* begins a valid JSON token, so int() alone refuses all that is no plain decimal.
        digits = text.removeprefix(b"-")
        if len(digits) > self._digits:
            raise Slow
        words = _two_words(*divmod(int(digits), 10_000))
        if len(self) < CACHE_ENTRIES:
            self[text] = words
        return words


# The parts of a canonical time to microseconds: tables small enough for the processor's cache.
DAYS = _Days()
MINUTES = {f"T{n // 60:02d}:{n % 60:02d}": n * 60_000_000 for n in range(24 * 60)}
SECONDS = {f":{second:02d}.": second * 1_000_000 for second in range(60)}
MILLIS = {f"{ms:03d}Z": ms * 1000 for ms in range(1000)}


@functools.cache
def _fractions(scale: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes], dict[bytes, bytes]]:
    """Return by digits behind the point: heads of positive and of negative numbers, and the last word."""
    texts = [b"", *(b"%0*d" % (digits, n) for digits in range(1, scale + 1) for n in range(10**digits))]
    positive, negative = ({text: _numeric(14, 3, 1, sign, len(text)) for text in texts} for sign in (0, 0x4000))
    return positive, negative, {text: _word(int(text.ljust(4, b"0"))) for text in texts}


def _numeric_lines(plan: ColumnPlan, name: str, names: dict[str, Any]) -> list[str]:
    """At most 8 digits before the point and 4 behind it, no exponent, from tables; others exactly."""
    kind = plan.column.type
    names[f"exact_{name}"] = _exactly(plan)
    scale = _NUMERIC_FRACTION_DIGITS if kind.scale is None else min(kind.scale, _NUMERIC_FRACTION_DIGITS)
    whole_digits = _NUMERIC_WHOLE_DIGITS
    if kind.precision is not None and kind.scale is not None:
        whole_digits = min(kind.precision - kind.scale, whole_digits)
    parts = [f"{part}_{name}" for part in ("positive", "negative", "fraction", "whole")]
    names.update(zip(parts, (*_fractions(scale), _Wholes(whole_digits)), strict=True))
    positive, negative, fraction, whole = parts
    names[f"h_{name}"] = {}
    return [
        "t = bytes(v)",
        f"{name} = h_{name}.get(t)",
        f"if {name} is None:",
        '    w, _, u = t.partition(b".")',
        f'    try: {name} = ({negative} if w < b"0" else {positive})[u] + {whole}[w] + {fraction}[u]',
        f"    except SLOW: {name} = exact_{name}(t)",
        f"    if len(h_{name}) < {CACHE_ENTRIES}: h_{name}[t] = {name}",
    ]


def field_type(plan: ColumnPlan) -> Any:
    """Return the type that the decoder checks for this column."""
    kind = plan.column.type
    if kind.array:
        return list[str] if kind.base == "text" else msgspec.Raw
    if kind.base in _INTEGERS:
        return Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    if kind.base == "timestamptz" and kind.formats[0] != "iso":
        factor = epoch_factor(kind)
        return Annotated[int, msgspec.Meta(ge=-(-_FIRST_MS // factor), le=_LAST_MS // factor)]
    if kind.base == "enum":
        return Literal[kind.values]
    return {"text": str, "uuid": str, "timestamptz": str, "boolean": bool}.get(kind.base, msgspec.Raw)


def field_lines(plan: ColumnPlan, name: str, names: dict[str, Any]) -> list[str]:
    """Return the lines that pack ``v`` into variable *name*; helpers are added to *names*."""
    kind = plan.column.type
    base = f"{kind.base}[]" if kind.array else kind.base
    helper = f"h_{name}"
    if base in _INLINE:
        return [line.format(name=name) for line in _INLINE[base]]
    if base == "timestamptz":
        return _instant_lines(kind, name)
    if base == "uuid":
        return _uuid_lines(plan, name, helper, names)
    if base == "numeric":
        return _numeric_lines(plan, name, names)
    if base in _INTEGERS:
        code, size = _INTEGERS[base]
        names[helper] = struct.Struct("!i" + code).pack
        return [f"{name} = {helper}({size}, v)"]
    if base in {"enum", "text[]"}:
        names[helper] = Packed(pack_text)
        return [f"{name} = {helper}[v]" if base == "enum" else f"{name} = pack_text_array(v, {helper})"]
    return _generic(plan, name, helper, names)


def exact_lines(plan: ColumnPlan, name: str, names: dict[str, Any]) -> tuple[str, list[str]] | None:
    """Return when an exactly decoded ``v`` is spelt as usual, and the lines that pack it then.

    The lines may raise where it is not. ``None``: there is no short way.
    """
    kind = plan.column.type
    base = f"{kind.base}[]" if kind.array else kind.base
    if base == "jsonb":
        return "v is not None", [f"{name} = pack_jsonb(v)"]
    condition = _EXACT.get(base)
    if base in _INTEGERS:
        half = 1 << 8 * _INTEGERS[base][1] - 1
        condition = f"type(v) is int and {-half} <= v < {half}"
    elif base == "timestamptz" and kind.formats[0] != "iso":
        condition = f"type(v) is int and {-(-_FIRST_MS // epoch_factor(kind))} <= v <= {_LAST_MS // epoch_factor(kind)}"
    elif base == "enum":
        condition = f"type(v) is str and v in {kind.values!r}"
    if condition is None:
        return None
    lines = field_lines(plan, name, names)
    return condition, [line.replace("bytes(v)", "str(v).encode()") for line in lines] if base == "numeric" else lines


_EXACT = {
    "text": "type(v) is str",
    "uuid": "type(v) is str",
    "timestamptz": "type(v) is str",
    "boolean": "type(v) is bool",
    "numeric": "type(v) is int or type(v) is Decimal",
    "text[]": "type(v) is list",
}


_INLINE = {
    "text": ("t = v.encode()", "{name} = lengths[len(t)] + t"),
    "boolean": ("{name} = TRUE if v else FALSE",),
    "jsonb": (
        "t = bytes(v)",
        'if t == b"null" or (b"e0000" in t.translate(ROUGHLY) or len(t) > 10_000) and is_odd_json(t): raise Slow',
        "{name} = json_heads[len(t)] + t",
    ),
}


def _uuid_lines(plan: ColumnPlan, name: str, helper: str, names: dict[str, Any]) -> list[str]:
    lines = [
        't = v.replace("-", "")',
        "u = unhex(t)",
        'if len(v) != 36 or len(u) != 16 or v[8:24:5] != "----" or u.hex() != t: raise Slow',
        f"{name} = UUID_HEAD + u",
    ]
    if not plan.column.reference:
        return lines
    # Ids of other items may repeat; an item's own id does not.
    names[helper] = {}
    store = f"if len({helper}) < {CACHE_ENTRIES}: {helper}[v] = {name}"
    return [f"{name} = {helper}.get(v)", f"if {name} is None:", *(f"    {line}" for line in (*lines, store))]


def epoch_factor(kind: ColumnType) -> int:
    """Return how many milliseconds the number of an epoch format counts."""
    return 1 if kind.formats[0] == "epoch_ms" else 1000


def _instant_lines(kind: ColumnType, name: str) -> list[str]:
    if kind.formats[0] == "iso":
        return [f"{name} = instant(8, DAYS[v[:10]] + MINUTES[v[10:16]] + SECONDS[v[16:20]] + MILLIS[v[20:]])"]
    return [f"{name} = instant(8, v * {epoch_factor(kind) * 1000} - {_EPOCH_2000_MS * 1000})"]


def _generic(plan: ColumnPlan, name: str, helper: str, names: dict[str, Any]) -> list[str]:
    """Any other type."""
    names[helper] = _exactly(plan)
    return [f"{name} = {helper}(bytes(v))"]


def _exactly(plan: ColumnPlan) -> Callable[[bytes], bytes]:
    """Return what decodes this one member exactly, and packs canonical values only."""
    pack = packer(plan.column.type)

    def convert(text: bytes) -> bytes:
        value = decode_json(text)
        if value is None:
            raise Slow
        found = plan.from_json(value)
        if not json_equal(plan.to_json(found), value):
            raise Slow
        return pack(found)

    return convert


def _pack_text_array(values: list[str], packed: Packed) -> bytes:
    if not values:
        return _EMPTY_TEXT_ARRAY
    body = b"".join([packed[value] for value in values])
    return _array_head(20 + len(body), 1, 0, 25, len(values), 1) + body


def is_odd_json(text: bytes) -> bool:
    """Whether JSON text has a number that jsonb might not hold exactly.

    The search takes long. Most texts cannot have one: see `ROUGHLY`.
    """
    return EXPONENT(text) is not None or (len(text) > _MANY_DIGITS and _LONG_NUMBER(text) is not None)


_EMPTY_TEXT_ARRAY = struct.pack("!iiii", 12, 0, 0, 25)
_array_head = struct.Struct("!iiiiii").pack


@functools.cache
def usual_names() -> dict[str, Any]:
    """Return the names that every generated function may use; not to be changed. Made once: some are large tables."""
    return {
        "Slow": Slow,
        "SLOW": SLOW,
        "NULL": NULL,
        "UNSET": msgspec.UNSET,
        "TRUE": b"\x00\x00\x00\x01\x01",
        "FALSE": b"\x00\x00\x00\x01\x00",
        "instant": struct.Struct("!iq").pack,
        "lengths": [struct.pack("!i", n) for n in range(1 << 16)],
        "ordinals": [struct.pack("!ii", 4, n) for n in range(1 << 16)],
        "pack_text": pack_text,
        "pack_jsonb": pack_jsonb,
        "pack_text_array": _pack_text_array,
        "is_odd_json": is_odd_json,
        # Every digit becomes 0; signs and E become e: an exponent of four digits is then e0000.
        "ROUGHLY": bytes.maketrans(b"123456789+-E", b"000000000eee"),
        "json_heads": [struct.pack("!ib", n + 1, 1) for n in range(1 << 16)],
        "DAYS": DAYS,
        "MINUTES": MINUTES,
        "SECONDS": SECONDS,
        "MILLIS": MILLIS,
        "EPOCH_2000_MS": _EPOCH_2000_MS,
        "UUID_HEAD": b"\x00\x00\x00\x10",
        "unhex": bytes.fromhex,
    }
