"""The compiled quick way: what it takes for equal, and that no bytes whatever bring it down."""

import contextlib
import gc
import json
import random
import time
import tracemalloc
import uuid
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from kvmigrate.consistency.compare import Outcome, compare_item
from kvmigrate.consistency.compiled import native
from kvmigrate.consistency.decode import Decoded, decode_item
from kvmigrate.consistency.expect import ExpectedRow, expected_rows
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.quick import Candidates
from kvmigrate.consistency.quick_plan import QuickEntity, quick_entity
from kvmigrate.consistency.walked import Walk, walk_of
from kvmigrate.model import Item
from kvmigrate.transform.declaration.mapping_file import load_mapping
from tests.packed_rows import packed_rows

pytestmark = pytest.mark.skipif(native is None, reason="no compiled quick way")

ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
MAPPING = """
version: 1
name: walked
entities:
  thing:
    keys: ["thing:{id}:{seq}"]
    table: things
    columns:
      id:     {key: id, path: id, type: uuid}
      seq:    {key: seq, path: seq, type: integer}
      name:   {path: name, type: text}
      kind:   {path: kind, type: enum, values: [a, b]}
      flag:   {path: flag, type: boolean}
      big:    {path: in.big, type: bigint}
      price:  {path: in.price, type: numeric}
      ratio:  {path: ratio, type: double precision}
      share:  {path: share, type: real}
      day:    {path: day, type: date}
      clock:  {path: clock, type: time}
      at:     {path: at, type: timestamptz}
      epoch:  {path: epoch, type: timestamptz, format: epoch_ms}
      span:   {path: span, type: interval}
      raw:    {path: raw, type: bytea}
      hex:    {path: hex, type: bytea, format: hex}
      data:   {path: data, type: jsonb}
      tags:   {path: tags, type: "text[]"}
      counts: {path: counts, type: "numeric[]"}
    primary_key: [id, seq]
    children:
      lines:
        each: lines
        parent: {thing_id: id, thing_no: seq}
        columns: {position: {ordinal: true}, sku: {path: sku, type: text}}
        children:
          notes:
            each: notes
            parent: {thing_id: thing_id, thing_no: thing_no, line: position}
            columns: {place: {ordinal: true}, note: {value: true, type: text}}
      facts:
        each: in.facts
        parent: {thing_id: id, thing_no: seq}
        columns: {name: {map_key: true}, fact: {value: true, type: numeric}}
"""
KEY = f"thing:{ID}:7"
THING: dict[str, Any] = {
    "id": ID,
    "seq": 7,
    "name": 'é"\n',
    "kind": "a",
    "flag": True,
    "in": {"big": -(2**63), "price": 1234567.25, "facts": {"b": 1.5, "a": 0.00001}},
    "ratio": 0.1,
    "share": 16777216.0,
    "day": "2024-02-29",
    "clock": "10:30:00.000100",
    "at": "2024-06-01T12:00:00.000Z",
    "epoch": -1,
    "span": "-P1DT2H0.5S",
    "raw": "aGk=",
    "hex": "00ff",
    "data": {"a": [1, None, True, {}, []], "bb": {"c": "\t", "d": -2.50}, "e": []},
    "tags": ["x", None, ""],
    "counts": [1, None, 10000.0],
    "lines": [{"sku": "s", "notes": ["n0", "n1"]}, {"sku": "t"}, {"notes": ["n2"]}],
}


class Made(NamedTuple):
    """An item with its rows, prepared."""

    plan: EntityPlan
    quick: QuickEntity
    walk: Walk
    rows: dict[str, list[Any]]
    packed: dict[str, bytes]

    def agrees(self, value: bytes, packed: dict[str, bytes] | None = None) -> bool:
        """Return what the compiled way makes of other bytes."""
        candidates = Candidates([Item(KEY, value)], [self.plan.captured(KEY)])
        return self.walk.agreeing(candidates, packed or self.packed)[0]

    def is_equal(self, value: bytes) -> bool:
        """Return what the long way makes of them."""
        return compare_item(self.plan, Item(KEY, value), self.rows).outcome is Outcome.MATCH


@pytest.fixture(scope="module")
def made() -> Made:
    """The thing, and the rows that it should have."""
    plan = EntityPlan(load_mapping(MAPPING).entity("thing"))
    quick = quick_entity(plan)
    assert quick is not None
    walk = walk_of(quick)
    assert walk is not None
    decoded = decode_item(plan.entity, Item(KEY, TEXT))
    assert isinstance(decoded, Decoded)
    rows: dict[str, list[Any]] = {}

    def add(row: ExpectedRow) -> None:
        rows.setdefault(row.plan.name, []).append(row.values)
        for children in row.children:
            for child in children:
                add(child)

    add(expected_rows(plan, KEY, plan.captured(KEY), decoded).root)
    packed = packed_rows(walk, quick.root, plan.entity.root.primary_key, rows)
    return Made(plan, quick, walk, rows, packed)


