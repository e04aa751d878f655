"""The compiled emitter against generated Python: the same bytes, or the item is not the emitter's."""

import json
import pathlib
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.shop import Shop
from bench.workload import Workload
from kvmigrate.demo.celebration import generate, mapping_path
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, PageRows, compile_mapping, emitted
from kvmigrate.transform.mapping import Mapping
from tests.copy_format import read_rows
from tests.emitted_items import agrees, emit, emit_page, plain, without_emitter
from tests.need import need
from tests.strategies_mapping import make_item, make_plan
from tests.unit.test_laws import law, seeds
from tests.unit.test_shared_data import COLLECTIONS, Collection
from tests.unit.test_shared_data import MAPPING as COLLECTIONS_MAPPING
from tests.unit.test_shared_data import _items as collection_items

BENCH = load_mapping(pathlib.Path(__file__).parents[2] / "bench" / "mapping.yaml")
NO_KEYS = (0, False, False)
ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"

MANY = """
version: 1
name: many
entities:
  thing:
    keys: ["t:{id}", "old:{x=a}:{id}"]
    table: things
    expires: column
    columns:
      id: {key: id, type: integer, path: id}
      text: {path: te, type: text}
      flag: {path: f, type: boolean}
      small: {path: s, type: smallint}
      big: {path: b, type: bigint}
      money: {path: m, type: "numeric(12,2)"}
      wide: {path: w, type: numeric}
      share: {path: sh, type: "numeric(3,3)"}
      single: {path: r, type: real}
      double: {path: d, type: double precision}
      ref: {path: u, type: uuid}
      day: {path: da, type: date}
      clock: {path: c, type: time}
      at: {path: at, type: timestamptz}
      seconds: {path: es, type: timestamptz, format: epoch_s}
      millis: {path: em, type: timestamptz, format: [epoch_ms, iso]}
      raw: {path: by, type: bytea}
      hex: {path: he, type: bytea, format: hex}
      json: {path: j, type: jsonb}
      kind: {path: k, type: enum, values: [a, "b c", ü]}
      texts: {path: ta, type: "text[]"}
      ints: {path: ia, type: "integer[]"}
      amounts: {path: na, type: "numeric(6,2)[]"}
      flags: {path: ba, type: "boolean[]"}
      times: {path: ea, type: "timestamptz[]", format: epoch_s}
      inner: {path: o.x, type: integer}
      deep: {path: "o.y.größe", type: text}
    source_key: source_key
    children:
      kids:
        each: kids
        parent: {thing_id: id, text: text}
        columns:
          position: {ordinal: true}
          name: {path: n, type: text}
        primary_key: [thing_id, text, position]
        children:
          toys:
            each: toys
            parent: {thing_id: thing_id, text: text, position: position}
            columns:
              number: {ordinal: true, type: smallint}
              toy: {value: true, type: text}
"""


KEYS = """
version: 1
name: keys
entities:
  one:
    keys: ["one:{id}"]
    table: ones
    columns: {id: {key: id, type: text}}
  number:
    keys: ["n:{id=int}:{part}", "n:{id=int}:x:{part}"]
    table: numbers
    columns: {id: {key: id, type: bigint}, part: {key: part, type: text}}
    primary_key: [id, part]
  ref:
    keys: ["r:{id=uuid}:end"]
    table: refs
    columns: {id: {key: id, type: uuid}}
  choice:
    keys: ["c:{kind=a|b}:{id}"]
    table: choices
    columns: {kind: {key: kind, type: text}, id: {key: id, type: text}}
    primary_key: [kind, id]
  wild:
    keys: ["w:{id*}"]
    table: wilds
    columns: {id: {key: id, type: text}}
  joint:
    keys: ["j:a-{id}"]
    table: joints
    columns: {id: {key: id, type: text}}
leave_in_kv:
  - {key: "one:skip:{x}", reason: test}
  - {key: "single", reason: test}
  - {key: "{x}:x:{y}:end", reason: test}
  - {key: "jo{x*}", reason: test}
"""


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """Everything here needs the compiled module."""
    if emitted.native is None:
        need("the compiled emitter; `make setup` builds it where there is a C compiler")


@pytest.fixture(scope="module")
def many() -> Lens:
    """A mapping with every type that the emitter knows."""
    return compile_mapping(load_mapping(MANY))


