"""Corners of the lens, each once: where the compiled page, the exact path and the way back must agree."""

import json
from typing import Any

import pytest

from kvmigrate.errors import LensError
from kvmigrate.model import Item, ItemKind, Reason, Refusal, RowSet
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.values.json_text import decode_json, json_equal
from tests.copy_format import read_rows

PLAIN = """
version: 1
name: plain
entities:
  thing:
    keys: ["t:{id}"]
    table: things
    columns:
      id: {key: id, type: integer, path: id}
      sku: {path: sku, type: text}
      json: {path: j, type: jsonb}
      number: {path: n, type: numeric}
      texts: {path: ta, type: "text[]"}
      at: {path: e, type: timestamptz, format: epoch_s}
      single: {path: f, type: real}
      kind: {path: k, type: enum, values: [a, b]}
      flag: {path: b, type: boolean}
      raw: {path: by, type: bytea}
      inner: {path: o.x, type: integer}
    source_key: source_key
    children:
      kids:
        each: kids
        parent: {thing_id: id, sku: sku}
        columns: {position: {ordinal: true}, value: {value: true, type: text}}
        primary_key: [thing_id, sku, position]
"""

ODD = """
version: 1
name: odd
entities:
  alias:
    keys: ["alias:{id}"]
    table: aliases
    columns:
      id: {key: id, path: [id, ident], type: text}
      n: {path: [a, b], type: integer, on_bad_value: keep_raw}
      money: {path: money, type: "numeric(12,2)"}
      single: {path: single, type: real}
      note: {path: note, type: text}
      preset: {path: preset, type: "numeric(4,2)", default: 0.1}
      "quoted": {path: 'a"b', type: text}
    source_key: source_key
  hash:
    keys: ["hash:{id}"]
    table: hashes
    on_nul: escape
    columns:
      id: {key: id, type: "numeric(12,2)"}
      money: {path: money, type: "numeric(12,2)"}
      free: {path: free, type: numeric}
      json: {path: json, type: jsonb}
      list: {path: list, type: "numeric(6,2)[]"}
      lost: {path: lost, type: integer, on_bad_value: "null"}
      deep: {path: deep.er, type: text}
    source_key: source_key
  words:
    keys: ["words:{id}"]
    rows_only: true
    columns: {id: {key: id, type: text}}
    children:
      entries:
        each: ""
        parent: {id: id}
        columns: {word: {map_key: true, type: integer}, value: {value: true, type: text}}
  call:
    keys: ["call:{id}"]
    table: calls
    columns:
      id: {key: id, type: text}
      doubled:
        path: d
        type: numeric
        forward: "tests.unit.test_lens_edges:half"
        backward: "tests.unit.test_lens_edges:twice"
"""


def half(value: Any) -> Any:
    """A mapping function that fails for text, and gives a float."""
    return float(value / 2)


def twice(value: Any) -> Any:
    """The way back, which fails for 13."""
    if value == 13:
        raise KeyError(value)
    return value * 2


@pytest.fixture(scope="module")
def plain() -> Lens:
    """A mapping that the compiled page takes."""
    return compile_mapping(load_mapping(PLAIN))


@pytest.fixture(scope="module")
def odd() -> Lens:
    """A mapping that only the exact path takes."""
    return compile_mapping(load_mapping(ODD))


BLOBS = [
    b'{"id":7,"kids":["a"]}',
    b'{"id":7,"sku":"s","kids":["a","b"]}',
    b'{"id":7,"j":0.' + b"0" * 17_000 + b"1}",
    b'{"id":7,"j":' + b"9" * 132_000 + b"}",
    b'{"id":7,"j":[1.5e400,-0.0,1.50]}',
    b'{"id":7,"j":1e9999}',
    b'{"id":7,"j":12e131071}',
    b'{"id":7,"j":"1e-99999"}',
    b'{"id":7,"j":{"a":1,"a":2}}',
    b'{"id":7,"j":null}',
    b'{"id":7,"j":nul}',
    b'{"id":7,"j":01}',
    b'{"id":7,"j":1.}',
    b'{"id":7,"j":NaN}',
    b'{"id":7,"j":"\\x"}',
    b'{"id":7,"j":"a\tb"}',
    b'{"id":7,"j":"\\ud83d\\ude00"}',
    b'{"id":7,"j":"\\uDFFF"}',
    b'{"id":7,"j":' + b"[" * 499 + b"]" * 499 + b"}",
    b'{"id":7,"j":' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"id":7,"n":-0}',
    b'{"id":7,"n":-0.0}',
    b'{"id":7,"n":123456789.12345}',
    b'{"id":7.0}',
    b'{"id":"7"}',
    b'{"id":8}',
    b'{"id":8,"id":7}',
    b'{"id":7,"e":1.0}',
    b'{"id":7,"e":1e3}',
    b'{"id":7,"f":16777217}',
    b'{"id":7,"f":0.1}',
    b'{"id":7,"b":1}',
    b'{"id":7,"by":"aG k="}',
    b'{"id":7,"sku":"\xed\xa0\x80"}',
    b'{"id":7,"sku":"\\u0000"}',
    b'{"id":7,"ta":["\\u0000"]}',
    b'{"id":7,"o":{"x":1},"o":{}}',
    b'{"id":7,"kids":["a"],"kids":[],"sku":"s"}',
    b'{"id":7,"sku":"s","kids":[null,1]}',
    b'\xef\xbb\xbf{"id":7}',
    b' {"id":7} ',
    b'{"id":7}x',
]


