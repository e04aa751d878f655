"""What is known of the commands of Redis: keys, fields, and what is planned for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis._parsers.encoders import Encoder

from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.commands import Commands
from kvmigrate.dualwrite.redis_commands import COMMANDS, Form, Kind, fields_changed
from kvmigrate.errors import CommandRefusedError
from kvmigrate.model import Stage
from kvmigrate.stores.client_encoder import ClientEncoder
from kvmigrate.stores.client_plan import runs_of
from kvmigrate.testing import MemoryMigration

MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: text}
    primary_key: [id]
  setting:
    keys: [{hash: settings, field: "{name}"}]
    table: settings
    columns:
      name: {key: name, type: text}
    primary_key: [name]
  left:
    keys: ["client:left:{id}"]
    table: lefts
    columns:
      id: {key: id, type: text}
    primary_key: [id]
"""

KEYS: list[tuple[str, str, str]] = [
    ("SET a v EX 10", "a", "a"),
    ("MSET a 1 b 2", "a b", "a b"),
    ("DEL a b c", "a b c", "a b c"),
    ("RENAME a b", "a b", "a b"),
    ("COPY a b REPLACE", "a b", "b"),
    ("BITOP AND d a b", "d a b", "d"),
    ("SUNIONSTORE d a b", "d a b", "d"),
    ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b", "d"),
    ("ZUNIONSTORE d x a b", "d", "d"),
    ("GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 km", "d a", "d"),
    ("GEORADIUS a 1 2 3 km STORE d", "a d", "d"),
    ("GEORADIUS a 1 2 3 km", "a", ""),
    ("SORT a BY x store d", "a d", "d"),
    ("LMPOP 2 a b LEFT", "a b", "a b"),
    ("EVAL text 2 a b c d", "a b", "a b"),
    ("EVAL text 0 c", "", ""),
    ("EVAL text 9 a", "a", "a"),
    ("BLPOP a b 5", "a b", "a b"),
    ("XREADGROUP GROUP g me COUNT 1 STREAMS a b > >", "a b", "a b"),
    ("JSON.MSET a $ 1 b $ 2", "a b", "a b"),
    ("MSETEX 2 a 1 b 2 EX 5", "a b", "a b"),
    ("XGROUP CREATE a g $", "a", "a"),
    ("OBJECT ENCODING a", "a", ""),
    ("MGET a b", "a b", ""),
    ("JSON.MGET a b $", "a b", ""),
    ("GET", "", ""),
    ("PING", "", ""),
]


@pytest.mark.parametrize(("command", "keys", "changed"), KEYS, ids=lambda text: text or "-")
def test_keys_are_found(command: str, keys: str, changed: str) -> None:
    """Those that a command names, and of them those that it changes."""
    args = command.split()
    known = COMMANDS[args[0]]

    assert keys.split() == [args[place] for place in known.key_places(args)]
    assert changed.split() == [args[place] for place in known.changed_places(args)]


FIELDS: list[tuple[str, str | None]] = [
    ("HSET h a 1 b 2", "a b"),
    ("HSETNX h a 1", "a"),
    ("HINCRBY h a 1", "a"),
    ("HDEL h a b", "a b"),
    ("HGETDEL h FIELDS 2 a b", "a b"),
    ("HGETEX h EX 10 FIELDS 1 a", "a"),
    ("HSETEX h FNX EX 10 FIELDS 2 a 1 b 2", "a b"),
    ("HEXPIRE h 10 NX fields 2 a b", "a b"),
    ("HPERSIST h FIELDS 1 a", "a"),
    ("DEL h", None),
    ("HPERSIST h", None),
]


@pytest.mark.parametrize(("command", "fields"), FIELDS)
def test_fields_are_found(command: str, fields: str | None) -> None:
    """Those that a command changes, as words or as bytes; none where it changes the hash whole."""
    args, wanted = command.split(), None if fields is None else fields.split()
    raw = [each.encode() for each in args]
    found = fields_changed(args[0], raw)

    assert wanted == (None if (plain := fields_changed(args[0], args)) is None else list(plain))
    assert wanted == (None if found is None else [each.decode() for each in found])


def test_every_write_says_what_it_changes() -> None:
    """A write changes a key that it names, or is refused, or stores by an option; no other command changes any."""
    for command in COMMANDS.values():
        changes = bool(command.changed) or command.name in {"SORT", "GEORADIUS", "GEORADIUSBYMEMBER", "XREADGROUP"}
        assert (command.kind is Kind.WRITE) == (changes or (not command.keys and command.form is Form.REFUSED))
        assert (command.form is Form.REFUSED) == bool(command.why)
        assert not (command.served and command.form is not Form.SCRIPT)


