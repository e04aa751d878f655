"""Mappings and items made at random: every feature of the mapping language, and JSON at its worst.

Everything is drawn from a `random.Random`; hypothesis gives one whose choices it can shrink.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.mapping import Entity, Mapping, Table
from kvmigrate.transform.path import Path

UUID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"


class Token(str):
    """JSON text as it stands: numbers as they are spelled, or things that no dumper would write."""

    __slots__ = ()


class Twice(dict[str, Any]):
    """An object that names its first member twice, the second time with the value that counts."""


# Type, other keys of the column, canonical values, values of another spelling. Texts are JSON.
TYPES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("text", {}, ['"a"', '"ü\\n\\u241b"', '""', '" "', '"\\u241b0"'], ["12", "1.50", "true", "1e400", "-0.0"]),
    ("boolean", {}, ["true", "false"], ['"true"']),
    ("smallint", {}, ["0", "-32768", "7.0", "32767", "1e2"], ['"12"', '"007"', '"-0"']),
    ("integer", {}, ["0", "-0", "2147483647", "1e9", "2.0"], ['"-5"']),
    ("bigint", {}, ["-9223372036854775808", "9223372036854775807"], ['"9007199254740993"', '"00"']),
    ("numeric(12,2)", {}, ["1.5", "1.50", "-0.0", "0.01", "9999999999.99", "1e3", "12.500"], ['"1.5"', '"1e2"']),
    ("numeric(5,0)", {}, ["12345", "1.0", "-1e4"], ['"12.0"']),
    ("numeric(3,3)", {}, ["0.125", "0", "-0.001", "1e-3"], ['"0.100"']),
    ("numeric", {}, ["1e400", "1e-400", "-0.0", "12.500", "0.1", "1" * 5000, "0e5"], ['"1e3"', '"-0"', '"1.50"']),
    (
        "real",
        {},
        ["0.1", "1", "16777216", "1e30", "-0.0", "1.4013e-45", "3.4028235e38"],
        ["16777217", "0.10000000149", '"0.1"', "1e-60"],
    ),
    ("double precision", {}, ["0.1", "1e16", "1e300", "5", "-0.0"], ["0.1000000000000000055", '"1.50"', "1e-500"]),
    ("uuid", {}, [f'"{UUID}"'], [f'"{UUID.upper()}"', f'"{{{UUID}}}"', f'"{UUID.replace("-", "")}"']),
    ("uuid", {"foreign_ids": "uuid5"}, [f'"{UUID}"'], ['"id-7"', "7", f'"{UUID.upper()}"', '""']),
    ("date", {}, ['"2024-02-29"', '"0001-01-01"', '"9999-12-31"'], []),
    ("time", {}, ['"10:30:00"', '"23:59:59.000001"'], ['"10:30"', '"10:30:00.1"']),
    (
        "timestamptz",
        {"format": "iso"},
        ['"2024-06-01T12:00:00.000Z"', '"2024-06-01T12:00:00.123456Z"'],
        ['"2024-06-01T12:00:00Z"', '"2024-06-01T12:00:00.123456789+02:00"', '"2024-06-01 12:00:00.999999999Z"'],
    ),
    ("timestamptz", {"zone": "Europe/Berlin"}, ['"1999-12-31T23:59:59.999Z"'], ['"2024-10-27T02:30:00"']),
    ("timestamptz", {"format": "epoch_s"}, ["1717243200", "-1", "1717243200.5"], ['"12"', "0.9999999", "-0.00000001"]),
    ("timestamptz", {"format": ["epoch_ms", "iso"]}, ["1717243200000", "0.001"], ['"2024-06-01T12:00:00.000Z"']),
    ("interval", {}, ['"PT0S"', '"P1DT2H3M4.5S"', '"-P3D"'], ['"P1W"', '"PT36H"', '"-PT0S"']),
    ("bytea", {}, ['"aGk="', '""'], []),
    ("bytea", {"format": "hex"}, ['"00ff"', '""'], ['"00FF"', '"00 ff"']),
    ("jsonb", {}, ["{}", "[]", '{"b":[1.50,{"a":null}],"a":-0.0}', '""', "false", "1e400"], []),
    ("enum", {"values": ["a", "b c", "1"]}, ['"a"', '"b c"', '"1"'], []),
    ("text[]", {}, ["[]", '["a",null,""]'], ["[1]", "[true]"]),
    ("numeric(6,2)[]", {}, ["[1.5,null,2]", "[]"], ['["1.5"]']),
    ("integer[]", {}, ["[1,2.0,null]"], ['["1"]']),
    ("timestamptz[]", {"format": "epoch_s"}, ["[1,1.5]"], ['["1"]']),
]
KEY_TYPES = ["text", "uuid", "integer", "bigint", "numeric(12,2)", "numeric", "date", "double precision"]
HOSTILE = (
    *('""', "null", "true", "[]", "{}", "0", "-0.0", "12.500", "1e400", "1e-20000", "1e200000", "[[]]", "[null]"),
    *('"\\u0000"', '"\\ud800"', '"\\udc00x"', '"\\ud83d\\ude00"', '"\\u241b"', '{"$":{"value":1}}', '{"":{"":1}}'),
    *(
        '"null"',
        '"{\\"a\\":1}"',
        '"[1,{}]"',
        '"[\\"\\\\u0000\\"]"',
        '"1e99999999999999999999"',
        "1e99999999999999999999",
    ),
    *('{"a\\u0000":1}', '{"a":{"\\udfff":1}}', "9" * 30, "9" * 5000, "1e131071", "0." + "0" * 16_400 + "1"),
    *("[" * 480 + "]" * 480, '{"a":' * 495 + "1" + "}" * 495, "[" * 600 + "]" * 600, '"' + "x" * 70_000 + '"'),
    *('"P999999999999D"', '"' + "9" * 5000 + '"', '"2024-02-30"', '"9999-12-31T23:59:59-14:00"', '"٣"', '"1_0"'),
)
WHOLE = (
    *(b"", b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b"{", b"NaN", b"[NaN]", b"-Infinity", b"{} x", b"\x00", b"nul"),
    *(b"null", b"true", b"0", b'"text"', b"[]", b"{}", b'""', b'"{}"', b'"{\\"a\\": 1}"', b'"[]"', b"{'a':1}"),
    *(b"[" + b"1" * 5000 + b", nope", b"1e99999999999999999999", b'{"a":1,}', b'{"a" : 01}', b"[1_0]"),
)


@dataclass
class Plan:
    """A mapping as made: its text, and where its columns are by table."""

    text: str
    mapping: Mapping
    samples: dict[tuple[str, str], tuple[list[str], list[str]]] = field(default_factory=dict)


def make_plan(rnd: random.Random) -> Plan:
    """Return a random mapping of one entity, which every loader rule accepts."""
    maker = _Maker(rnd)
    text = json.dumps({"version": 1, "name": "made", "entities": {"thing": maker.entity()}}, indent=1)
    return Plan(text, load_mapping(text), maker.samples)


class _Maker:
    """Writes one entity; every column and child has members of its own."""

    def __init__(self, rnd: random.Random) -> None:
        self.rnd, self.count = rnd, 0
        # Half of all mappings have no feature that only the exact path knows.
        self.plain = rnd.random() < 0.5
        self.samples: dict[tuple[str, str], tuple[list[str], list[str]]] = {}

    def entity(self) -> dict[str, Any]:
        rnd = self.rnd
        rows_only = not self.plain and rnd.random() < 0.25
        keys, captures = self._keys(rows_only=rows_only)
        entity: dict[str, Any] = {"keys": keys, "columns": {}}
        for name, kind in captures.items():
            column: dict[str, Any] = {"key": name, "type": kind}
            if kind == "uuid" and rnd.random() < 0.6:
                column["foreign_ids"] = "uuid5"
            if not rows_only and rnd.random() < 0.5:
                column["path"] = self._paths()
            entity["columns"][name] = column
        whole = 1.0 if self.plain else rnd.random()
        if rows_only:
            entity["rows_only"] = True
            entity["children"] = self._rows_only_children(list(captures))
        else:
            entity["table"] = "things"
            entity["primary_key"] = list(captures)
            for column in entity["columns"].values():
                if whole < 0.2:
                    column.pop("path", None)
            if whole < 0.1:
                entity["columns"]["whole"] = self._column("things", "whole") | {"path": ""}
            elif whole < 0.2:
                entity["children"] = {"kids": self._child("kids", "", list(captures), 1)}
            else:
                self._body(entity, "things", list(captures), depth=0)
            self._rest(entity)
        return entity | self._options(keys)

    def _options(self, keys: list[Any]) -> dict[str, Any]:
        rnd, options = self.rnd, dict[str, Any]()
        if rnd.random() < 0.5:
            options["expires"] = rnd.choice(["column", "leave_in_kv", "ignore"])
        if not self.plain and rnd.random() < 0.6:
            options["decode"] = rnd.choice(["json", "double-json", "hash", "auto"])
        if rnd.random() < 0.4:
            options["on_nul"] = "escape"
        if len(keys) == 1 and rnd.random() < 0.7:
            options["source_key"] = "source_key"
        return options

    def _keys(self, *, rows_only: bool) -> tuple[list[Any], dict[str, str]]:
        rnd = self.rnd
        if not self.plain and rnd.random() < 0.15:
            return [{"hash": "registry", "field": "{id}"}], {"id": "text"}
        captures = {"id": rnd.choice(KEY_TYPES[:4] if self.plain else KEY_TYPES)}
        if rows_only:
            captures["id"] = "text"
        keys = ["thing:{id}"]
        if rnd.random() < 0.2:
            captures["part"] = rnd.choice(["text", "smallint"])
            keys = ["thing:{id}:{part}"]
        if rnd.random() < 0.4:
            keys += [each.replace("thing:", "old:{x=a|b}:") for each in keys]
        return keys, captures

    def _paths(self) -> list[str]:
        rnd = self.rnd
        return [self._path() for _ in range(rnd.choice([1, 1, 1, 2, 3]))]

    def _path(self) -> str:
        self.count += 1
        if self.plain and self.rnd.random() < 0.8:
            return f"m{self.count}"
        forms = (
            "m{}",
            "m{}",
            "m{}",
            "in.m{}",
            "in.er.m{}",
            "/$m{}",
            "/$",
            "a b.ü {}",
            "/sl~1ash{}/m",
            "$o.$m{}",
            "/ü~0{}",
        )
        form = self.rnd.choice(forms)
        return form.format(self.count) if form != "/$" else f"/$/{self.count}"

    def _column(self, table: str, name: str) -> dict[str, Any]:
        rnd = self.rnd
        kind, extra, canonical, other = rnd.choice(TYPES)
        column = {"type": kind, **extra}
        self.samples[table, name] = (canonical, other)
        policy = rnd.choice(["quarantine", "quarantine", "keep_raw", "null"])
        if policy == "quarantine" and rnd.random() < 0.15:
            column["required"] = True
        column["on_bad_value"] = policy
        if rnd.random() < 0.1:
            column["personal"] = True
        return column

    def _body(self, table: dict[str, Any], name: str, keys: list[str], *, depth: int) -> None:
        rnd = self.rnd
        for number in range(rnd.randint(0, 5)):
            column = self._column(name, f"c{number}")
            paths = self._paths()
            column["path"] = paths if len(paths) > 1 else paths[0]
            table.setdefault("columns", {})[f"c{number}"] = column
            canonical = self.samples[name, f"c{number}"][0]
            if (
                depth == 0
                and not self.plain
                and not column.get("required")
                and rnd.random() < 0.15
                and column["type"] != "numeric"
            ):
                column["default"] = json.loads(rnd.choice(canonical))
                column.pop("foreign_ids", None)
        if depth < 2:
            for number in range(rnd.choice([0, 0, 1, 2])):
                child = f"{name}_{number}"
                table.setdefault("children", {})[child] = self._child(child, self._path(), keys, depth + 1)

    def _child(self, name: str, each: str, parent_keys: list[str], depth: int) -> dict[str, Any]:
        rnd = self.rnd
        child: dict[str, Any] = {
            "each": each,
            "parent": {f"p_{key}": key for key in parent_keys},
            "on_bad_value": rnd.choice(["quarantine", "keep_raw", "null"]),
            "columns": {},
        }
        if rnd.random() < (0.0 if self.plain else 0.5):
            kind = rnd.choice(["text", "text", "integer", "uuid", "numeric(12,2)"])
            child["columns"]["place"] = {"map_key": True, "type": kind}
        else:
            child["columns"]["place"] = {"ordinal": True, "type": rnd.choice(["integer", "smallint", "bigint"])}
        keys = [*child["parent"], "place"]
        shape = rnd.random()
        if shape < 0.3:
            child["columns"]["value"] = self._column(name, "value") | {"value": True}
        elif shape < 0.4 and depth < 2:
            child["children"] = {f"{name}_in": self._child(f"{name}_in", "", keys, depth + 1)}
        else:
            self._body(child, name, keys, depth=depth)
        self._rest(child)
        return child

    def _rows_only_children(self, captures: list[str]) -> dict[str, Any]:
        if self.rnd.random() < 0.6:
            return {"kids": self._child("kids", "", captures, 1)}
        return {f"kids{n}": self._child(f"kids{n}", self._path(), captures, 1) for n in range(2)}

    def _rest(self, table: dict[str, Any]) -> None:
        table["rest"] = self.rnd.choice(["rest", "rest", "rest", "rest", "rest", "rest", "reject", "drop"])


def make_item(rnd: random.Random, plan: Plan) -> Item:
    """Return a random item of the mapping's entity: half of them nearly plain, the others hostile."""
    entity = plan.mapping.entities[0]
    key = make_key(rnd, entity)
    expires = rnd.choice([None, 1_700_000_000_123, 0, -5, 1 << 60]) if rnd.random() < 0.15 else None
    if rnd.random() < 0.06:
        return Item(key, rnd.choice(WHOLE), ItemKind.JSON, expires)
    if rnd.random() < 0.04:
        kind = rnd.choice([ItemKind.NULL, ItemKind.OTHER])
        return Item(key, "list" if kind is ItemKind.OTHER else None, kind, expires)
    blob = _Blob(rnd, plan, key, rnd.choice([0.0, 0.02, 0.3])).value(entity.root)
    if rnd.random() < (0.6 if entity.decode == "hash" else 0.1):
        return Item(key, _hash(rnd, blob), ItemKind.HASH, expires)
    text = dump(blob, rnd)
    if rnd.random() < (0.9 if entity.decode == "double-json" else 0.1):
        text = json.dumps(text, ensure_ascii=rnd.random() < 0.5)
    return Item(key, text.encode(), ItemKind.JSON, expires)