@law
@given(seeds)
def test_what_is_emitted_is_what_python_makes(seed: int) -> None:
    """Over random mappings and hostile items, the emitter's bytes are those of the generated function."""
    rnd = random.Random(seed)
    plan = make_plan(rnd)
    lens = compile_mapping(plan.mapping)
    for _ in range(8):
        agrees(lens, make_item(rnd, plan))


@law
@given(seeds)
def test_pages_are_the_same_with_and_without(seed: int) -> None:
    """A page of any mix says the same of every item, whether or not there is an emitter."""
    rnd = random.Random(seed)
    plan = make_plan(rnd)
    items = [make_item(rnd, plan) for _ in range(12)] + [Item("nobody:1", b"{}"), Item("t\ud800", b"{}")]
    found, expected = (lens.page(items) for lens in (compile_mapping(plan.mapping), without_emitter(plan.mapping)))

    assert _in_order(expected, plan.mapping) == _in_order(found, plan.mapping)


def _in_order(page: PageRows, mapping: Mapping) -> object:
    """A page with its items in order: the emitter's come first in it."""
    tables = {table.name: table for _, table in mapping.tables()}
    rows = {name: sorted(read_rows(data, tables[name]), key=lambda row: row[0]) for name, data in page.tables.items()}
    sizes = {name: len(data) for name, data in page.tables.items()}
    return (
        *(repr(rows[name]) for name in sorted(rows)),
        *(sizes, page.row_counts, page.rest_bytes, page.normalised, sorted(page.accepted)),
        *(sorted(page.refused, key=repr), sorted(page.left), page.unmatched),
    )


def test_most_plain_items_are_emitted() -> None:
    """The agreement is not an empty one: of random plain items the emitter takes most, of many mappings."""
    took = is_plain = mappings = 0
    for seed in range(400):
        rnd = random.Random(seed)
        plan = make_plan(rnd)
        lens = compile_mapping(plan.mapping)
        before = took
        for _ in range(6):
            item = make_item(rnd, plan)
            if plain(lens, item) is not None:
                is_plain += 1
                took += agrees(lens, item)
        mappings += took > before

    assert mappings > 25
    assert took > 0.6 * is_plain > 60


def test_all_items_of_a_shop_are_emitted() -> None:
    """Every usual item of the benchmark's mapping is the emitter's, with the bytes of generated Python."""
    lens = compile_mapping(BENCH)
    items = list(Shop(300, 300).items())

    assert all(agrees(lens, item) for item in items)
    assert without_emitter(BENCH).page(items) == lens.page(items)


def test_most_items_of_a_wild_shop_are_emitted() -> None:
    """Unmapped members and nulls are the emitter's, too, and a page says the same of all items as without it."""
    lens = compile_mapping(BENCH)
    work = Workload(0.002, "wild")
    items = [Item(key, value) for page in work.pages() for key, value, _ in work.page(*page)]
    taken = sum(agrees(lens, item) for item in items)

    assert 0.75 * len(items) < taken < len(items)
    assert _in_order(without_emitter(BENCH).page(items), BENCH) == _in_order(lens.page(items), BENCH)


def test_a_shop_with_every_defect() -> None:
    """The emitter takes a part of the example, its bytes are Python's, and a page says the same of all items."""
    lens = compile_mapping(load_mapping(mapping_path()))
    items = list(generate(7, 2_000))
    taken = sum(agrees(lens, item) for item in items)
    expected = without_emitter(lens.mapping).page(items)

    assert 0.5 * sum(plain(lens, item) is not None for item in items) < taken
    assert _in_order(expected, lens.mapping) == _in_order(lens.page(items), lens.mapping)


@pytest.mark.parametrize(("collection", "taken"), list(zip(COLLECTIONS, [0, 2_481, 0, 0], strict=True)))
def test_real_collections(shared_data: pathlib.Path, collection: Collection, taken: int) -> None:
    """Of real collections it takes documents without odd values, where the mapping names no function."""
    lens = compile_mapping(load_mapping(COLLECTIONS_MAPPING))

    assert taken == sum(agrees(lens, item) for item in collection_items(shared_data, collection))