@pytest.mark.parametrize("blob", BLOBS, ids=[str(number) for number in range(len(BLOBS))])
def test_page_exact_path_and_back_agree(plain: Lens, blob: bytes) -> None:
    """One plain item with one oddity: the compiled page decides as the exact path does, and both come back."""
    tables = {table.name: table for _, table in plain.mapping.tables()}
    item = Item("t:7", blob)
    found, page = plain.forward(item), plain.page([item])

    if isinstance(found, Refusal):
        assert [(item, found)] == page.refused
        return
    assert isinstance(found, RowSet)
    expected = {name: read_rows(data, tables[name]) for name, data in plain.pack(found, 0).items()}
    assert expected == {name: read_rows(data, tables[name]) for name, data in page.tables.items()}
    rows = {name: [values for _, values in each] for name, each in expected.items()}
    back = plain.backward(plain.mapping.entities[0], "t:7", rows)
    assert isinstance(back.value, bytes)
    assert json_equal(decode_json(blob), decode_json(back.value))


def _through(lens: Lens, item: Item) -> tuple[RowSet, Item]:
    found = lens.forward(item)
    assert isinstance(found, RowSet), found
    tables = {table.name: table for _, table in lens.mapping.tables()}
    rows = {name: [row for _, row in read_rows(data, tables[name])] for name, data in lens.pack(found, 0).items()}
    return found, lens.backward(lens.mapping.entity(found.entity), None, rows)


@pytest.mark.parametrize(
    "blob",
    [
        b'{"a":1,"b":2}',
        b'{"a":1,"b":1}',
        b'{"a":null,"b":2}',
        b'{"a":1,"b":null}',
        b'{"a":"1","b":2}',
        b'{"b":"1"}',
        b'{"a":1,"b":"1"}',
        b'{"id":"7","ident":"8"}',
        b'{"id":null,"ident":"7"}',
        b'{"id":"8","ident":"7"}',
        b'{"note":1e2}',
        b'{"note":1e400}',
        b'{"note":-0.0}',
        b'{"note":12.50}',
        b'{"single":0.1,"preset":0.1}',
        b'{"single":"0.1"}',
        b'{"$":{"at":{"n":"b"}},"$$":1,"$x":{"$":2}}',
        b'{"a\\"b":"x"}',
        b'{"x":' + b'{"a":' * 499 + b"1" + b"}" * 500,
    ],
)
def test_what_stands_beside_a_column_stays_beside_it(odd: Lens, blob: bytes) -> None:
    """Aliases side by side, numbers as text, floats, names with dollars, and 500 levels of nesting come back."""
    _, back = _through(odd, Item("alias:7", blob))

    assert isinstance(back.value, bytes)
    assert json_equal(decode_json(blob), decode_json(back.value))


@pytest.mark.parametrize(
    ("fields", "in_rest"),
    [
        ({b"money": b"1.5"}, set()),
        ({b"money": b"1.50"}, {"money"}),
        ({b"free": b"1000"}, set()),
        ({b"free": b"1e3"}, {"free"}),
        ({b"free": b"-0"}, {"free"}),
        ({b"json": b'{"a":[1.5],"b":null}'}, set()),
        ({b"json": b'{"b":1,"a":2}'}, {"json"}),
        ({b"json": b"null"}, {"json"}),
        ({b"json": b"1e2"}, {"json"}),
        ({b"list": b"[1.5,null]"}, set()),
        ({b"list": b"[1.50]"}, {"list"}),
        ({b"nul": b"a\0b", b"u": "␛0".encode()}, {"nul", "u"}),
    ],
)
def test_hash_fields_come_back_letter_by_letter(odd: Lens, fields: dict[bytes, bytes], in_rest: set[str]) -> None:
    """A text is canonical only if the stored value alone spells it again; any other text stays in rest."""
    found, back = _through(odd, Item("hash:1.50", fields, ItemKind.HASH))

    assert ("hash:1.50", fields, ItemKind.HASH) == back[:3]
    assert in_rest == set(found.rows[0].values[-1]) - {"$"}


