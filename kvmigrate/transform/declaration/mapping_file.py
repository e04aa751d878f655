"""The mapping file: YAML to a checked, resolved `Mapping`."""

from __future__ import annotations

import hashlib
import json
import pathlib

from kvmigrate.errors import MappingError
from kvmigrate.transform.declaration.column_file import read_path
from kvmigrate.transform.declaration.entity_file import ON_NUL, read_entity, read_template
from kvmigrate.transform.declaration.resolve import resolve_mapping
from kvmigrate.transform.declaration.table_file import refuse_later
from kvmigrate.transform.declaration.yaml_nodes import Node, read_yaml
from kvmigrate.transform.mapping import Decode, LeaveInKV, Mapping, Pointer

_TOP_KEYS = ("version", "name", "schema", "entities", "pointers", "leave_in_kv", "decode", "on_nul")
_POINTER_KEYS = ("key", "lists", "points_to", "by", "path", "maintain")


def load_mapping(source: str | pathlib.Path) -> Mapping:
    """Read a mapping file, or YAML text given as *source* when it holds a newline.

    Raises:
        MappingError: with file, line and column, what is wrong and what would be right.
    """
    text, file = (source, "") if isinstance(source, str) and "\n" in source else _read(pathlib.Path(source))
    root = read_yaml(text, file)
    refuse_later(root.mapping("the mapping"))
    members = root.only("the mapping", _TOP_KEYS)
    for key in ("version", "name", "entities"):
        if key not in members:
            root.fail(f"the mapping has no {key!r}")
    if type(members["version"].value) is not int or members["version"].value != 1:
        members["version"].fail("version must be 1")
    defaults: dict[str, Node] = {key: members[key] for key in ("decode", "on_nul") if key in members}
    for key, choices in (("decode", [str(each) for each in Decode]), ("on_nul", ON_NUL)):
        if key in defaults:
            defaults[key].choice(key, choices)
    drafts = [read_entity(name, node, defaults) for name, node in members["entities"].mapping("entities").items()]
    if not drafts:
        members["entities"].fail("entities is empty: there is nothing to migrate")
    return resolve_mapping(
        drafts,
        name=members["name"].name("name"),
        schema=members["schema"].name("schema") if "schema" in members else "public",
        pointers=[_pointer(node) for node in _list(members, "pointers")],
        leave_in_kv=[_leave(node) for node in _list(members, "leave_in_kv")],
        fingerprint=_fingerprint(root),
        file=file,
    )


def _read(path: pathlib.Path) -> tuple[str, str]:
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as exc:
        message = f"cannot read the mapping {str(path)!r}: {exc}"
        raise MappingError(message, hint="name the file with --mapping FILE") from exc


def _fingerprint(root: Node) -> str:
    """Hash the values alone; the order of columns counts, as it is the order in the table."""
    canonical = json.dumps(root.plain(), ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _list(members: dict[str, Node], key: str) -> list[Node]:
    return members[key].items(key) if key in members else []


def _pointer(node: Node) -> tuple[Node, Pointer]:
    members = node.only("a pointer", _POINTER_KEYS)
    if "key" not in members or ("lists" in members) == ("points_to" in members):
        node.fail("a pointer has a key and one of lists, points_to")
    return node, Pointer(
        key=read_template(members["key"])[1],
        lists=members["lists"].text("lists") if "lists" in members else "",
        points_to=members["points_to"].text("points_to") if "points_to" in members else "",
        by=members["by"].text("by") if "by" in members else "",
        path=read_path(members["path"]) if "path" in members else (),
        maintain="maintain" in members and members["maintain"].flag("maintain"),
    )


def _leave(node: Node) -> tuple[Node, LeaveInKV]:
    members = node.only("leave_in_kv", ("key", "reason"))
    if set(members) != {"key", "reason"}:
        node.fail("leave_in_kv takes a key and a reason")
    return node, LeaveInKV(read_template(members["key"])[1], members["reason"].text("reason"))