USUAL = [
    ("{}", True),
    (' \t\r\n{ "te" : "a" } \n', True),
    ('{"te":"a","te":"a"}', False),
    ('{"te":"a",}', False),
    ('{"te":"a"} x', False),
    ('{"te":"a"}}', False),
    ('{"te" "a"}', False),
    ('{"unknown":1}', True),
    ('{"te":null}', True),
    ('{"te":null,"te":"a"}', False),
    ('{"unknown":1,"unknown":2}', False),
    ('{"$":1}', False),
    ('{"$a":1}', False),
    ('{"":1}', True),
    ('{"\\u0061":1}', False),
    ('{"a":{"b":1,"b":2}}', False),
    ('{"a":{"b":[1,{"c":null},true,false,"x"]},"z":[]}', True),
    ('{"a": { "b" : [ 1 , 2 ] } , "z" : {} }', True),
    ('{"a":{"b":1,}}', False),
    ('{"a":[1,]}', False),
    ('{"a":[1}', False),
    ('{"a":1 2}', False),
    ('{"a":}', False),
    ('{"a":"ü€😀\\n\\"\\\\\\/\\b\\f\\r\\t\\u20ac\\u2028\u2028\x7f"}', True),
    ('{"a":"\\u0001"}', False),
    ('{"a":"\\u0000"}', False),
    ('{"a":"\\ud83d\\ude00"}', False),
    ('{"a":' + "9" * 18 + "}", True),
    ('{"a":-' + "9" * 18 + "}", True),
    ('{"a":' + "9" * 19 + "}", False),
    ('{"a":-0}', False),
    ('{"a":-0.0,"x":0.000001,"y":1.00000000000,"z":-12.50}', True),
    ('{"a":0.0000001}', False),
    ('{"a":1e5}', False),
    ('{"a":01}', False),
    ('{"a":1.' + "0" * 38 + "}", True),
    ('{"a":1.' + "0" * 39 + "}", False),
    ('{"a":' + "[" * 31 + "1" + "]" * 31 + "}", True),
    ('{"a":' + "[" * 32 + "1" + "]" * 32 + "}", False),
    ("{" + ",".join(f'"a{n}":{n}' for n in range(32)) + "}", True),
    ("{" + ",".join(f'"a{n}":{n}' for n in range(33)) + "}", False),
    ('{"a":1,"m":1.50,"at":"2024-06-01T12:00:00.000Z","es":7,"k":"ü","ta":["a","\\t"],"f":true}', True),
    ('{"a":1,"m":0.00}', True),
    ('{"a":1,"w":0.0000001}', False),
    ('{"a":1,"r":0.5}', False),
    ('{"a":1,"da":"2024-02-29"}', False),
    ('{"a":1,"ia":[1]}', False),
    ('{"a":1,"m":"1.5"}', False),
    ('{"r":null,"da":null,"ia":null,"j":null,"by":null}', True),
    ('{"a":1,"j":{"b": [1, "x\\u00fc"]}}', True),
    ('{"a":1,"j":{"b":1,"b":2}}', False),
    ('{"o":null}', False),
    ('{"o":{"x":null}}', False),
    ('{"a":1,"o":{"x":1,"y":{"größe":"a"}}}', True),
    ('{"a":1,"o":{"x":1,"z":2}}', False),
    ('{"a":1,"o":{}}', False),
    ('{"kids":null}', False),
    ('{"a":1,"kids":[]}', False),
    ('{"te":"a","kids":[{"n":"b","more":1},{"n":null},{"n":"c"}],"more":2}', True),
    ('{"kids":[{"n":"b","more":1},{"n":"c"}],"more":2,"te":"a"}', True),
    ('{"te":"a","kids":[{"n":"b","toys":["x"]}],"more":2}', False),
    ('{"te":7}', False),
    ('{"\\u0074e":"a"}', True),
    ('{"te":"ü€😀\\n\\"\\\\\\/\\b\\f\\r\\t\\u20ac\\u00fc\\u0041"}', True),
    ('{"te":"a\\u0000"}', False),
    ('{"te":"\\ud83d\\ude00"}', False),
    ('{"te":"\\\\ud83d"}', False),
    ('{"te":"\\\\u0000"}', False),
    ('{"te":"\\x"}', False),
    ('{"te":"a\tb"}', False),
    ('{"te":"\x7f"}', True),
    ('{"te":"' + "x" * 65_535 + '"}', True),
    ('{"te":"' + "x" * 65_536 + '"}', False),
    ('{"te":"\\n' + "x" * 65_535 + '"}', False),
    ('{"f":true,"s":-32768,"b":-9223372036854775808}', True),
    ('{"f":false,"s":32767,"b":9223372036854775807}', True),
    ('{"f":tru}', False),
    ('{"s":32768}', False),
    ('{"b":9223372036854775808}', False),
    ('{"b":-9223372036854775809}', False),
    ('{"b":-0}', False),
    ('{"b":01}', False),
    ('{"b":1.0}', False),
    ('{"m":1.5}', True),
    ('{"m":-0.05}', True),
    ('{"m":9999999999.99}', True),
    ('{"m":10000000000}', False),
    ('{"m":1.505}', False),
    ('{"m":1e3}', False),
    ('{"m":1.}', False),
    ('{"m":-}', False),
    ('{"m":"1.5"}', False),
    ('{"w":0.00001,"sh":0.125}', True),
    ('{"w":100000000,"sh":0}', True),
    ('{"w":-123456789012345678901234567890.000010}', True),
    ('{"w":' + "1" * 60 + "." + "7" * 60 + "}", True),
    ('{"w":' + "1" * 61 + "}", False),
    ('{"w":-0.00000}', True),
    ('{"sh":1}', False),
    ('{"r":0.1,"d":0.1}', True),
    ('{"r":-123456,"d":-123456789012345}', True),
    ('{"r":1234567,"d":1}', False),
    ('{"d":0.1000000000000000055}', False),
    ('{"d":0.0000001,"r":0.000125}', True),
    ('{"d":-0.0}', False),
    ('{"d":1e16}', False),
    (f'{{"u":"{ID}"}}', True),
    (f'{{"u":"{ID.upper()}"}}', False),
    (f'{{"u":"{ID[:-1]}g"}}', False),
    (f'{{"u":"{ID.replace("-", "")}"}}', False),
    (f'{{"u":"{ID[:8]}0{ID[9:]}"}}', False),
    ('{"da":"2024-02-29","c":"23:59:59"}', True),
    ('{"da":"0001-01-01","c":"00:00:00.000001"}', True),
    ('{"da":"9999-12-31"}', True),
    ('{"da":"2023-02-29"}', False),
    ('{"da":"1900-02-29"}', False),
    ('{"da":"2000-02-29"}', True),
    ('{"da":"0000-01-01"}', False),
    ('{"da":"2024-13-01"}', False),
    ('{"da":"2024-04-31"}', False),
    ('{"da":"2024-4-01"}', False),
    ('{"c":"24:00:00"}', False),
    ('{"c":"10:30"}', False),
    ('{"c":"10:30:00.000000"}', False),
    ('{"at":"2024-06-01T12:00:00.000Z"}', True),
    ('{"at":"0001-01-01T00:00:00.000Z"}', True),
    ('{"at":"9999-12-31T23:59:59.999Z"}', True),
    ('{"at":"2024-06-01T12:00:00Z"}', False),
    ('{"at":"2024-06-01T12:00:60.000Z"}', False),
    ('{"at":"2024-06-01 12:00:00.000Z"}', False),
    ('{"es":1717243200,"em":1717243200123}', True),
    ('{"es":-62135596800,"em":-62135596800000}', True),
    ('{"es":253402300799,"em":253402300799999}', True),
    ('{"es":-62135596801}', False),
    ('{"em":253402300800000}', False),
    ('{"em":"2024-06-01T12:00:00.000Z"}', False),
    ('{"es":1.5}', False),
    ('{"by":"aGk=","he":"00ff"}', True),
    ('{"by":"","he":""}', True),
    ('{"by":"aGk"}', False),
    ('{"by":"aGl="}', False),
    ('{"by":"a=k="}', False),
    ('{"by":"aA=="}', True),
    ('{"by":"aB=="}', False),
    ('{"by":"===="}', False),
    ('{"by":"aGlq"}', True),
    ('{"by":"+/+/"}', True),
    ('{"he":"00FF"}', False),
    ('{"he":"000"}', False),
    ('{"j":{"a":[1.50,{"b":null}],"a":-0.0e+1}}', True),
    ('{"j": [ 1 , "x" ] ,"te":"a"}', True),
    ('{"j":null}', True),
    ('{"j":1e9999}', False),
    ('{"j":"1e9999"}', False),
    ('{"j":' + "9" * 14_999 + "}", True),
    ('{"j":' + "9" * 15_000 + "}", False),
    ('{"j":"' + "x" * 65_533 + '"}', True),
    ('{"j":"' + "x" * 65_534 + '"}', False),
    ('{"j":' + "[" * 128 + "]" * 128 + "}", True),
    ('{"j":' + "[" * 129 + "]" * 129 + "}", False),
    ('{"j":[1,]}', False),
    ('{"j":{"a":1,}}', False),
    ('{"j":{1:1}}', False),
    ('{"j":[1}', False),
    ('{"k":"b c"}', True),
    ('{"k":"ü"}', True),
    ('{"k":"d"}', False),
    ('{"ta":[],"ia":[],"na":[]}', True),
    ('{"ta":["a","","ü\\n"],"ia":[1,null,-2],"na":[1.5,null,0,-0.25],"ba":[true,false]}', True),
    ('{"ta":["a",null]}', False),
    ('{"ta":[1]}', False),
    ('{"ia":[2147483648]}', False),
    ('{"ia":[1,2', False),
    ('{"ea":[0,1717243200,null]}', True),
    ('{"o":{"x":1,"y":{"größe":"a"}}}', True),
    ('{"o":{"y":{"gr\\u00f6\\u00dfe":"a"}}}', True),
    ('{"o":{}}', False),
    ('{"o":{"y":{}}}', False),
    ('{"o":{"z":1}}', False),
    ('{"o":7}', False),
    ('{"te":"a","kids":[{"n":"b","toys":["x","y"]},{},{"toys":["z"],"n":"\\u0062"}]}', True),
    ('{"kids":[{"n":"b","toys":["x","y"]},{}],"te":"a\\n"}', True),
    ('{"te":"a","kids":[' + ",".join(['{"n":"b"}'] * 700) + "]}", True),
    ('{"kids":[{"n":"b"}]}', False),
    ('{"te":"a","kids":[]}', False),
    ('{"te":"a","kids":[{"toys":[]}]}', False),
    ('{"te":"a","kids":[null]}', False),
    ('{"te":"a","kids":[{"n":"b"}', False),
    ('{"kids":[{"n":"b"},],"te":"a"}', False),
    ("[]", False),
    ("", False),
    ("null", False),
    ("\ufeff{}", False),
]


