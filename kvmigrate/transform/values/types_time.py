"""Dates, times, instants and intervals: ISO 8601 text or epoch numbers, to the microsecond."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

from kvmigrate.model import Reason
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types_number import Number, parse_number

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_US_PER_MS = 1_000
_UNITS = {"epoch_s": 1_000_000, "epoch_ms": _US_PER_MS}
# Year 1 to 9999, the years that Python's datetime can name.
_EXACT = Context(prec=150_000, Emax=MAX_EMAX, Emin=MIN_EMIN)
_FIRST_US = (dt.datetime(1, 1, 1, tzinfo=dt.UTC) - EPOCH) // _MICROSECOND
_LAST_US = (dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC) - EPOCH) // _MICROSECOND
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CLOCK = re.compile(r"\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?", re.ASCII)
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d+))?)?(Z|z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_INTERVAL = re.compile(
    r"(-)?P(?=[\dT])(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,6}))?S)?)?", re.ASCII
)


def _refused(what: str, value: Any) -> ValueRefused:
    return ValueRefused(Reason.TYPE, f"{'text' if isinstance(value, str) else 'a value'} is not {what}")


def _date(_kind: ColumnType) -> Pair:
    def from_json(value: Any) -> dt.date:
        if isinstance(value, str) and _DATE.fullmatch(value):
            try:
                return dt.date.fromisoformat(value)
            except ValueError as exc:
                raise _refused("a date that exists", value) from exc
        raise _refused("a date (YYYY-MM-DD)", value)

    return from_json, dt.date.isoformat


def _clock(_kind: ColumnType) -> Pair:
    def from_json(value: Any) -> dt.time:
        if isinstance(value, str) and _CLOCK.fullmatch(value):
            try:
                return dt.time.fromisoformat(value)
            except ValueError as exc:
                raise _refused("a time of day that exists", value) from exc
        raise _refused("a time (HH:MM:SS)", value)

    return from_json, dt.time.isoformat


def parse_instant(value: str, zone: dt.tzinfo | None) -> dt.datetime:
    """Return the instant in UTC; digits beyond microseconds are cut. Raises `ValueRefused`."""
    found = _INSTANT.fullmatch(value)
    if found is None:
        raise _refused("an ISO 8601 time", value)
    day, hour, minute, second, fraction, offset = found.groups()
    if offset is None and zone is None:
        raise ValueRefused(Reason.TYPE, "a time without a zone; declare one: zone: Europe/Berlin")
    text = f"{day}T{hour}:{minute}:{second or '00'}.{(fraction or '')[:6]:0<6}"
    try:
        local = dt.datetime.fromisoformat(text + _offset(offset))
        return (local if offset else local.replace(tzinfo=zone)).astimezone(dt.UTC)
    except (ValueError, OverflowError) as exc:
        raise _refused("a time that exists", value) from exc


def _offset(text: str | None) -> str:
    if not text or text in {"Z", "z"}:
        return "+00:00" if text else ""
    digits = text[1:].replace(":", "")
    return f"{text[0]}{digits[:2]}:{digits[2:] or '00'}"


def format_instant(value: dt.datetime) -> str:
    """Return ``YYYY-MM-DDTHH:MM:SS.mmmZ``, with six decimals when three would lose some."""
    spec = "microseconds" if value.microsecond % _US_PER_MS else "milliseconds"
    return value.astimezone(dt.UTC).isoformat(timespec=spec).removesuffix("+00:00") + "Z"


def _instant(kind: ColumnType) -> Pair:
    zone = zoneinfo.ZoneInfo(kind.zone) if kind.zone else None
    unit = next((_UNITS[name] for name in kind.formats if name in _UNITS), 0)
    has_iso = "iso" in kind.formats

    def from_epoch(value: Number) -> dt.datetime:
        exact = Decimal(value)
        if exact and exact.adjusted() > 18:
            raise ValueRefused(Reason.RANGE, "a time outside the years 1 to 9999")
        micros = int(_EXACT.multiply(exact, Decimal(unit)).to_integral_value(rounding="ROUND_FLOOR"))
        if not _FIRST_US <= micros <= _LAST_US:
            raise ValueRefused(Reason.RANGE, "a time outside the years 1 to 9999")
        return EPOCH + dt.timedelta(microseconds=micros)

    def from_json(value: Any) -> dt.datetime:
        if isinstance(value, str):
            if has_iso:
                return parse_instant(value, zone)
            if unit:
                return from_epoch(parse_number(value))
        elif unit and isinstance(value, int | Decimal) and not isinstance(value, bool):
            return from_epoch(value)
        raise _refused(f"a time ({', '.join(kind.formats)})", value)

    def to_epoch(value: dt.datetime) -> Number:
        whole, part = divmod((value - EPOCH) // _MICROSECOND, unit)
        return whole if not part else Decimal(whole) + Decimal(part) / unit

    return from_json, format_instant if kind.formats[0] == "iso" else to_epoch


def _interval(_kind: ColumnType) -> Pair:
    def from_json(value: Any) -> dt.timedelta:
        found = _INTERVAL.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise _refused("an ISO 8601 duration without years and months", value)
        sign, weeks, days, hours, minutes, seconds, fraction = found.groups(default="0")
        try:
            span = dt.timedelta(
                weeks=int(weeks),
                days=int(days),
                hours=int(hours),
                minutes=int(minutes),
                seconds=int(seconds),
                microseconds=int(f"{fraction:0<6}"),
            )
        except (OverflowError, ValueError) as exc:
            raise ValueRefused(Reason.RANGE, "a duration too long for interval") from exc
        return -span if sign == "-" else span

    return from_json, format_interval


def format_interval(value: dt.timedelta) -> str:
    """Return ``PnDTnHnMnS`` without zero parts; nothing at all is ``PT0S``."""
    sign, span = ("-", -value) if value < dt.timedelta(0) else ("", value)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{span.microseconds:06d}".rstrip("0") if span.microseconds else ""
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    clock += f"{seconds}{fraction}S" if seconds or fraction else ""
    text = (f"{span.days}D" if span.days else "") + (f"T{clock}" if clock else "")
    return f"{sign}P{text}" if text else "PT0S"


PAIRS: dict[str, Callable[[ColumnType], Pair]] = {
    "date": _date,
    "time": _clock,
    "timestamptz": _instant,
    "interval": _interval,
}
"""JSON value to column value and back, by type."""
