from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import ADDRESS_SEPARATOR as SEP
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.base import KVSource, Page, ScanRequest
from kvmigrate.stores.document_key import DocumentKey
from kvmigrate.stores.export_format import MAX_DEPTH, read_line, write_item, write_unreadable
from kvmigrate.stores.open import open_source

KEYS = st.text(st.characters(exclude_categories=["Cs"]))
EXPIRIES = st.none() | st.integers(-(2**53), 2**53)
JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
).map(lambda value: json.dumps(value, ensure_ascii=False).encode())


def written(key: str, content: str) -> bytes:
    """Return the line of an item."""
    return f'{{"key":"{key}",{content}}}\n'.encode()


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (Item("a", b'{"n": 1.10}'), written("a", '"value":{"n": 1.10}')),
        (Item("a", b"null", expires_at_ms=5), written("a", '"value":null,"expires_at_ms":5')),
        (Item('q"\\\n', b"1"), written('q\\"\\\\\\n', '"value":1')),
        (Item("a", b"N/A"), written("a", '"raw_base64":"Ti9B"')),
        (Item("a", b""), written("a", '"raw_base64":""')),
        (Item("a", b'"\xff"'), written("a", '"raw_base64":"Iv8i"')),
        (Item("a", {b"g": b"2", b"f": "é".encode()}, ItemKind.HASH), written("a", '"hash":{"f":"é","g":"2"}')),
        (Item("a", {b"f": b"\xff"}, ItemKind.HASH, 7), written("a", '"hash_base64":{"Zg==":"/w=="},"expires_at_ms":7')),
        (Item("a", "list", ItemKind.OTHER), written("a", '"unsupported_type":"list"')),
        (Item("a", None, ItemKind.NULL), written("a", '"sql_null":true')),
        (Item("a", None, ItemKind.UNREAD), written("a", '"unread":true')),
        (Item(f"h{SEP}f", b"1"), written(f"h{SEP}f", '"value":1')),
    ],
)
def test_each_kind_of_item_has_its_line(item: Item, line: bytes) -> None:
    """The format is fixed to the byte, and reads back as the same item."""
    assert line == write_item(item)
    assert item == read_line(line)


def test_a_key_that_is_no_address_has_a_line_too() -> None:
    """What could not be read is still listed."""
    line = write_unreadable(b"\xff")

    assert b'{"key_base64":"/w==","unread":true}\n' == line
    assert b"\xff" == read_line(line)


@pytest.mark.parametrize(
    "raw",
    [
        b"123456789012345678901234567890.1234567890e-400",
        b'{"a":1,"a":2}',
        b'{ "z" : [ 1.0 , 1e2 ] , "a" : "\\u00e9\\/" }',
        b'"%s"' % (b"x" * 2_000_000),
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b"[%s]" % b",".join([b'{"a":"[[[\\"{"}'] * 1000),
    ],
    ids=["number", "twice", "spelling", "large", "deep", "wide"],
)
def test_json_is_kept_character_for_character(raw: bytes) -> None:
    """Nothing is parsed and printed again: no digit, duplicate, order or spelling changes."""
    line = write_item(Item("a", raw))

    assert b'{"key":"a","value":%b}\n' % raw == line
    assert Item("a", raw) == read_line(line)


@pytest.mark.parametrize("raw", [b'{\r\n  "a": 1,\n\t"b": "x\\ny"\n}', b"\n1\n"])
def test_a_line_stays_one_line(raw: bytes) -> None:
    """Line breaks between tokens become blanks; those inside texts are escaped in any case."""
    line = write_item(Item("a", raw))
    entry = read_line(line)

    assert 1 == line.count(b"\n") + line.count(b"\r")
    assert isinstance(entry, Item)
    assert isinstance(entry.value, bytes)
    assert json.loads(raw) == json.loads(entry.value)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_deep_values_are_kept_as_bytes(depth: int) -> None:
    """Any parser can read the line, and the value comes back whole."""
    raw = b'{"a":' * depth + b"1" + b"}" * depth

    line = write_item(Item("a", raw))

    assert b"raw_base64" in line
    assert Item("a", raw) == read_line(line)


