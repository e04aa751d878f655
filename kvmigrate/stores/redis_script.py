"""The functions inside Redis, as the one file has them: a library for Redis 7, scripts for older servers."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

PROTO = 1
"""Meaning of keys and fields, as the fence says it and the functions check it."""

_FILE = "kvmigrate.lua"
_COMMENT = re.compile(r"--.*$", re.MULTILINE)
# Each begins and ends in the first column.
_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
_CONSTANT = re.compile(r"^local (\w+) = .*$", re.MULTILINE)
_REGISTERED = re.compile(
    r"function_name='(\w+)', callback=(\w+)|^redis\.register_function\('(\w+)', (\w+)\)", re.MULTILINE
)


class Script(NamedTuple):
    """One function of the file.

    Attributes:
        name: As FCALL wants it.

        text: What EVAL wants.

        sha: What EVALSHA wants.
    """

    name: bytes
    text: bytes
    sha: bytes


@cache
def library() -> bytes:
    """Return what FUNCTION LOAD wants."""
    return files("kvmigrate.stores").joinpath(_FILE).read_bytes()


@cache
def script(name: str) -> Script:
    """Return a function by the name without its version, such as ``put``.

    Raises:
        KeyError: there is no such function.
    """
    return _scripts()[name]


@cache
def _scripts() -> dict[str, Script]:
    code = _COMMENT.sub("", library().decode())
    parts = {found[1]: found[0] for kind in (_CONSTANT, _FUNCTION) for found in kind.finditer(code)}
    made: dict[str, Script] = {}
    for found in _REGISTERED.finditer(code):
        name, function = found[1] or found[3], found[2] or found[4]
        needed = _needed(function, parts)
        lines = [part for each, part in parts.items() if each in needed]
        text = "\n".join([*lines, f"return {function}(KEYS, ARGV)"])
        text = re.sub(r"\n\s*", "\n", text)
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        made[name.partition("_")[2]] = Script(name.encode(), text.encode(), digest.encode())
    return made


def _needed(function: str, parts: dict[str, str]) -> set[str]:
    """Return the names of all that a function uses, itself included."""
    needed, pending = set[str](), [function]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += [word for word in re.findall(r"\w+", parts[name]) if word in parts]
    return needed
