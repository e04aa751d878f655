"""Rows corrupted by SQL, one class on each key: the sweep finds all of them and nothing else, and repair mends them.

Nothing of the product is imported: it is a program, and what it finds is compared with what was broken here.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import redis

MAPPING = """\
version: 1
name: stall
entities:
  thing:
    keys: ["thing:{id}"]
    table: things
    columns:
      id:      {key: id, type: text}
      a_text:  {path: text, type: text}
      a_bool:  {path: bool, type: boolean}
      a_small: {path: small, type: smallint}
      an_int:  {path: int, type: integer}
      a_big:   {path: big, type: bigint}
      a_price: {path: price, type: "numeric(12,2)"}
      a_share: {path: share, type: numeric}
      a_float: {path: float, type: double precision}
      a_uuid:  {path: uuid, type: uuid}
      a_date:  {path: date, type: date}
      a_clock: {path: clock, type: time}
      at:      {path: at, type: timestamptz}
      a_span:  {path: span, type: interval}
      a_hex:   {path: hex, type: bytea, format: hex}
      a_json:  {path: json, type: jsonb}
      a_list:  {path: list, type: "text[]"}
      a_kind:  {path: kind, type: enum, values: [plain, fancy]}
    primary_key: [id]
    children:
      parts:
        each: parts
        parent: {thing_id: id}
        columns:
          position: {ordinal: true}
          name:     {path: name, type: text}
          quantity: {path: quantity, type: integer}
      labels:
        each: labels
        parent: {thing_id: id}
        columns:
          language: {map_key: true, type: text}
          label:    {value: true, type: text}