@given(KEYS, JSON_TEXTS, EXPIRIES)
def test_json_round_trips(key: str, raw: bytes, expires_at_ms: int | None) -> None:
    """Any key, JSON and expiry come back as they were, through lines that are plain JSON."""
    item = Item(key, raw, expires_at_ms=expires_at_ms)
    line = write_item(item)

    assert b"value" in line
    assert key == json.loads(line)["key"]
    assert item == read_line(line)


@given(KEYS, st.binary())
def test_bytes_round_trip(key: str, raw: bytes) -> None:
    """Whatever the bytes are, they come back, but for white space around and line breaks within JSON."""
    entry = read_line(write_item(Item(key, raw)))

    assert isinstance(entry, Item)
    assert isinstance(entry.value, bytes)
    assert raw == entry.value or json.loads(raw) == json.loads(entry.value)


@given(st.dictionaries(st.binary(max_size=5) | st.text(max_size=5).map(str.encode), st.binary(max_size=5)))
def test_hashes_round_trip(fields: dict[bytes, bytes]) -> None:
    """Fields and values of a hash may be any bytes."""
    item = Item("h", fields, ItemKind.HASH)

    assert item == read_line(write_item(item))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"value":1}', "key"),
        (b'{"key":"a"}', "0 of"),
        (b'{"key":"a","value":1,"sql_null":true}', "2 of"),
        (b'{"key":"a","values":1}', "values"),
        (b'{"key":1,"value":1}', "str"),
        (b'{"key":"a","raw_base64":"?"}', "base64"),
        (b'{"key":"a","value":%b%b}' % (b"[" * 100_000, b"]" * 100_000), "deep"),
    ],
)
def test_a_wrong_line_says_why(line: bytes, why: str) -> None:
    """Every fault is a ValueError: the caller adds file and line."""
    with pytest.raises(ValueError, match=why):
        read_line(line)


def items_of(pages: Iterator[Page]) -> list[Item]:
    """Return the items of all pages."""
    return [item for page in pages for item in page.items]


def opened(path: Path, options: str = "") -> KVSource:
    """Return the file as a source."""
    return open_source(f"file://{path}{options}")