def make_key(rnd: random.Random, entity: Entity) -> str:
    """Return a key that fits one of the entity's templates, often in a spelling of its own."""
    template = rnd.choice(entity.keys)
    texts = ["7", "007", "-1", "1.5", "1.50", "1e3", UUID, UUID.upper(), "id-7", "ü␛", "2024-02-29", "²", "a b", "12"]
    by_type = {column.source: column.type.base for column in entity.root.columns if column.source}
    fitting = {
        "uuid": [UUID, UUID, UUID.upper(), "id-7"],
        "date": ["2024-02-29"],
        "text": ["7", "abc", "ü␛", "a.b"],
        "numeric": ["1.5", "1.50", "7", "1e3"],
    }
    captured = {}
    for capture in template.captures:
        choices = fitting.get(by_type.get(capture.name, ""), ["7", "7", "12", "007"])
        captured[capture.name] = rnd.choice(list(capture.choices) or (choices if rnd.random() < 0.9 else texts))
    return template.render(captured)


def _hash(rnd: random.Random, blob: Any) -> dict[bytes, bytes]:
    members = blob if isinstance(blob, dict) else {"m1": blob}
    fields = {}
    for name, member in members.items():
        text = dump(member, rnd)
        if text.startswith('"'):
            text = json.loads(text)
        fields[name.encode("utf-8", "replace")] = text.encode("utf-8", "replace")
    if rnd.random() < 0.05:
        fields[b"\xff"] = b"x"
    if rnd.random() < 0.1:
        fields[b"nul"] = b"a\0b"
    return fields


