"""A part of a mapping, as the pages show it, put into a whole file."""

from __future__ import annotations

from typing import Any

import yaml

BASE = """
version: 1
name: docs
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: uuid, foreign_ids: uuid5}
      name: {path: name, type: text}
  order:
    keys: ["order:{id}"]
    table: orders
    columns:
      id: {key: id, type: text}
      client_id: {path: clientId, type: uuid, references: client}
  thing:
    keys: ["thing:{id}"]
    table: things
    columns:
      id: {key: id, type: text}
"""


def whole(part: str, text: str) -> dict[str, Any]:
    """Return the mapping that *text* is a part of: ``columns``, ``entity``, ``top``, or "" for all of it."""
    found: dict[str, Any] = yaml.safe_load(text)
    if not part:
        return found
    mapping: dict[str, Any] = yaml.safe_load(BASE)
    thing = mapping["entities"]["thing"]
    if part == "columns":
        thing["columns"] |= found
    elif part == "entity":
        thing |= found
    else:
        mapping["entities"] |= found.pop("entities", {})
        mapping |= found
    return mapping


def written(mapping: dict[str, Any]) -> str:
    """Return the mapping as YAML text."""
    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