@pytest.mark.parametrize(("text", "taken"), USUAL, ids=range(len(USUAL)))
def test_each_kind_of_value(many: Lens, text: str, taken: bool) -> None:  # noqa: FBT001 - a parameter of a test
    """What the emitter takes of each type, and what it leaves, whichever template the key has."""
    text = text.replace("{", '{"id":7' if text == "{}" else '{"id":7,', 1)
    for key in ("t:7", "old:a:7"):
        assert taken == agrees(many, Item(key, text.encode())), text[:200]


@pytest.mark.parametrize(
    ("item", "taken"),
    [
        (Item("t:7", b'{"id":7}'), True),
        (Item("t:7", b'{"id":7}', ItemKind.JSON, 1_700_000_000_123), True),
        (Item("t:7", b'{"id":7}', ItemKind.JSON, -1), False),
        (Item("t:7", b'{"id":7}', ItemKind.JSON, 1 << 80), False),
        (Item("t:7", b'{"id":8}'), False),
        (Item("t:7", b'{"id":7.0}'), False),
        (Item("t:7", b'{"id":"7"}'), False),
        (Item("t:7", b"{}"), False),
        (Item("t:07", b'{"id":7}'), False),
        (Item("t:-7", b'{"id":-7}'), True),
        (Item("t:-0", b'{"id":0}'), False),
        (Item("t:2147483648", b'{"id":2147483648}'), False),
        (Item("t:", b'{"id":7}'), False),
        (Item("t:7:8", b'{"id":7}'), False),
        (Item("old:b:7", b'{"id":7}'), False),
        (Item("t:\u0667", b'{"id":7}'), False),
        (Item("t:7", b'{"id":7,"te":"\xff"}'), False),
        (Item("t:7", b'{"id":7,"te":"\xed\xa0\x80"}'), False),
        (Item("t:7", b'{"id":7,"te":"\xc0\xaf"}'), False),
        (Item("t:7", b'{"id":7,"te":"\xf4\x90\x80\x80"}'), False),
        (Item("t:7", b'{"id":7,"te":"\xf0\x9f\x98\x80"}'), True),
        (Item("t:7", b'{"id":7,"te":"\xf0\x9f\x98"}'), False),
        (Item("t:7", {b"id": b"7"}, ItemKind.HASH), False),
        (Item("t:7", None, ItemKind.NULL), False),
    ],
    ids=range(24),
)
def test_keys_expiries_and_encodings(many: Lens, item: Item, taken: bool) -> None:  # noqa: FBT001
    """Keys as their columns spell them, expiries in range, valid UTF-8; all else is not the emitter's."""
    assert taken == agrees(many, item)