@pytest.fixture
def commands() -> Iterator[Commands]:
    """Over a store in memory."""
    with MemoryMigration(MAPPING, Stage.DUALWRITE) as shop:
        yield Commands(shop.lens, shop.store, CommandUse())


_Encoder: Any = Encoder
UTF8 = ClientEncoder(_Encoder("utf-8", "strict", decode_responses=False))

PLANS: list[tuple[tuple[Any, ...], list[str] | None]] = [
    (("SET", "client:1", "v"), ["client:1"]),
    (("set", "client:1", "v"), ["client:1"]),
    (("SET client:1", "v"), ["client:1"]),
    ((b"SET", b"client:1", "v"), ["client:1"]),
    (("SET", bytearray(b"client:1"), "v"), ["client:1"]),
    (("SET", memoryview(b"client:1"), "v"), ["client:1"]),
    (("SET", "client:\u00fc", "v"), ["client:\u00fc"]),
    (("SET", "client:\u00fc".encode(), "v"), ["client:\u00fc"]),
    (("SET", b"client:\xff", "v"), None),
    (("SET", "client:" + "x" * 2001, "v"), None),
    (("SET", "client:\0", "v"), None),
    (("SET", 5, "v"), None),
    (("SET", "other", "v"), None),
    (("RENAME", "other", "client:1"), ["client:1"]),
    (("RENAME", b"\xff", "client:1"), ["client:1"]),
    (("COPY", "client:1", "other"), []),
    (("HSET", "settings", "a", 1, b"b", 2), ["settings\u241fa", "settings\u241fb"]),
    (("EVAL", "client:1", 0), None),
    (("BRANDNEW", "x", 1, None), None),
    (("PUBLISH", "client:1", "x"), None),
    (("SET",), None),
]


@pytest.mark.parametrize(("args", "marks"), PLANS, ids=[str(number) for number in range(len(PLANS))])
def test_marks_are_planned(commands: Commands, args: tuple[Any, ...], marks: list[str] | None) -> None:
    """However a client writes its command; nothing is planned where no key is mapped."""
    plan = commands.plan(args, UTF8)

    assert marks == (None if plan is None else list(plan.marks))


@pytest.mark.parametrize(
    "args",
    [
        ("DEL", "settings"),
        ("EXPIRE", "settings", 5),
        ("RENAME", "other", "settings"),
        ("BRANDNEW", "x", b"client:1"),
        ("MIGRATE", "host", 1, "client:1", 0, 10),
        ("FLUSHALL",),
    ],
    ids=repr,
)
def test_what_cannot_be_marked_is_refused(commands: Commands, args: tuple[Any, ...]) -> None:
    """With the name of the command, and what it may not do."""
    with pytest.raises(CommandRefusedError, match=args[0]) as caught:
        commands.plan(args, UTF8)
    assert args[0] == caught.value.command


@pytest.mark.parametrize(
    ("kinds", "runs"),
    [
        ("", []),
        ("w", [(0, 1, 1)]),
        ("wwrwonw", [(0, 2, 2), (2, 3, 0), (3, 4, 1), (4, 6, 0), (6, 7, 1)]),
        ("oorr", [(0, 4, 0)]),
        ("w" * 120, [(0, 50, 50), (50, 100, 50), (100, 120, 20)]),
        ("o" * 120, [(0, 120, 0)]),
    ],
)
def test_a_pipeline_is_divided_into_runs(commands: Commands, kinds: str, runs: list[tuple[int, int, int]]) -> None:
    """Writes of mapped keys that follow each other go together, up to a number; the order stays."""
    of = {"w": ("SET", "client:1", "v"), "r": ("GET", "client:1"), "o": ("SET", "other", "v"), "n": ("PING",)}
    plans = [commands.plan(of[kind], UTF8, is_piped=True) for kind in kinds]

    assert runs == [(start, end, len(writes)) for start, end, writes in runs_of(plans)]


def test_only_what_will_not_work_is_counted() -> None:
    """Reads, too, by entity; other keys never."""
    use = CommandUse()
    with MemoryMigration(MAPPING, Stage.DUALWRITE) as shop:
        commands = Commands(shop.lens, shop.store, use)
        shop.store.put("client:1", {})
        for args in (
            ("SET", "client:1", "v"),
            ("GET", "client:1"),
            ("INCR", "client:1"),
            ("APPEND", "client:1", "x"),
            ("APPEND", "other", "x"),
            ("STRLEN", "client:1"),
            ("HSET", "settings", "a", "1"),
        ):
            commands.plan(args, UTF8)

    assert {("APPEND", "client"): 1, ("STRLEN", "client"): 1, ("HSET", "settings"): 1} == use.take()
    assert {} == use.take()