def spelt(value: Any) -> bytes:
    """Return JSON text, without the exponent that Python would give a small number."""
    return json.dumps(value, ensure_ascii=False).replace("1e-05", "0.00001").encode()


TEXT = spelt(THING)


def changed(**members: Any) -> bytes:
    """Return the thing's text with other members."""
    return spelt({name: value for name, value in {**THING, **members}.items() if value is not ...})


def test_a_plain_item_agrees(made: Made) -> None:
    """Of a column of every type, with children of children and of a map."""
    assert made.is_equal(TEXT)
    assert made.agrees(TEXT)


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("é".encode(), b"\\u00e9"),
        TEXT.replace(b", ", b" ,\n"),
        b"\t\r\n " + TEXT + b" \n",
        spelt(dict(reversed(THING.items()))),
        TEXT.replace(b'"x"', b'"\\u0078"'),
        TEXT.replace(b"1234567.25", b"1234567.2500"),
        TEXT.replace(b'"d": -2.5', b'"d": -2.500').replace(b"[1, null", b"[1.0, null"),
        changed(data=dict(reversed(THING["data"].items()))),
        changed(**{"in": {**THING["in"], "facts": {"a": 0.00001, "b": 1.5}}}),
    ],
)
def test_what_is_the_same_spelled_otherwise_agrees(made: Made, text: bytes) -> None:
    """Spaces, escapes, members in another order, zeros behind a fraction."""
    assert made.is_equal(text)
    assert made.agrees(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"null",
        TEXT[:-1],
        TEXT + b"}",
        TEXT + b"\0",
        b"\xef\xbb\xbf" + TEXT,
        TEXT[:-1] + b', "id": "' + ID.encode() + b'"}',
        TEXT[:-1] + b', "name": null}',
        TEXT[:-1] + b', "more": 1}',
        TEXT[:-1] + b",}",
        TEXT.replace(b'"a": [1', b'"a": 1, "a": [1'),
        TEXT.replace(b'"b": 1.5', b'"b": 1.5, "b": 1.5'),
        TEXT.replace(b'"sku": "s"', b'"sku": "s", "sku": "s"'),
        TEXT.replace(b"\xc3\xa9", b"\xc3"),
        TEXT.replace(b"\xc3\xa9", b"\xed\xa0\x80"),
        TEXT.replace(b"\\n", b"\n"),
        TEXT.replace(b'"seq": 7', b'"seq": "7"'),
        TEXT.replace(b'"seq": 7', b'"seq": 7.0'),
        TEXT.replace(b"-9223372036854775808", b"9223372036854775808"),
        TEXT.replace(b"true, {}", b"1, {}"),
        TEXT.replace(b"[1, null", b"[true, null"),
        changed(id=...),
        changed(seq=...),
        changed(name=None),
        changed(name=...),
        changed(day="2023-02-29"),
        changed(at="2024-06-01T12:00:00.000000Z"),
        changed(at="2024-06-01T24:00:00.000Z"),
        changed(epoch=-1.0),
        changed(epoch=10**30),
        changed(span="-P1DT2H0.50S"),
        changed(hex="00FF"),
        changed(raw="aGk"),
        changed(tags=["x", None]),
        changed(tags=["x", None, "", None]),
        changed(tags=[]),
        changed(data=None),
        changed(lines=[]),
        changed(lines=THING["lines"][:2]),
        changed(lines=[*THING["lines"], {}]),
        changed(lines=THING["lines"][::-1]),
        changed(**{"in": {**THING["in"], "facts": {"b": 1.5}}}),
        changed(**{"in": {}}),
        changed(data=json.loads("[" * 500 + "]" * 500)),
        b'{"data":' + b"[" * 100_000,
        b'{"name":"' + b"x" * 10_000_000,
    ],
)
def test_what_is_not_surely_the_same_does_not_agree(made: Made, text: bytes) -> None:
    """Be it none of JSON, too deep, or a value that another column would hold."""
    assert not made.agrees(text)


def test_no_byte_of_an_item_changes_unseen(made: Made) -> None:
    """Whatever is put in place of any one, or left out: where it still agrees the long way finds a match."""
    taken = 0
    for place in range(len(TEXT)):
        for byte in b'\0"\\{}[,:019.-e \x80\xc3':
            for text in (TEXT[:place] + bytes([byte]) + TEXT[place + 1 :], TEXT[:place] + bytes([byte]) + TEXT[place:]):
                if made.agrees(text):
                    taken += 1
                    assert made.is_equal(text), text
        assert not made.agrees(TEXT[:place])
    assert taken > 100


