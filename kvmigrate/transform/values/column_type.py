"""Column types as a mapping writes them: ``numeric(12,2)``, ``text[]``, ``timestamptz``."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCALARS = (
    "text",
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "real",
    "double precision",
    "uuid",
    "date",
    "time",
    "timestamptz",
    "interval",
    "bytea",
    "jsonb",
    "enum",
)
ALIASES = {
    "bool": "boolean",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "double": "double precision",
    "decimal": "numeric",
    "string": "text",
    "json": "jsonb",
    "timestamp with time zone": "timestamptz",
}
TIME_FORMATS = ("iso", "epoch_s", "epoch_ms")
MAX_PRECISION = 1000


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A checked column type.

    Attributes:
        base: One of `SCALARS`; of the elements when *array*.

        precision, scale: Of ``numeric(p,s)``; ``None`` for plain ``numeric``.

        formats: timestamptz: accepted spellings, the first is the canonical one;
            bytea: ``("base64",)`` or ``("hex",)``; else empty.

        zone: IANA zone of timestamps whose text has none, or "".

        values: The members of an enum.
    """

    base: str
    array: bool = False
    precision: int | None = None
    scale: int | None = None
    formats: tuple[str, ...] = ()
    zone: str = ""
    values: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The PostgreSQL type; an enum is text with a check."""
        name = "text" if self.base == "enum" else self.base
        if self.precision is not None:
            name += f"({self.precision},{self.scale})"
        return name + ("[]" if self.array else "")


def parse_type(text: str) -> ColumnType:
    """Parse the ``type:`` of a column; formats, zone and values come from other keys.

    Raises:
        ValueError: the type is unknown or its arguments are wrong.
    """
    folded = " ".join(text.lower().split())
    array = folded.endswith("[]")
    name = folded.removesuffix("[]").strip()
    numeric = re.fullmatch(r"(numeric|decimal) ?\( ?(\d+) ?(?:, ?(\d+) ?)?\)", name)
    if numeric:
        precision, scale = int(numeric[2]), int(numeric[3] or 0)
        if not 1 <= precision <= MAX_PRECISION or scale > precision:
            message = f"{text!r}: numeric takes a precision of 1 to {MAX_PRECISION} and a scale up to it"
            raise ValueError(message)
        return ColumnType("numeric", array, precision, scale)
    base = ALIASES.get(name, name)
    if base not in SCALARS:
        message = f"unknown type {text!r}; known: {', '.join(SCALARS)}, numeric(p,s), and T[] for arrays"
        raise ValueError(message)
    if array and base in {"jsonb", "bytea", "interval"}:
        message = f"{text!r}: an array of {base} is not supported; use jsonb, or a child table"
        raise ValueError(message)
    return ColumnType(base, array)