def test_usual_keys_are_told_without_python(many: Lens) -> None:
    """Both templates of the mapping are told by a split at the colons, so a page needs no router."""
    for key in ("t:7", "old:a:7"):
        page = emit_page(many, Item(key, b'{"id":7}'))
        assert page is not None
        assert [key] == [each.key for each in page.accepted]


FULL = (
    '{"id":7,"te":"aü\\n","f":true,"s":1,"m":12.50,"w":123456789.12345,"r":0.5,"d":0.1,"u":"6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01","da":"2024-02-29",'
    '"c":"10:30:00.000001","at":"2024-06-01T12:00:00.000Z","es":1,"by":"aGk=","he":"00ff","j":{"a":[1,"\\u00fc"]},'
    '"k":"ü","ta":["a","\\t"],"ia":[1,null],"na":[1.5],"o":{"x":1,"y":{"größe":"b"}},'
    '"kids":[{"n":"c","toys":["d"]},{"toys":["e","f"]}]}'
).encode()


def test_a_truncated_item_is_never_read_beyond_its_end(many: Lens) -> None:
    """Cut at each byte, the item is not the emitter's: and Python does not take it either."""
    assert agrees(many, Item("t:7", FULL))
    for size in range(len(FULL)):
        assert not agrees(many, Item("t:7", FULL[:size]))