def test_a_hash_field_that_spells_nul_is_refused(odd: Lens) -> None:
    """What the escapes of JSON in a field spell is checked like any other text."""
    for text in (b'"\\u0000"', b'{"a":"\\ud800"}'):
        found = odd.forward(Item("hash:1", {b"json": text}, ItemKind.HASH))

        assert isinstance(found, Refusal)
        assert found.reason in {Reason.NUL, Reason.SURROGATE}
        assert "$.json" == found.path.split("[")[0][:6]


def test_a_hash_holds_no_object_and_no_null(odd: Lens) -> None:
    """A declared null is written as text; a column inside an object cannot be written at all."""
    found, back = _through(odd, Item("hash:1", {b"lost": b"x"}, ItemKind.HASH))
    assert {b"lost": b"null"} == back.value

    row = list(found.rows[0].values)
    row[[column.name for column in odd.mapping.entity("hash").root.columns].index("deep")] = "text"
    with pytest.raises(LensError, match="deep"):
        odd.backward(odd.mapping.entity("hash"), "hash:1", {"hashes": [row]})


def test_flags_are_found_on_any_row_of_a_map(odd: Lens) -> None:
    """The rows of an object come back in any order; the string around it is still remembered, by the same row."""
    blobs = [json.dumps(text).encode() for text in ('{"2":"b","1":"a"}', '{"1":"a","2":"b"}')]
    marked = []
    for blob in blobs:
        found = odd.forward(Item("words:x", blob))
        assert isinstance(found, RowSet)
        rows = [list(row.values) for row in found.rows]
        marked.append([row[1] for row in rows if row[-1]])
        back = odd.backward(odd.mapping.entity("words"), "words:x", {"entries": rows[::-1]})
        assert isinstance(back.value, bytes)
        assert isinstance(decode_json(back.value), str)

    assert [[1], [1]] == marked


def test_two_names_of_one_key_are_refused(odd: Lens) -> None:
    """Members 1 and 01 would be one row."""
    found = odd.forward(Item("words:x", b'{"1":"a","01":"b"}'))

    assert isinstance(found, Refusal)
    assert (Reason.SAME_ROW, "$['01']") == (found.reason, found.path)


def test_mapping_functions_fail_by_refusal(odd: Lens) -> None:
    """A function's own error, in either direction, refuses the item; a float counts as its shortest decimal."""
    _, back = _through(odd, Item("call:1", b'{"d":0.2}'))
    assert b'{"d":0.2}' == back.value

    for blob in (b'{"d":"x"}', b'{"d":26}', b'{"d":[]}'):
        found = odd.forward(Item("call:1", blob))
        assert isinstance(found, Refusal)
        assert Reason.FUNCTION is found.reason
    with pytest.raises(LensError, match="KeyError"):
        odd.backward(odd.mapping.entity("call"), "call:1", {"calls": [("1", 13, None)]})


def test_a_null_that_sql_wrote_over_a_default_stays_null(odd: Lens) -> None:
    """Left out, the member would come back as the default; and an old alias would come back as the value."""
    entity = odd.mapping.entity("alias")
    found, _ = _through(odd, Item("alias:7", b'{"a":1,"b":2,"preset":3}'))
    row = list(found.rows[0].values)
    for name in ("n", "preset"):
        row[[column.name for column in entity.root.columns].index(name)] = None

    back = odd.backward(entity, "alias:7", {"aliases": [row]})

    assert b'{"preset":null}' == back.value


def test_tables_whose_names_differ_only_outside_ascii_keep_their_own_columns() -> None:
    """The generated way back names its parts by number, so none takes another's place."""
    lens = compile_mapping(
        load_mapping(
            """
version: 1
name: names
entities:
  thing:
    keys: ["thing:{id}"]
    table: t
    columns:
      id: {key: id, type: text}
      at: {path: at, type: timestamptz, format: epoch_s}
    children:
      tä:
        each: days
        parent: {id: id}
        columns: {day: {path: day, type: date}, position: {ordinal: true}}
"""
        )
    )
    item = Item("thing:1", b'{"at":1,"days":[{"day":"2024-01-02"}]}')
    found = lens.forward(item)
    assert isinstance(found, RowSet)
    rows = {row.table: [tuple(row.values)] for row in found.rows}

    assert json.loads(b'{"at":1,"days":[{"day":"2024-01-02"}]}') == json.loads(
        lens.backward(lens.mapping.entity("thing"), "thing:1", rows).value  # type: ignore[arg-type]  # JSON bytes
    )
