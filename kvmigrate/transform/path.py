"""Paths into a JSON value: dotted member names, or a JSON Pointer for odd names."""

from __future__ import annotations

Path = tuple[str, ...]
"""Member names from the outside in; ``()`` is the whole value."""


def parse_path(text: str) -> Path:
    """Parse ``a.b c`` or, when it starts with ``/``, a JSON Pointer (RFC 6901).

    Raises:
        ValueError: an empty member in a dotted path, or a wrong ``~`` escape.
    """
    if text == "":
        return ()
    if text.startswith("/"):
        return tuple(_unescape(part) for part in text[1:].split("/"))
    parts = tuple(text.split("."))
    if "" in parts:
        message = f"path {text!r} has an empty member name; write a JSON Pointer (/a//b) for such names"
        raise ValueError(message)
    return parts


def _unescape(part: str) -> str:
    if "~" in part.replace("~0", "").replace("~1", ""):
        message = f"{part!r}: in a JSON Pointer '~' is written '~0' and '/' is written '~1'"
        raise ValueError(message)
    return part.replace("~1", "/").replace("~0", "~")


def format_path(path: Path) -> str:
    """Return the shortest text that `parse_path` reads back as *path*."""
    if path == ():
        return ""
    dotted = ".".join(path)
    if all(part and "." not in part for part in path) and not dotted.startswith("/"):
        return dotted
    return "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)


def json_path(*parts: str | int) -> str:
    """Return a JSON path for people: ``$.items[2].qty``, odd names as ``$['a b']``."""
    text = "$"
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}"
        else:
            text += f"[{part!r}]"
    return text
