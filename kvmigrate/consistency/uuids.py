"""UUIDs and the ids that are none."""

from __future__ import annotations

import hashlib
import re
import uuid

NAMESPACE = uuid.UUID("b7c9d1c4-5a0e-5f43-9d6e-6b766d696772")
"""Fixed for ever: what ids that are no UUID are hashed with."""

_HEX = "[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}"
_UUID = re.compile(rf"(?:urn:uuid:)?(?:(\{{)?({_HEX})(?(1)\}}))", re.IGNORECASE)


def parse_uuid(text: str) -> uuid.UUID | None:
    """Return the UUID of a text in any case, with or without dashes, braces and ``urn:uuid:``; else ``None``."""
    found = _UUID.fullmatch(text)
    return uuid.UUID(hex=found[2].replace("-", "")) if found else None


def foreign_uuid(entity: str, text: str) -> uuid.UUID:
    """Return the UUIDv5 that stands for the id *text* of *entity*."""
    name = f"{entity}\0{text}".encode(errors="surrogatepass")
    digest = bytearray(hashlib.sha1(NAMESPACE.bytes + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(digest))