_LENSES = {name: compile_mapping(load_mapping(text)) for name, text in (("many", MANY), ("keys", KEYS))}


@law
@given(st.data())
def test_changed_bytes_change_nothing_unseen(data: st.DataObject) -> None:
    """Whatever a few changed bytes make of a full item, the emitter takes it as Python does or not at all."""
    lens = _LENSES["many"]
    blob = bytearray(FULL)
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(FULL) - 1), st.integers(0, 255)), max_size=4)):
        blob[at] = byte
    agrees(lens, Item("t:7", bytes(blob)))


@law
@given(st.binary(max_size=60), st.integers(0, len(FULL)))
def test_any_bytes_anywhere(noise: bytes, at: int) -> None:
    """Random bytes alone, before, in and behind a full item are read as Python reads them, or not at all."""
    lens = _LENSES["many"]
    for blob in (noise, FULL[:at] + noise + FULL[at:], noise + FULL, FULL + noise, FULL[:at] + noise):
        agrees(lens, Item("t:7", blob))


ODD = (
    '{"id":7,"te":"aü\\n","f":true,"s":1,"m":12.50,"u":"6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01",'
    '"at":"2024-06-01T12:00:00.000Z","es":1,"j":{"a":[1,"\\u00fc"]},"k":null,"ta":["a","\\t"],'
    '"more":{"a":[1,0.75,null,true,"\\u00fc\\\\ü"],"b":{}},"o":{"x":1,"y":{"größe":"b"}},'
    '"kids":[{"n":"c","extra":[]},{"n":null}],"last":-12}'
).encode()


def test_a_truncated_odd_item_is_never_read_beyond_its_end(many: Lens) -> None:
    """Cut at each byte, the odd item is not the emitter's: and Python does not take it either."""
    assert agrees(many, Item("t:7", ODD))
    for size in range(len(ODD)):
        assert not agrees(many, Item("t:7", ODD[:size]))


@law
@given(st.data())
def test_changed_bytes_of_odd_items(data: st.DataObject) -> None:
    """Whatever a few changed bytes make of an odd item, the emitter takes it as Python does or not at all."""
    blob = bytearray(ODD)
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(ODD) - 1), st.integers(0, 255)), max_size=4)):
        blob[at] = byte
    agrees(_LENSES["many"], Item("t:7", bytes(blob)))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@law
@given(
    st.dictionaries(st.text(max_size=5) | st.sampled_from(["te", "j", "k", "kids", "o"]), _JSON, max_size=6),
    st.booleans(),
)
def test_any_unmapped_members(members: dict[str, object], escaped: bool) -> None:  # noqa: FBT001
    """Whatever values stand under names that nobody knows, or under known ones: as Python has them, or not at all."""
    text = json.dumps({"id": 7, **members}, ensure_ascii=escaped, separators=(",", ":"))
    agrees(_LENSES["many"], Item("t:7", text.encode(errors="surrogatepass")))


def _pieces() -> Iterator[bytes]:
    yield from (b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b"0", b"1e5", b"null", b"true", b"\\u0041", b" ")
    yield from (b"\\ud800", b"\\u0000", b"\xc3", b"\xff", b"\x00", b"9999999999999999999", b'"id":7', b'"te":"a"')