class _Blob:
    """Draws a blob after the mapping; *wild* is how often something else stands in a place."""

    def __init__(self, rnd: random.Random, plan: Plan, key: str, wild: float) -> None:
        self.rnd, self.plan, self.key, self.wild = rnd, plan, key, wild
        self.captured = next((found for each in plan.mapping.entities[0].keys if (found := each.match(key))), {})

    def value(self, table: Table) -> Any:
        """Return a value for a table: the blob, or an element."""
        rnd = self.rnd
        if rnd.random() < self.wild / 3:
            return Token(rnd.choice(HOSTILE))
        if any(column.paths == ((),) for column in table.columns):
            return self._member(table, next(column.name for column in table.columns if column.paths == ((),)))
        if table.children and table.children[0].each == ():
            return self._elements(table.children[0])
        out: dict[str, Any] = Twice() if rnd.random() < 0.05 else {}
        for column in table.columns:
            self._fill(table, column.name, column.paths, column.source, out)
        for child in table.children:
            if rnd.random() < 0.8:
                _put(out, child.each or (), self._elements(child))
        if rnd.random() < self.wild:
            name = rnd.choice(["x", "in", "$", "$$", "$m1", "ü", "a b", "", "m1", "␛", "o.p"])
            out[name] = Token(rnd.choice(HOSTILE))
        return out

    def _fill(self, table: Table, name: str, paths: tuple[Path, ...], source: str, out: dict[str, Any]) -> None:
        rnd = self.rnd
        chosen = [paths[0]] if paths and rnd.random() < 0.8 else []
        if len(paths) > 1 and rnd.random() < 0.3:
            chosen.append(rnd.choice(paths))
        for path in chosen:
            if source in self.captured and rnd.random() < 0.9:
                text = self.captured[source]
                number = Token(text) if text.isdecimal() and str(int(text)) == text else text
                _put(out, path, rnd.choice([text, number]))
            else:
                _put(out, path, self._member(table, name))

    def _member(self, table: Table, name: str) -> Any:
        rnd = self.rnd
        canonical, other = self.plan.samples.get((table.name, name), (['"x"', "1"], []))
        draw = rnd.random()
        if draw < self.wild:
            return Token(rnd.choice(HOSTILE))
        if draw < self.wild * 2 and other:
            return Token(rnd.choice(other))
        if draw < self.wild * 2.3:
            return Token("null")
        return Token(rnd.choice(canonical))

    def _elements(self, child: Table) -> Any:
        rnd = self.rnd
        if rnd.random() < self.wild / 2:
            return Token(rnd.choice(HOSTILE))
        count = rnd.choice([0, 1, 2, 3])
        if not child.is_map:
            return [self.value(child) for _ in range(count)]
        base = next(column.type.base for column in child.columns if column.role == "map_key")
        names = {
            "integer": ["1", "02", "-3", "4"],
            "uuid": [UUID, UUID.upper(), UUID.replace("6", "7")],
            "numeric": ["1.5", "2.50", "1e1"],
        }.get(base, ["a", "$", "ü", "", "a.b"])
        return {rnd.choice(names): self.value(child) for _ in range(count)}


def _put(out: dict[str, Any], path: Path, member: Any) -> None:
    for name in path[:-1]:
        inner = out.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        out = inner
    out[path[-1]] = member


def dump(value: Any, rnd: random.Random) -> str:
    """Return JSON text of a value with tokens, sometimes with white space and escapes."""
    space = rnd.choice(["", "", " ", "\n\t"])
    return _dump(value, space, ascii_only=rnd.random() < 0.3)


def _dump(value: Any, space: str, *, ascii_only: bool) -> str:
    if isinstance(value, Token):
        return value
    if isinstance(value, dict):
        members = [
            json.dumps(name, ensure_ascii=ascii_only) + space + ":" + _dump(each, space, ascii_only=ascii_only)
            for name, each in value.items()
        ]
        if isinstance(value, Twice) and value:
            members.insert(0, json.dumps(next(iter(value))) + ":[0]")
        return "{" + space + f",{space}".join(members) + space + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(_dump(each, space, ascii_only=ascii_only) for each in value) + space + "]"
    return json.dumps(value, ensure_ascii=ascii_only)