"""
SEED = 20
SEEDS = int(os.environ.get("KVMIGRATE_CORRUPTION_SEEDS", "1"))
"""So many draws of 200 corruptions."""


class Fault(NamedTuple):
    """How an item is corrupted.

    Attributes:
        sql: Statements; ``%(id)s`` is the item's.

        causes: Any of these may be named for its key.
    """

    sql: tuple[str, ...]
    causes: frozenset[str]


def fault(causes: str, *statements: str) -> Fault:
    """A fault."""
    return Fault(statements, frozenset(causes.split()))


def column(causes: str, change: str) -> Fault:
    """A fault of one row of things."""
    return fault(causes, f"UPDATE things SET {change} WHERE id = %(id)s")  # noqa: S608 - a constant of this file


FAULTS = {
    "text": column("changed", "a_text = a_text || 'x'"),
    "text cut short": column("changed", "a_text = left(a_text, -2)"),
    "text in another case": column("changed", "a_text = upper(a_text)"),
    "boolean": column("changed", "a_bool = NOT a_bool"),
    "smallint": column("number", "a_small = a_small + 1"),
    "integer": column("number", "an_int = -an_int"),
    "bigint rounded as a float": column("number", "a_big = a_big::float8::bigint"),
    "a cent": column("number", "a_price = a_price + 0.01"),
    "numeric rounded as a float": column("number", "a_share = a_share::float8::numeric"),
    "double": column("number", "a_float = a_float::real"),
    "uuid": column("changed", "a_uuid = '00000000-0000-4000-8000-000000000000'"),
    "date": column("changed timezone", "a_date = a_date - 1"),
    "time": column("changed timezone", "a_clock = a_clock + interval '1 minute'"),
    "timezone": column("timezone", "at = at + interval '2 hours'"),
    "a microsecond": column("changed timezone", "at = at + interval '1 microsecond'"),
    "interval": column("changed", "a_span = a_span * 2"),
    "bytea": column("changed", "a_hex = a_hex || '\\x00'::bytea"),
    "jsonb": column("number changed", "a_json = jsonb_set(a_json, '{deep,n}', '2')"),
    "array in another order": column("order", "a_list = ARRAY[a_list[2], a_list[1]]"),
    "array cut": column("child_count", "a_list = a_list[1:1]"),
    "enum": column("changed", "a_kind = 'fancy'"),
    "NULL for a value": column("null_missing", "a_text = NULL"),
    "empty for a value": column("null_missing", "a_text = ''"),
    "null for missing": column("null_missing extra_field", """rest = rest || '{"more": null}'"""),
    "a member of rest": column("changed", "rest = jsonb_set(rest, '{other}', '\"changed\"')"),
    "a member of rest lost": column("null_missing", "rest = rest - 'other'"),
    "a value moved into rest": column("moved", "rest = rest || jsonb_build_object('text', a_text), a_text = NULL"),
    "the row deleted": fault("missing_row", "DELETE FROM things WHERE id = %(id)s"),
    "the row moved to another key": fault(
        "missing_row extra_row",
        "SET session_replication_role = replica",
        "UPDATE parts SET thing_id = thing_id || '-moved' WHERE thing_id = %(id)s",
        "UPDATE labels SET thing_id = thing_id || '-moved' WHERE thing_id = %(id)s",
        "UPDATE things SET id = id || '-moved' WHERE id = %(id)s",
        "SET session_replication_role = DEFAULT",
    ),
    "children swapped": fault(
        "order",
        "UPDATE parts SET position = position + 10 WHERE thing_id = %(id)s",
        "UPDATE parts SET position = 11 - position WHERE thing_id = %(id)s",
    ),
    "a child missing": fault("child_count", "DELETE FROM parts WHERE thing_id = %(id)s AND position = 1"),
    "a child doubled": fault(
        "child_count",
        "INSERT INTO parts (thing_id, position, name, quantity)"
        " SELECT thing_id, 2, name, quantity FROM parts WHERE thing_id = %(id)s AND position = 1",
    ),
    "a child's value": fault("number", "UPDATE parts SET quantity = 99 WHERE thing_id = %(id)s AND position = 0"),
    "a label under another name": fault(
        "missing_row moved changed child_count",
        "UPDATE labels SET language = 'xx' WHERE thing_id = %(id)s AND language = 'en'",
    ),
    "the ledger forgot it": fault("missing_row", "DELETE FROM kvmigrate.ledger WHERE key = 'thing:' || %(id)s"),
    "the ledger calls it deleted": fault(
        "missing_row", "UPDATE kvmigrate.ledger SET deleted = true WHERE key = 'thing:' || %(id)s"
    ),
    "the ledger has it as another entity": fault(
        "moved", "UPDATE kvmigrate.ledger SET entity = entity + 1000 WHERE key = 'thing:' || %(id)s"
    ),
}
"""By what is wrong. Those that concern keys of no item of the store are made apart."""

COMPARED = frozenset(
    {
        "the row deleted",
        "the row moved to another key",
        "the ledger forgot it",
        "the ledger calls it deleted",
        "the ledger has it as another entity",
    }
)
"""Those that a backfill finds and mends: it compares content hashes in the ledger, and looks for items without rows."""

WRITER = """
import itertools, json, random, sys
from kvmigrate import Migration

first = json.loads(sys.argv[1])
with Migration.open() as migration:
    for round in itertools.count():
        for number in range(40):
            key = f"thing:written-{number}"
            if round % 5 == 4 and number % 8 == 0:
                migration.store.delete(key)
            else:
                parts = first["parts"] * random.randrange(3)
                migration.store.put(key, {**first, "text": f"round {round}", "parts": parts})
        print(round, flush=True)