@law
@given(st.lists(st.tuples(st.integers(0, len(FULL)), st.sampled_from(list(_pieces())), st.integers(0, 8)), max_size=5))
def test_pieces_of_json_in_wrong_places(changes: list[tuple[int, bytes, int]]) -> None:
    """Tokens put where others stood are read as Python reads them, or not at all."""
    lens = _LENSES["many"]
    for blob in (FULL, ODD):
        for at, piece, cut in changes:
            blob = blob[:at] + piece + blob[at + cut :]  # noqa: PLW2901 - it is built up
        agrees(lens, Item("t:7", blob))


MEMBERS = {
    text: frozenset(json.loads(text))
    for text, taken in USUAL
    if taken and text != "{}" and len(text) < 1_000
    if plain(_LENSES["many"], Item("t:7", text.strip().replace("{", '{"id":7,', 1).encode()))
}
"""Texts of objects that are plain and that the emitter takes, with the names in them."""


def usual_blob(rnd: random.Random) -> bytes:
    """Return members that are each usual, in any order, with white space."""
    taken, parts = {"id"}, [' "id" : 7 ' if rnd.random() < 0.3 else '"id":7']
    for text in rnd.sample(list(MEMBERS), rnd.randint(0, len(MEMBERS))):
        if not taken & MEMBERS[text]:
            taken |= MEMBERS[text]
            parts.append(text.strip()[1:-1])
    rnd.shuffle(parts)
    return ("{" + rnd.choice(["", " ", "\n\t"]) + rnd.choice([",", " , ", ",\n"]).join(parts) + "}").encode()


@law
@given(seeds)
def test_usual_members_in_any_order_are_emitted(seed: int) -> None:
    """Whatever the order of members, parents' columns behind their children's arrays too, the item is taken."""
    assert agrees(_LENSES["many"], Item("t:7", usual_blob(random.Random(seed))))


def test_a_refused_item_leaves_no_trace(many: Lens) -> None:
    """Rows of children that were ready when the item turned out odd are gone again; the next item is whole."""
    odd = FULL[:-1] + b',"more":1e5}'
    page = many.page([Item("t:7", FULL), Item("old:a:7", odd), Item("t:7", FULL)])
    alone = emit(many, Item("t:7", FULL), 2)

    assert alone is not None
    assert page.tables["toys"].endswith(alone.tables["toys"]) or alone.tables["toys"] in page.tables["toys"]
    assert {"things": 3, "kids": 6, "toys": 9} == page.row_counts


@pytest.mark.parametrize(
    ("key", "alone", "taken"),
    [
        ("one:7", True, True),
        ("one:ü:", False, False),
        ("one:ü", True, True),
        ("one:a\u241fb", False, False),
        ("one:", False, False),
        ("one", False, False),
        ("one:skip:7", False, False),
        ("n:7:p", True, True),
        ("n:7:x:p", True, True),
        ("n:7:x:", False, False),
        ("n:-7:p", True, True),
        ("n:-:p", False, False),
        ("n:\u0667:p", False, False),
        ("n:07:p", False, False),
        (f"r:{ID}:end", True, True),
        (f"r:{ID.upper()}:end", False, False),
        (f"r:{ID}:ende", False, False),
        (f"r:{ID[:-1]}:end", False, False),
        ("c:a:7", True, True),
        ("c:ab:7", False, False),
        ("w:a:b", False, True),
        ("j:a-7", False, True),
        (":".join("x" * 40), False, False),
    ],
)
def test_keys_are_told_as_the_router_tells_them(key: str, alone: bool, taken: bool) -> None:  # noqa: FBT001
    """*alone*: without Python; *taken*: by the emitter at all. A key belongs where the router says, or is left."""
    lens = _LENSES["keys"]
    item = Item(key, b"{}")

    assert taken == agrees(lens, item)
    assert alone == (emit_page(lens, item) is not None)
    assert without_emitter(lens.mapping).page([item]) == lens.page([item])


def test_many_keys_are_told_together() -> None:
    """Whether all of some keys are wanted is what is said of each, whether compiled code tells it or not."""
    lens = _LENSES["keys"]
    emitter = lens._emitter
    assert emitter is not None
    own = ["one:7", "n:7:p", f"r:{ID}:end", "c:a:7"]
    others = ["one:skip:7", "w:a", "j:a-7", "single", "nobody:1", "one:a\u241fb", "one", "\ud800:1", "one:\ud800"]
    assert emitter.takes(own)
    for key in own + others:
        for keys in ([key], [*own, key], [key, *own]):
            assert all(map(lens.wants, keys)) == lens.wants_all(keys)
            assert not emitter.takes(keys) or lens.wants_all(keys)
    assert not any(emitter.takes([*own, key]) for key in others)