HASH = Item("reg", {b"b": b"2", b"a": b"1", b"\xff": b"3"}, ItemKind.HASH, 9)
EXPLODING = ScanRequest(explodes=lambda key: key == "reg")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of all kinds, not in key order."""
    path = tmp_path / "export.ndjson"
    items = [HASH, Item("reg:x", b"1"), Item("a", b"2", expires_at_ms=5), Item("reg\U0001f600", None, ItemKind.NULL)]
    path.write_bytes(b"\n".join(write_item(item) for item in items))
    return path


def test_a_hash_of_an_export_explodes_like_one_of_redis(export: Path) -> None:
    """Its fields are items with its expiry, in the one order of addresses; odd fields are counted."""
    with closing(opened(export)) as source:
        pages = list(source.scan_sorted(EXPLODING))
        addresses = ["a", "reg:x", f"reg{SEP}a", f"reg{SEP}b", "reg\U0001f600"]

        assert addresses == [item.key for item in items_of(iter(pages))]
        assert [f"reg{SEP}".encode() + b"\xff"] == [key for page in pages for key in page.unreadable]
        assert sorted(addresses) == sorted(item.key for item in items_of(source.scan(EXPLODING)))
        assert [HASH, Item(f"reg{SEP}a", b"1", expires_at_ms=9), None, None] == source.get_many(
            ["reg", f"reg{SEP}a", f"reg{SEP}c", f"a{SEP}a"]
        )


def test_expiries_of_an_export_are_read_if_asked_for(export: Path) -> None:
    """An export tells whether anything in it expires."""
    with closing(opened(export)) as source:
        assert source.has_ttl()
        assert {5, 9, None} == {item.expires_at_ms for item in items_of(source.scan(ScanRequest()))}
        assert {None} == {item.expires_at_ms for item in items_of(source.scan(ScanRequest(ttl=False)))}


def test_a_bad_line_is_named(export: Path) -> None:
    """File, line number, reason, and what was expected; lines before it were read."""
    with export.open("ab") as out:
        out.write(b'{"key":"z","value":}\n')

    with closing(opened(export)) as source:
        pages = source.scan(ScanRequest(page_keys=1))
        assert [HASH] == list(next(pages).items)
        with pytest.raises(SourceError, match=r"export\.ndjson:8: .*malformed") as caught:
            list(pages)
        with pytest.raises(SourceError, match=r"export\.ndjson:8: "):
            source.get_many(["a"])

    assert "?key=" in caught.value.hint


@pytest.mark.parametrize("page_keys", [1, 100])
def test_a_key_that_stands_twice_is_an_error(export: Path, page_keys: int) -> None:
    """One of two values would be lost: both lines are named."""
    with export.open("ab") as out:
        out.write(write_item(Item("a", b"3")))

    with closing(opened(export)) as source:
        with pytest.raises(SourceError, match=r"export\.ndjson:8: the key 'a' stands at .*export\.ndjson:5 already"):
            list(source.scan(ScanRequest(page_keys=page_keys)))
        with pytest.raises(SourceError, match="already"):
            list(source.scan_sorted(ScanRequest()))


DOCUMENTS = b"""\xef\xbb\xbf{"_id": {"$oid": "a1"}, "n": 1.10, "n": 2 }\r
\r
  {"n":12345678901234567890123,"_id":{"$oid":"\\u00e9"}}
{"_id": {"$oid": "x"}, "deep": [[{"a": "}"}]]}"""


def test_lines_of_documents_get_keys_of_their_members(tmp_path: Path) -> None:
    """The document is the value, character for character; BOM, blank lines and CRLF are no part of it."""
    path = tmp_path / "customers.ndjson"
    path.write_bytes(DOCUMENTS)

    with closing(opened(path, "?key=customers:{_id.$oid}")) as source:
        assert [
            Item("customers:a1", b'{"_id": {"$oid": "a1"}, "n": 1.10, "n": 2 }'),
            Item("customers:é", b'{"n":12345678901234567890123,"_id":{"$oid":"\\u00e9"}}'),
            Item("customers:x", b'{"_id": {"$oid": "x"}, "deep": [[{"a": "}"}]]}'),
        ] == items_of(source.scan(ScanRequest(page_keys=1)))
        assert ["customers:a1"] == [item.key for item in source.get_many(["customers:a1"]) if item]
        assert not source.has_ttl()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": 1}', "no member _id.\\$oid"),
        (b'{"_id": {}}', "no member _id.\\$oid"),
        (b'{"_id": 1}', "no object"),
        (b"[1]", "no object"),
        (b'{"_id": {"$oid": null}}', "no string"),
        (b'{"_id": {"$oid": ["a"]}}', "no string"),
        (b'{"_id": {"$oid": "a"}', "not JSON"),
        (b"hello", "not JSON"),
        (b'{"a":%b%b}' % (b"[" * 100_000, b"]" * 100_000), "nested too deeply"),
    ],
)
def test_a_document_without_its_key_is_named(tmp_path: Path, line: bytes, why: str) -> None:
    """A key is never invented: the line that lacks it is told."""
    path = tmp_path / "customers.ndjson"
    path.write_bytes(b'{"_id": {"$oid": "a"}}\n\n' + line)

    with (
        closing(opened(path, "?key=customers:{_id.$oid}")) as source,
        pytest.raises(SourceError, match=rf"customers\.ndjson:3: .*{why}") as caught,
    ):
        list(source.scan(ScanRequest()))

    assert caught.value.hint


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("a:{id}", "a:7"),
        ("{s}", "é"),
        ("{b}-{price}", "true-1.50"),
        ("{/x.y/z~1}", "ok"),
        ("a:{o.in}:b", "a:deep:b"),
        ("all", "all"),
    ],
)
def test_key_templates_take_members_as_written(template: str, key: str) -> None:
    """Numbers keep their digits; a JSON Pointer reaches names with dots and slashes."""
    document = b'{"id":7,"s":"\\u00e9","b":true,"price":1.50,"x.y":{"z/":"ok"},"o":{"in":"deep"}}'

    assert key == DocumentKey(template).render(document)


def test_a_json_file_is_one_item(tmp_path: Path) -> None:
    """The whole file is the value, untouched, whether it is JSON or not."""
    path = tmp_path / "recipes.json"
    path.write_bytes(b' [ {"id": 1} ]\n')

    with closing(opened(path, "?key=recipes:all")) as source:
        whole = Item("recipes:all", b' [ {"id": 1} ]\n')
        [page] = source.scan(ScanRequest())
        assert [whole] == list(page.items)
        assert [] == list(source.scan(ScanRequest(), after=page.position))
        assert [whole, None] == source.get_many(["recipes:all", "x"])
        assert 1 == source.count()


def test_elements_of_a_json_array_are_items(tmp_path: Path) -> None:
    """Each keeps its characters; positions, order and look-ups work as in any source."""
    path = tmp_path / "recipes.json"
    path.write_bytes(b'[ {"id": 2, "q": 1.0} ,\n {"id":1} ]')

    with closing(opened(path, "?each=1&key=recipe:{id}")) as source:
        two, one = Item("recipe:2", b'{"id": 2, "q": 1.0}'), Item("recipe:1", b'{"id":1}')
        pages = list(source.scan(ScanRequest(page_keys=1)))
        assert [two, one] == items_of(iter(pages))
        assert [one] == items_of(source.scan(ScanRequest(), after=pages[0].position))
        assert [one, two] == items_of(source.scan_sorted(ScanRequest()))
        assert [one, None] == source.get_many(["recipe:1", "recipe:3"])
        assert 2 == source.count()


@pytest.mark.parametrize("content", [b"{}", b"[1,", b"", b"[" * 5000])
def test_a_file_that_is_no_array_has_no_elements(tmp_path: Path, content: bytes) -> None:
    """The error names the file and the other way to read it."""
    path = tmp_path / "recipes.json"
    path.write_bytes(content)

    with closing(opened(path, "?each=1&key=recipe:{id}")) as source, pytest.raises(SourceError) as caught:
        list(source.scan(ScanRequest()))

    assert "recipes.json" in str(caught.value)
    assert "each=1" in caught.value.hint


def test_an_element_without_its_key_is_named(tmp_path: Path) -> None:
    """By its index, counted from 0 as in a JSON path."""
    path = tmp_path / "recipes.json"
    path.write_bytes(b'[{"id":1},{}]')

    with closing(opened(path, "?each=1&key=recipe:{id}")) as source, pytest.raises(SourceError, match=r"json\[1\]"):
        list(source.scan(ScanRequest()))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.ndjson.gz", ""),
        ("x.json", ""),
        ("x.ndjson", "?key=constant"),
        ("x.json", "?key=constant&each=1"),
        ("x.ndjson", "?key={id}&each=1"),
        ("x.json", "?key={id}&each=yes"),
        ("x.ndjson", "?key=a:{id"),
        ("x.ndjson", "?key={a..b}"),
        ("x.ndjson", "?keys={id}"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, name: str, options: str) -> None:
    """Before anything is read, and with the form that would do."""
    path = tmp_path / name
    path.touch()

    with pytest.raises(ConfigError) as caught:
        opened(path, options)

    assert caught.value.hint


def test_a_file_that_goes_away_is_an_error(export: Path) -> None:
    """The operating system's reason is told with the file's name."""
    source = opened(export)
    export.unlink()

    with closing(source), pytest.raises(SourceError, match="No such file"):
        list(source.scan(ScanRequest()))


@pytest.mark.parametrize(
    ("name", "key", "documents"),
    [
        ("customers.ndjson", "customers:{_id.$oid}", 500),
        ("restaurant.ndjson", "restaurant:{_id.$oid}", 2548),
        ("theaters.ndjson", "theaters:{_id.$oid}", 1564),
    ],
)
def test_real_collections_survive_an_export(
    shared_data: Path, tmp_path: Path, name: str, key: str, documents: int
) -> None:
    """Read with made keys, exported in key order, read again: every document to the character."""
    with closing(opened(shared_data / name, f"?key={key}")) as source:
        items = items_of(source.scan_sorted(ScanRequest()))
    path = tmp_path / "export.ndjson"
    path.write_bytes(b"".join(map(write_item, items)))
    with closing(opened(path)) as again:
        assert items == items_of(again.scan(ScanRequest()))

    lines = {line.strip() for line in (shared_data / name).read_bytes().splitlines()}
    assert documents == len(items)
    assert lines == {item.value for item in items}


def test_elements_of_a_real_array_are_the_array(shared_data: Path) -> None:
    """As items they hold what the one value holds."""
    path = shared_data / "recipes.json"
    with closing(opened(path, "?each=1&key=recipe:{id}")) as source:
        items = items_of(source.scan(ScanRequest()))

    assert json.loads(path.read_bytes()) == [msgspec.json.decode(str(item.value, "utf-8")) for item in items]  # type: ignore[arg-type]  # bytes, as the kind says