"""
"""An application that goes on writing keys of its own."""


def thing(number: int) -> dict[str, Any]:
    """An item that has a value in every column, and more."""
    return {
        "text": f"thing number {number}",
        "bool": number % 2 == 0,
        "small": number % 100,
        "int": number + 1,
        "big": 9_007_199_254_740_993 + 2 * number,
        "price": f"{number}.25",
        "share": "0.12345678901234567890",
        "float": 0.1 + number,
        "uuid": f"12345678-1234-4234-8234-{number:012d}",
        "date": "2026-02-28",
        "clock": "10:20:30",
        "at": "2026-03-04T05:06:07.123456Z",
        "span": "PT1H",
        "hex": "c0ffee",
        "json": {"deep": {"n": 1}},
        "list": ["one", "two"],
        "kind": "plain",
        "parts": [{"name": "bolt", "quantity": 4}, {"name": "nut", "quantity": 8}],
        "labels": {"de": "Ding", "en": "thing"},
        "other": "kept in rest",
    }


class Stall:
    """A store, its tables, and the program."""

    def __init__(self, folder: Path, source: str, target: str) -> None:
        self.folder, self.sides = folder, ["--source", source, "--target", target]
        (folder / "mapping.yaml").write_text(MAPPING)
        self.store = redis.Redis.from_url(source)
        self.pg = psycopg.connect(target, autocommit=True)

    def close(self) -> None:
        """Close both sides."""
        self.store.close()
        self.pg.close()

    def fill(self, things: int) -> None:
        """Put so many things into the store, and bring them into the tables."""
        self.store.mset({f"thing:{number}": json.dumps(thing(number)) for number in range(things)})
        code, _ = self.run("backfill")
        assert 0 == code

    def run(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run a command; return how it ends and its object."""
        program = Path(sys.executable).with_name("kvmigrate")
        done = subprocess.run(
            [program, *words, *self.sides, "--json"],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("KVMIGRATE_")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    @contextmanager
    def written(self) -> Iterator[subprocess.Popen[str]]:
        """Have an application write other keys all along, and a relay beside it; yield the application."""
        _, source, _, target = self.sides
        environment = {**os.environ, "KVMIGRATE_SOURCE": source, "KVMIGRATE_TARGET": target}
        environment["KVMIGRATE_MAPPING"] = str(self.folder / "mapping.yaml")
        programs = [
            [str(Path(sys.executable).with_name("kvmigrate")), "relay"],
            [sys.executable, "-c", WRITER, json.dumps(thing(7))],
        ]
        with ExitStack() as stack:
            log = stack.enter_context((self.folder / "programs.log").open("wb"))
            for command in programs:
                program = subprocess.Popen(
                    command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
                )
                stack.enter_context(program)
                stack.callback(program.kill)
            yield program

    def corrupt(self, what: Fault, number: str) -> None:
        """Corrupt one thing; every statement must have changed something."""
        for statement in what.sql:
            text = statement.replace("%(id)s", "'" + number + "'")
            assert self.pg.execute(text.encode()).rowcount, text


@pytest.fixture
def stall(tmp_path: Path, redis_url: str, database: str) -> Iterator[Stall]:
    """An empty stall."""
    made = Stall(tmp_path, redis_url, database)
    yield made
    made.close()


def causes_of(stall: Stall, found: dict[str, Any]) -> dict[str, set[str]]:
    """Return what a report names by key; every divergent key must be among its examples, or be asked for."""
    _, repair = stall.run("repair", "--all", "--dry-run")
    assert found["missing"] + found["extra"] + found["different"] == repair["would_repair"] + repair["without_key"]
    return {each["key"]: set(each["causes"]) for each in repair["items"]}


def test_every_class_of_corruption_is_found_and_nothing_else(stall: Stall) -> None:
    """Each on a key of its own among others that are whole; then all are repaired."""
    names = list(FAULTS)
    stall.fill(len(names) * 2)
    chance = random.Random(SEED)
    victims = chance.sample(range(len(names) * 2), len(names))
    assert 0 == stall.run("verify")[0]

    for name, number in zip(names, victims, strict=True):
        stall.corrupt(FAULTS[name], str(number))

    code, found = stall.run("verify")
    assert 5 == code
    causes = causes_of(stall, found)
    broken = {f"thing:{number}": name for name, number in zip(names, victims, strict=True)}
    moved = f"thing:{victims[names.index('the row moved to another key')]}"
    assert set(broken) | {f"{moved}-moved"} == set(causes)
    named = {name: causes[key] for key, name in broken.items()}
    assert {} == {name: each for name, each in named.items() if not each or not each <= FAULTS[name].causes}

    # A sample of all keys finds whatever has a key on either side; the moved row's new key has none.
    code, sampled = stall.run("sample")
    assert (5, len(names)) == (code, sampled["divergent"])

    code, repaired = stall.run("repair", "--all", "--yes")
    assert (0, len(causes)) == (code, repaired["repaired"]), repaired
    code, whole = stall.run("verify")
    assert (0, len(names) * 2) == (code, whole["matched"])


def test_what_a_backfill_compares(stall: Stall) -> None:
    """It mends these classes, and leaves all others to the sweep."""
    stall.fill(len(FAULTS))
    assert 0 == stall.run("stage", "advance")[0]
    assert 0 == stall.run("backfill")[0]
    for number, name in enumerate(FAULTS):
        stall.corrupt(FAULTS[name], str(number))

    stall.run("backfill")

    left = causes_of(stall, stall.run("verify")[1]).keys()
    assert set(FAULTS) - COMPARED == {name for number, name in enumerate(FAULTS) if f"thing:{number}" in left}


def test_rows_of_no_item_are_found(stall: Stall) -> None:
    """One brought back after its item was deleted, one of nobody, and children without a parent row."""
    stall.fill(6)
    kept = stall.pg.execute("SELECT t::text FROM things AS t WHERE id = '1'").fetchall()
    stall.store.delete("thing:1")
    assert 0 == stall.run("backfill", "--accept-deletes")[0]
    assert (0, 0) == (stall.run("verify")[0], stall.pg.execute("SELECT FROM things WHERE id = '1'").rowcount)

    stall.pg.execute(b"INSERT INTO things SELECT (%s::things).*", kept[0])
    stall.pg.execute(b"INSERT INTO things (id, a_text) VALUES ('nobody', 'x')")
    stall.pg.execute(b"SET session_replication_role = replica")
    stall.pg.execute(b"INSERT INTO parts (thing_id, position, name) VALUES ('orphan', 0, 'x')")
    stall.pg.execute(b"SET session_replication_role = DEFAULT")

    code, found = stall.run("verify")
    assert (5, 3, {"extra_row": 3}) == (code, found["extra"], found["causes"])
    assert {"thing:1", "thing:nobody", ""} == {each["key"] for each in found["examples"]}
    # A sample draws keys of items; none of these is one.
    assert 0 == stall.run("sample")[0]
    code, repaired = stall.run("repair", "--all", "--yes")
    assert (5, 2, 1) == (code, repaired["repaired"], repaired["without_key"])
    assert ["parts"] == [each["table"] for each in stall.run("verify")[1]["examples"]]


def test_a_child_of_another_parent(stall: Stall) -> None:
    """Both parents are named: one has a child less, one a child more."""
    stall.fill(4)
    stall.pg.execute("UPDATE parts SET thing_id = '2', position = 2 WHERE thing_id = '1' AND position = 1")

    code, found = stall.run("verify")

    assert (5, {"child_count": 2}) == (code, found["causes"])
    assert {"thing:1", "thing:2"} == {each["key"] for each in found["examples"]}


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
def test_two_hundred_corruptions_drawn_by_chance(stall: Stall, seed: int) -> None:
    """All 200 are found, and nothing else, while an application writes; so is what was written past kvmigrate."""
    stall.fill(301)
    assert 0 == stall.run("stage", "advance")[0]
    stall.store.set("thing:300", json.dumps({**thing(300), "text": "written by somebody else"}))
    chance = random.Random(seed)
    simple = [name for name in FAULTS if name != "the row moved to another key"]
    victims: Sequence[int] = chance.sample(range(300), 200)
    broken = {f"thing:{number}" for number in (*victims, 300)}

    with stall.written() as writer:
        assert writer.stdout is not None
        assert "0\n" == writer.stdout.readline()
        for number in victims:
            stall.corrupt(FAULTS[chance.choice(simple)], str(number))
        code, found = stall.run("verify", "--show-values")
        assert (5, 201) == (code, found["missing"] + found["extra"] + found["different"]), found["examples"]
        assert found["matched"] >= 100
        evidence = stall.run("sample")[1]
        assert 201 == evidence["divergent"], evidence["examples"]
        [(keys,)] = stall.pg.execute(
            "SELECT facts -> 'keys' FROM kvmigrate.evidence WHERE kind = 'sample' ORDER BY id DESC LIMIT 1"
        ).fetchall()
        assert broken == set(keys)
        assert ["stale"] == keys["thing:300"]
        assert writer.poll() is None


def test_a_type_that_is_wrong_in_every_row_is_found(stall: Stall) -> None:
    """As if it were written and read wrong alike: nothing within the tables, nor their way back, could tell."""
    stall.fill(5)
    stall.pg.execute(b"UPDATE things SET a_price = -a_price, at = at + interval '1 hour'")

    code, found = stall.run("verify")

    assert (5, 5, {"number": 5, "timezone": 5}) == (code, found["different"], found["causes"])