def test_random_keys_are_told_as_the_router_tells_them() -> None:
    """Keys of random segments become rows of the same entity with the emitter and without, or of none."""
    lens, other, taken = _LENSES["keys"], without_emitter(_LENSES["keys"].mapping), 0
    parts = [
        "one",
        "n",
        "r",
        "c",
        "w",
        "j",
        "jo",
        "x",
        "end",
        "a",
        "b",
        "a-1",
        "7",
        "-7",
        "",
        "skip",
        "single",
        ID,
        "ü",
    ]
    for seed in range(4_000):
        rnd = random.Random(seed)
        item = Item(":".join(rnd.choice(parts) for _ in range(rnd.choice([1, 2, 2, 3, 3, 4]))), b"{}")
        assert other.page([item]) == lens.page([item]), item
        taken += agrees(lens, item)

    assert taken > 200


def test_wrong_programs_are_told() -> None:
    """A program that says something impossible is refused when it is made, not when it runs."""
    module = emitted.native
    assert module is not None
    column = (0, 0, False, False, 0, -1, -1, 1, 0, ())
    table = (-1, 0, -1, -1, (column,))
    node = ((b"a", 0, 0),)
    module.Program((table,), (node,), ("t",), 1, *NO_KEYS)
    for tables, nodes in [
        ((), (node,)),
        (((-1, 1, -1, -1, (column,)),), (node,)),
        (((0, 0, -1, -1, (column,)),), (node,)),
        (((-1, 0, -1, -1, ()),), (node,)),
        (((-1, -1, 0, -1, (column,)),), ()),
        (((-1, 0, -1, -1, ((7, *column[1:]),)),), (node,)),
        (((-1, 0, -1, -1, ((1, 1, *column[2:]),)),), (node,)),
        (((-1, 0, -1, -1, ((3, 0, *column[2:]),)),), (node,)),
        (((-1, 0, -1, -1, ((*column[:4], 17, *column[5:]),)),), (node,)),
        ((table,), (((b"a", 0, 1),),)),
        ((table,), (((b"a", 2, 0),),)),
        ((table,), (((b"a", 2, 1),), node, node)),
        ((table,), (((b"a", 3, 0),),)),
        ((table,), (((b"a", 1, 0),),)),
        ((table, table), (node,)),
        (((-1, 0, -1, 0, (column,)),), (node,)),
        (((-1, 0, -1, 1, (column,)),), (node,)),
        (((-1, 0, -1, -2, (column,)),), (node,)),
    ]:
        with pytest.raises(ValueError, match="program"):
            module.Program(tables, nodes, ("t",) * len(tables), 1, *NO_KEYS)


def test_without_memory_a_page_is_whole_or_an_error(many: Lens) -> None:
    """Wherever memory runs out in a page, it is an error, and the next page is as it always was."""
    hooks = pytest.importorskip("_testcapi")
    emitter = many._emitter
    assert emitter is not None
    items = [
        Item("t:7", FULL),
        Item("t:7", b'{"id":7,"more":["\\n"],"j":[1]}'),
        Item("t:7", FULL, ItemKind.JSON, 5),
    ] * 3
    whole = emitter._native.page(items, False)  # noqa: FBT003 - compiled
    failed = 0
    for allowed in range(150):
        hooks.set_nomemory(allowed, allowed + 1)
        try:
            found = emitter._native.page(items, False)  # noqa: FBT003
        except MemoryError:
            failed += 1
            continue
        finally:
            hooks.remove_mem_hooks()
        assert whole == found

    assert failed > 10
    assert whole == emitter._native.page(items, False)  # noqa: FBT003


def test_pages_leave_nothing_behind(many: Lens) -> None:
    """Pages with all kinds of outcomes hold on to no object, and to no memory, when they are done."""
    emitter = many._emitter
    assert emitter is not None
    items = [Item("t:7", FULL), Item("t:7", FULL[:-9]), Item("t:\\ud800", b"{}"), Item("w:7", b"{}")] * 20
    group = [(0, item, ("7",)) for item in items]
    before = [sys.getrefcount(each) for item in items[:4] for each in (item, item.key, item.value)]
    for _ in range(50):
        emitter._native.page(items, True)  # noqa: FBT003
        emitter._native.group(0, group, True, True, (0,))  # noqa: FBT003

    assert before == [sys.getrefcount(each) for item in items[:4] for each in (item, item.key, item.value)]
