"""Times and durations between JSON and PostgreSQL, from the rules' text."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from decimal import ROUND_FLOOR, Context, Decimal

from kvmigrate.transform.values.column_type import ColumnType

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?(Z|[-+][0-9]{2}(:?[0-9]{2})?)?"
)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_DURATION = re.compile(
    r"(-?)P(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)(?:\.([0-9]{1,6}))?S)?)?"
)
_MICROS_PER = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
# Numbers with more digits before the point are no datetime; never expand them.
_MAX_DIGITS = 20
# Rounding down to more digits than an instant has does not change where it is cut.
_EXACT = Context(prec=60, rounding=ROUND_FLOOR)


def parse_date(text: str) -> dt.date | None:
    """Return the date of ``YYYY-MM-DD``, or ``None``."""
    try:
        return dt.date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def parse_time(text: str) -> dt.time | None:
    """Return the time of day of ``HH:MM``, ``HH:MM:SS`` or ``HH:MM:SS.f``, or ``None``."""
    try:
        return dt.time.fromisoformat(text) if _TIME.fullmatch(text) else None
    except ValueError:
        return None


def parse_instant(text: str, zone: str) -> dt.datetime | None:
    """Return the instant (UTC) of an ISO 8601 date and time with an offset, or in *zone* without; else ``None``.

    Digits beyond microseconds are cut.
    """
    if not _INSTANT.fullmatch(text):
        return None
    try:
        parsed = dt.datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            if not zone:
                return None
            parsed = parsed.replace(tzinfo=zoneinfo.ZoneInfo(zone))
        return parsed.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def instant_of(value: object, kind: ColumnType) -> dt.datetime | None:
    """Return the instant a JSON string or number spells in one of the type's formats, or ``None``."""
    epoch = next((form for form in kind.formats if form in _MICROS_PER), None)
    if isinstance(value, str):
        if "iso" in kind.formats:
            return parse_instant(value, kind.zone)
        return from_epoch(Decimal(value), epoch) if epoch and _is_number(value) else None
    if epoch and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return from_epoch(value, epoch)
    return None


def from_epoch(number: int | Decimal, form: str) -> dt.datetime | None:
    """Return the instant, cut to the microsecond toward the past; ``None`` out of range."""
    unit = _MICROS_PER[form]
    if isinstance(number, Decimal):
        if number.adjusted() > _MAX_DIGITS:
            return None
        micros = int(_EXACT.multiply(number, Decimal(unit)).to_integral_value(ROUND_FLOOR))
    else:
        micros = number * unit
    return from_micros(micros)


def from_micros(micros: int) -> dt.datetime | None:
    """Return the instant that many microseconds after 1970, or ``None`` out of range."""
    try:
        return _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return None


def instant_to_json(instant: dt.datetime, kind: ColumnType) -> str | int | Decimal:
    """Return the canonical JSON of an instant: by the type's first format."""
    form = kind.formats[0] if kind.formats else "iso"
    if form == "iso":
        utc = instant.astimezone(dt.UTC)
        whole_ms = utc.microsecond % 1000 == 0
        return utc.isoformat(timespec="milliseconds" if whole_ms else "microseconds").removesuffix("+00:00") + "Z"
    micros = (instant - _EPOCH) // dt.timedelta(microseconds=1)
    unit = _MICROS_PER[form]
    if micros % unit == 0:
        return micros // unit
    units, left = divmod(abs(micros), unit)
    digits = str(left).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return Decimal(f"{'-' if micros < 0 else ''}{units}.{digits}")


def parse_duration(text: str) -> dt.timedelta | None:
    """Return the duration of ``-PnWnDTnHnMn.nS``, to the microsecond; else ``None``."""
    found = _DURATION.fullmatch(text)
    if found is None or text.endswith(("P", "T")):
        return None
    sign, weeks, days, hours, minutes, seconds, fraction = found.groups()
    if max(len(part or "") for part in (weeks, days, hours, minutes, seconds)) > 18:
        return None
    try:
        whole = dt.timedelta(
            weeks=int(weeks or 0),
            days=int(days or 0),
            hours=int(hours or 0),
            minutes=int(minutes or 0),
            seconds=int(seconds or 0),
            microseconds=int((fraction or "").ljust(6, "0")),
        )
    except OverflowError:
        return None
    return -whole if sign else whole


def duration_to_json(duration: dt.timedelta) -> str:
    """Return the normalised ISO 8601 text: ``-PnDTnHnMnS`` without zero parts, ``PT0S`` for none."""
    micros = duration // dt.timedelta(microseconds=1)
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    seconds, fraction = divmod(micros, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    second_text = f"{seconds}.{fraction:06d}".rstrip("0") if fraction else str(seconds)
    date = f"{days}D" if days else ""
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    clock += f"{second_text}S" if seconds or fraction else ""
    return f"{sign}P{date}" + (f"T{clock}" if clock else "") if date or clock else "PT0S"


def _is_number(text: str) -> bool:
    found = _NUMBER.fullmatch(text)
    return found is not None and len(text) < 4000 and (found[2] is None or len(found[2]) < 12)
