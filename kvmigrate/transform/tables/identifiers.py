"""SQL names and literals as text, for the statements that a mapping's tables need.

Only `ddl` and its formats compose SQL text, and only from a mapping. What runs
against data goes through the driver's own composition instead.
"""

from __future__ import annotations

import hashlib
import re

from kvmigrate.errors import MappingError

MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer names silently, so two of them could become one."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_SURROGATE = re.compile("[\ud800-\udfff]")

# Every word that PostgreSQL 18 knows and does not list as unreserved: its own quote_ident() quotes the same ones.
_KEYWORDS_TEXT = """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast
    char character check coalesce collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user dec decimal default deferrable
    desc distinct do else end except exists extract false fetch float for foreign freeze from full grant greatest group
    grouping having ilike in initially inner inout int integer intersect interval into is isnull join json json_array
    json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value
    lateral leading least left like limit localtime localtimestamp merge_action national natural nchar none normalize
    not notnull null nullif numeric offset on only or order out outer overlaps overlay placing position precision
    primary real references returning right row select session_user setof similar smallint some substring symmetric
    system_user table tablesample then time timestamp to trailing treat trim true union unique user using values varchar
    variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces
    xmlparse xmlpi xmlroot xmlserialize xmltable
    """
_KEYWORDS = frozenset(_KEYWORDS_TEXT.split())


def quote_identifier(name: str) -> str:
    """Return *name* as PostgreSQL reads it back: quoted where it must be, plain where it may be.

    Raises:
        MappingError: the name is empty, holds NUL or a lone surrogate, or has more than 63 bytes.
    """
    _check_text(name)
    if not name:
        raise MappingError("a name in the database cannot be empty")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise MappingError(
            f"the name {name!r} has more than {MAX_NAME_BYTES} bytes", hint="choose a shorter table or column name"
        )
    if _PLAIN.fullmatch(name) and name not in _KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    r"""Return *text* as a string literal that means the same under every server setting.

    A backslash makes it an ``E'...'`` literal, because a plain one depends on
    ``standard_conforming_strings``.

    Raises:
        MappingError: the text holds NUL or a lone surrogate.
    """
    _check_text(text)
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def qualified(schema: str, name: str) -> str:
    """Return ``schema.name``, each quoted where it must be."""
    return f"{quote_identifier(schema)}.{quote_identifier(name)}"


def shorten(name: str) -> str:
    """Return *name* in at most 63 bytes: cut at a character, with eight digits of its hash at the end."""
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digits = "_" + hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: MAX_NAME_BYTES - len(digits)].decode(errors="ignore") + digits


def _check_text(text: str) -> None:
    if "\x00" in text or _SURROGATE.search(text):
        raise MappingError(
            f"{text!r} holds a character that PostgreSQL cannot store", hint="remove it from the mapping"
        )