def test_no_bytes_of_rows_bring_it_down(made: Made) -> None:
    """Any one changed, and any end cut off: they are no records, or tell something."""
    told = set()
    for name, blob in made.packed.items():
        for place in range(len(blob)):
            for byte in (0, 1, 0x7F, 0x80, 0xFF, blob[place] ^ 1):
                with contextlib.suppress(ValueError):
                    told.add(made.agrees(TEXT, {**made.packed, name: blob[:place] + bytes([byte]) + blob[place + 1 :]}))
            with contextlib.suppress(ValueError):
                told.add(made.agrees(TEXT, {**made.packed, name: blob[:place]}))
    assert {True, False} == told


def test_rows_in_any_order_are_found(made: Made) -> None:
    """PostgreSQL is not asked for an order; what is too many, or of nobody, is seen."""
    whole = made.packed["notes"]
    size = len(whole) // 3
    notes = [whole[:size], whole[size : 2 * size], whole[2 * size :]]
    assert made.agrees(TEXT, {**made.packed, "notes": notes[2] + notes[1] + notes[0]})
    assert not made.agrees(TEXT, {**made.packed, "notes": notes[2] + notes[1]})
    assert not made.agrees(TEXT, {**made.packed, "notes": notes[2] + notes[1] + notes[0] + notes[0]})
    assert not made.agrees(TEXT, {**made.packed, "things": made.packed["things"] * 2})


def test_items_of_a_page_are_told_apart(made: Made) -> None:
    """Each has the rows with its own key."""
    other = KEY[:-1] + "8"
    items = [Item(other, TEXT.replace(b'"seq": 7', b'"seq": 8')), Item(KEY, TEXT), Item("thing:x:y", TEXT)]
    candidates = Candidates(items, [made.plan.captured(KEY[:-1] + "8"), made.plan.captured(KEY), {}])
    assert [False, True, False] == made.walk.agreeing(candidates, made.packed)


def test_memory_is_given_back(made: Made) -> None:
    """Of programs and pages, also where they are refused."""

    def once() -> None:
        walk = walk_of(made.quick)
        assert walk is not None
        assert not made._replace(walk=walk).agrees(TEXT.replace(b"true, {}", b"false, {}"))
        assert made._replace(walk=walk).agrees(TEXT)
        with pytest.raises(ValueError, match="records"):
            made.agrees(TEXT, {**made.packed, "notes": b"x"})

    once()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            once()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000


def test_no_program_is_trusted(made: Made) -> None:
    """A number that is wrong is refused, or does no harm."""
    assert native is not None
    recorder: Any = SimpleNamespace(Program=lambda *spec: spec)
    spec = Walk(recorder, made.quick)._program
    pick, refused = random.Random(5), 0
    candidates = [Item(KEY, TEXT)], [dict(made.plan.captured(KEY))]
    blobs = tuple(made.packed[name] for name in made.walk.names)
    for _ in range(3000):
        try:
            native.Program(*_with_another_number(pick, spec)).agreeing(*candidates, blobs)
        except (ValueError, TypeError, OverflowError):
            refused += 1
    assert refused > 500


def _with_another_number(pick: random.Random, value: Any) -> Any:
    if isinstance(value, tuple) and value:
        place = pick.randrange(len(value))
        return (*value[:place], _with_another_number(pick, value[place]), *value[place + 1 :])
    return pick.choice([-1, 0, 1, 2, 3, 5, 8, 100, 2**31, (), b"x", None])


def test_names_that_come_twice_need_rows_that_are_told_apart_by_them() -> None:
    """Of a name that comes twice the last value counts: where two rows may have it, nothing is walked."""
    key = "        primary_key: [thing_id, thing_no, fact]\n"
    quick = quick_entity(EntityPlan(load_mapping(MAPPING + key).entity("thing")))
    assert quick is not None
    assert walk_of(quick) is None


def test_looking_for_members_in_another_order_has_an_end(made: Made) -> None:
    """A document of so many members goes the long way; one of a few is found whatever their order."""
    for count, agrees in ((200, True), (4_000, False)):
        names = [f"m{number:05}" for number in range(count)]
        data = dict.fromkeys(names, 1)
        rows = {**made.rows, "things": [list(made.rows["things"][0])]}
        place = next(each.index for each in made.plan.root.columns if each.name == "data")
        rows["things"][0][place] = data
        packed = packed_rows(made.walk, made.quick.root, made.plan.entity.root.primary_key, rows)
        text = spelt({**THING, "data": dict.fromkeys(reversed(names), 1)})
        begun = time.process_time()
        assert agrees == made.agrees(text, packed)
        assert time.process_time() - begun < 1


def test_rows_of_nobody_on_the_page_are_no_agreement(made: Made) -> None:
    """The server found them for these keys, so it takes keys for equal that are not the same."""
    other = made.packed["lines"].replace(uuid.UUID(ID).bytes, uuid.UUID(int=1).bytes)
    assert not made.agrees(TEXT, {**made.packed, "lines": made.packed["lines"] + other})
