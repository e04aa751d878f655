"""YAML read safely into values that remember their line and column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from kvmigrate.errors import MappingError

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Node:
    """A YAML value and where it stands; *value* is a dict or list of nodes, or a scalar."""

    value: Any
    line: int
    column: int
    file: str

    def fail(self, message: str, *, hint: str = "") -> NoReturn:
        """Raise a `MappingError` that points here."""
        raise MappingError(message, line=self.line, column=self.column, file=self.file, hint=hint)

    def plain(self) -> Any:
        """Return the value without positions."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def mapping(self, what: str) -> dict[str, Node]:
        """Return the members, or fail: *what* must be a mapping."""
        if not isinstance(self.value, dict):
            self.fail(f"{what} must be a mapping of names to values")
        return self.value

    def items(self, what: str) -> list[Node]:
        """Return the elements, or fail: *what* must be a list."""
        if not isinstance(self.value, list):
            self.fail(f"{what} must be a list")
        return self.value

    def text(self, what: str) -> str:
        """Return a string, or fail."""
        if not isinstance(self.value, str):
            self.fail(f"{what} must be text")
        return self.value

    def name(self, what: str) -> str:
        """Return a string fit for an identifier: not empty, no NUL, at most 63 bytes."""
        text = self.text(what)
        if not text or "\0" in text or len(text.encode()) > 63:
            self.fail(f"{what} must be 1 to 63 bytes long")
        return text

    def flag(self, what: str) -> bool:
        """Return a boolean, or fail."""
        if not isinstance(self.value, bool):
            self.fail(f"{what} must be true or false")
        return self.value

    def choice(self, what: str, choices: Iterable[str]) -> str:
        """Return one of *choices*, or fail naming them."""
        known = list(choices)
        if self.value is None and "null" in known:
            self.fail(f'{what}: write "null" in quotes; without them YAML reads it as no value')
        if self.value not in known:
            self.fail(f"{what} must be one of {', '.join(filter(None, known))}")
        return str(self.value)

    def only(self, what: str, known: Iterable[str]) -> dict[str, Node]:
        """Return the members after refusing names that are not *known*."""
        members = self.mapping(what)
        allowed = list(known)
        for name, node in members.items():
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, 1)
                node.fail(
                    f"{what} has no key {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                    hint=f"known keys: {', '.join(allowed)}",
                )
        return members


def read_yaml(text: str, file: str) -> Node:
    """Parse one YAML document with the safe loader.

    Raises:
        MappingError: not YAML, an unsafe tag, a duplicate or non-text member name.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise MappingError("the mapping is empty", file=file)
        return _node(root, loader, file)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise MappingError(exc.problem or "not YAML", line=line, column=column, file=file) from exc
    except yaml.YAMLError as exc:
        raise MappingError(f"not YAML: {exc}", file=file) from exc
    except RecursionError as exc:
        raise MappingError("nested too deep, or an alias within itself", file=file) from exc
    finally:
        loader.dispose()


def _node(node: yaml.Node, loader: yaml.SafeLoader, file: str) -> Node:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if isinstance(node, yaml.MappingNode):
        return Node(_members(node, loader, file), line, column, file)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(child, loader, file) for child in node.value], line, column, file)
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as exc:
        # The loader reads 2024-02-30 or !!int x by their form, and trips over what they say.
        message = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
        raise MappingError(message, line=line, column=column, file=file, hint="put it in quotes to mean text") from exc
    if isinstance(value, str) and _SURROGATE.search(value):
        raise MappingError("text with half a character (a lone surrogate)", line=line, column=column, file=file)
    return Node(value, line, column, file)


def _members(node: yaml.MappingNode, loader: yaml.SafeLoader, file: str) -> dict[str, Node]:
    members: dict[str, Node] = {}
    for key_node, value_node in node.value:
        key = _node(key_node, loader, file)
        # YAML reads the words null, yes and no as values; as a name they are meant as written.
        name = key.value if isinstance(key.value, str) else str(key_node.value)
        if isinstance(key.value, dict | list):
            key.fail("a name must be text")
        if name in members:
            key.fail(f"{name!r} stands here twice")
        members[name] = _node(value_node, loader, file)
    return members
