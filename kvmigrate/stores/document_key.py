"""Keys for documents that have none: a template filled from the document's own members."""

from __future__ import annotations

import re

import msgspec

from kvmigrate.transform.path import Path, parse_path

_CAPTURE = re.compile(r"\{([^{}]*)\}")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


class DocumentKey:
    """A key template such as ``customers:{_id.$oid}``; a path is dotted or a JSON Pointer."""

    def __init__(self, template: str) -> None:
        """Parse *template*.

        Raises:
            ValueError: unbalanced braces, or a wrong path.
        """
        pieces = _CAPTURE.split(template)
        if any("{" in literal or "}" in literal for literal in pieces[::2]):
            message = f"unbalanced braces in the key template {template!r}"
            raise ValueError(message)
        self.template = template
        self._literals = pieces[::2]
        self._paths = [parse_path(text) for text in pieces[1::2]]

    @property
    def is_constant(self) -> bool:
        """Whether every document would get the same key."""
        return not self._paths

    def render(self, document: bytes) -> str:
        """Return the key of a document; numbers are taken as they are written.

        Raises:
            ValueError: the document is not a JSON object, or a member is missing
                or is no string, number or boolean.
        """
        parts = [self._literals[0]]
        for path, literal in zip(self._paths, self._literals[1:], strict=True):
            parts += (_member(document, path), literal)
        return "".join(parts)


def _member(document: bytes, path: Path) -> str:
    value: bytes | msgspec.Raw = document
    shown = ".".join(path)
    try:
        for name in path:
            members = _members(value)
            if name not in members:
                message = f"it has no member {shown}"
                raise ValueError(message)
            value = members[name]
        raw = bytes(value)
        if raw[:1] == b'"':
            return _text(raw)
    except msgspec.ValidationError:
        message = f"{shown}: there is no object to look into"
        raise ValueError(message) from None
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None
    except msgspec.DecodeError as exc:
        message = f"it is not JSON: {exc}"
        raise ValueError(message) from None
    if not raw or raw[:1] in b"{[n":
        message = f"{shown} is no string, number or boolean"
        raise ValueError(message)
    return raw.decode()
