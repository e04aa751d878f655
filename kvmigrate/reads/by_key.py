# This file is generated from by_key_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Readers of the tables: by key through the lens, and others held to what the session wrote.

This module is the generated twin.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.model import Version
from kvmigrate.reads.request import token
from kvmigrate.reads.state import MISS, StaleReadError
from kvmigrate.reads.sticky import Arguments, finder
from kvmigrate.target.writer_base import Items

Load = Callable[[Any], Any]
Wrote = Callable[[], Version | None]
"""The greatest version of what a session wrote and the tables may lack."""


Reached = Callable[[str], bool]
"""Whether the tables have every write of a key that was accepted."""


def load_plainly(value: Any) -> Any:
    """Return a stored value as most programs read it: JSON by the standard library, a hash as texts."""
    if isinstance(value, Mapping):
        return {name.decode(): each.decode() for name, each in value.items()}
    return json.loads(value)


def key_maker(template: str, reader: Callable[..., Any]) -> Callable[[Arguments, dict[str, Any]], str]:
    """Return what makes the key of a call. Raises `ConfigError` where a part of it is no argument of *reader*."""
    code = getattr(reader, "__code__", None)
    known = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) if code is not None else set()
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"key {template!r}: {unknown[0]!r} is no argument of {getattr(reader, '__name__', 'the reader')}",
            hint=f"its arguments are {', '.join(sorted(known)) or 'none'}",
        )
    finders = {name: finder(reader, name) for name in names}

    def made(args: Arguments, kwargs: dict[str, Any]) -> str:
        return template.format_map({name: find(args, kwargs) for name, find in finders.items()})

    return made


def by_key(
    make_key: Callable[[Arguments, dict[str, Any]], str],
    tables: Items,
    load: Load,
    *,
    deadline_s: float,
    wrote: Wrote | None = None,
    reached: Reached | None = None,
) -> Callable[..., Any]:
    """Return a reader of the tables by key; each of its statements ends after *deadline_s*.

    With *wrote* the item must be of that version, or a later one. With *reached* the store is asked first, so that
    every write that was accepted before the call is seen.
    """

    def read(*args: Any, **kwargs: Any) -> Any:
        """Read the item of a call."""
        key = make_key(args, kwargs)
        if reached is not None and not reached(key):
            raise StaleReadError
        wanted = None if wrote is None else wrote()
        if wanted is not None:
            version = tables.version(key, deadline_s=deadline_s)
            if version is None or version < wanted:
                raise StaleReadError
        [item] = tables.get([key], deadline_s=deadline_s)
        return MISS if item is None else load(item.value)

    return read


def by_call(make_key: Callable[[Arguments, dict[str, Any]], str], reached: Reached) -> Callable[..., bool]:
    """Return *reached* for calls in place of keys."""

    def has_reached(*args: Any, **kwargs: Any) -> bool:
        """Ask for the key of a call."""
        return reached(make_key(args, kwargs))

    return has_reached


def in_session(reader: Callable[..., Any], wrote: Wrote) -> Callable[..., Any]:
    """Return a reader that leaves what this session wrote to the store: a query does not tell what it saw."""

    def read(*args: Any, **kwargs: Any) -> Any:
        """Read, unless the session wrote."""
        if wrote() is not None:
            raise StaleReadError
        return reader(*args, **kwargs)

    return read


def nothing_lacks() -> Version | None:
    """Return ``None``: the tables have what this thread or task wrote."""
    return None


def session_wrote(lacking: Wrote) -> Wrote:
    """Return what tells the version that a session must see: its token's, or of its writes that the tables may lack."""

    def wrote() -> Version | None:
        """Tell it."""
        given, mine = token.get(), lacking()
        if given is None or given.position:
            return mine
        return given.version if mine is None else max(given.version, mine)

    return wrote
