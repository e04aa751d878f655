"""The mapping file: each mistake is told where it stands, and each feature that is not built is refused."""

import random
import re
from decimal import Decimal
from pathlib import Path

import pytest

from kvmigrate.errors import MappingError, NotSupportedError
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from kvmigrate.transform.mapping import Role

GOOD = """\
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: uuid}
      name: {path: name, type: text}
      price: {path: price, type: "numeric(12,2)", default: 0.1}
    primary_key: [id]
    children:
      orders:
        each: orders
        parent: {client_id: id}
        columns:
          position: {ordinal: true}
          at: {path: at, type: timestamptz}
"""

# What stands in GOOD, what stands there instead, the place of the mistake, what is said.
WRONG = [
    ("version: 1", "version: 2", 1, 10, "version must be 1"),
    ("version: 1", "version: true", 1, 10, "version must be 1"),
    ("version: 1", "version: '1'", 1, 10, "version must be 1"),
    ("name: shop", "name: ''", 2, 7, "1 to 63 bytes"),
    ("name: shop", "nam: shop", 2, 6, "did you mean 'name'"),
    ("name: shop", "name: shop\nname: shop", 3, 1, "twice"),
    ("    table: clients", "    tabel: clients", 6, 12, "did you mean 'table'"),
    ("    table: clients\n", "", 5, 5, "needs a table"),
    ('["client:{id}"]', "[]", 5, 11, "keys is empty"),
    ('["client:{id}"]', "client", 5, 11, "keys must be a list"),
    ("client:{id}", "client:{id}{x}", 5, 12, "need text between"),
    ("client:{id}", "client:{id", 5, 12, "unbalanced"),
    ("client:{id}", "client:{id}:{x}", 5, 12, "{x}"),
    ("client:{id}", "client:{x}", 8, 11, "captures 'id'"),
    ("{key: id, type: uuid}", "{key: id}", 8, 11, "has no type"),
    ("{key: id, type: uuid}", "{key: id, type: uiud}", 8, 27, "unknown type"),
    ("{key: id, type: uuid}", "{type: uuid}", 8, 11, "takes one of"),
    ("{key: id, type: uuid}", "{key: id, type: uuid, foreign_ids: uuid4}", 8, 46, "uuid5"),
    ("{path: name, type: text}", "{path: name, type: text, format: iso}", 9, 46, "takes no format"),
    ("{path: name, type: text}", "{path: name, type: enum}", 9, 13, "needs values"),
    ("{path: name, type: text}", "{path: name, type: enum, values: [a, a]}", 9, 46, "different"),
    ("{path: name, type: text}", "{path: a..b, type: text}", 9, 20, "empty member name"),
    ("{path: name, type: text}", "{path: [], type: text}", 9, 20, "aliases"),
    ("{path: name, type: text}", "{path: price.x, type: text}", 10, 14, "both claim"),
    ("{path: name, type: text}", "{path: orders, type: text}", 14, 9, "both claim"),
    ("{path: name, type: text}", "{path: name, type: text, references: shop}", 5, 5, "no entity"),
    ("{path: name, type: text}", "{path: name, type: text, on_missing: wait}", 9, 13, "goes with references"),
    ("{path: name, type: text}", "{path: name, type: text, search: fuzzy}", 9, 46, "trigram"),
    ("{path: name, type: text}", "{path: name, type: text, forward: 'a:b'}", 9, 13, "go together"),
    ("{path: name, type: text}", "{path: name, type: text, required: 1}", 9, 48, "true or false"),
    ("{path: name, type: text}", "{path: name, type: text, zone: UTC}", 9, 44, "timestamptz"),
    ("{path: name, type: text}", "{path: name, type: text, on_bad_value: drop}", 9, 52, "keep_raw"),
    ("{path: name, type: text}", "{path: name, type: text, on_bad_value: null}", 9, 52, 'write "null" in quotes'),
    ("default: 0.1", "default: 0.001", 10, 60, "does not fit"),
    ("default: 0.1", "default: .nan", 10, 60, "JSON can hold"),
    ("default: 0.1", "default: null", 10, 60, "not null"),
    ("default: 0.1", "default: 2024-02-30", 10, 60, "no timestamp"),
    ("primary_key: [id]", "primary_key: [idd]", 11, 19, "'idd' is not a column"),
    ("primary_key: [id]", "primary_key: [id, id]", 11, 18, "different"),
    ("primary_key: [id]", "unique: [[[id]]]", 11, 15, "text"),
    ("primary_key: [id]", "indexes: [[name down]]", 11, 16, "desc"),
    ("primary_key: [id]", "rest: name", 5, 5, "two columns called 'name'"),
    ("primary_key: [id]", "tenant: shop", 11, 13, "not a column"),
    ("primary_key: [id]", "expires: never", 11, 14, "leave_in_kv"),
    ("        each: orders\n", "", 14, 9, "needs each"),
    ("parent: {client_id: id}", "parent: {client_id: name}", 14, 9, "must copy"),
    ("parent: {client_id: id}", "parent: {client_id: nam}", 15, 29, "not a column of the parent"),
    ("position: {ordinal: true}", "position: {path: p, type: text}", 14, 9, "ordinal"),
    ("position: {ordinal: true}", "position: {ordinal: true, type: text}", 17, 43, "smallint"),
    ("{path: at, type: timestamptz}", "{path: at, type: timestamptz, format: [epoch_s, epoch_ms]}", 18, 15, "keep one"),
    ("{path: at, type: timestamptz}", "{path: at, type: timestamptz, zone: Mars/X}", 18, 51, "not a time zone"),
    (
        "{path: at, type: timestamptz}",
        "{path: at, type: timestamptz, default: '2024-01-01T00:00Z'}",
        18,
        15,
        "root table",
    ),
    ("{path: at, type: timestamptz}", "{key: id, type: text}", 18, 15, "come from the element"),
    ("name: shop", "name: *nope", 2, 7, "alias"),
    ("name: shop", 'name: "\\ud800"', 2, 7, "surrogate"),
    ("name: shop", "name: !!python/name:os.system ''", 2, 7, "constructor"),
    ("name: shop", "name: [", 4, 9, "expected"),
]


def test_the_good_file_is_good() -> None:
    """The file that the mistakes are made in has none; a default is exact."""
    mapping = load_mapping(GOOD)

    assert Decimal("0.1") == mapping.entity("client").root.column("price").default
    assert ["clients", "orders"] == [table.name for _, table in mapping.tables()]


@pytest.mark.parametrize(("right", "wrong", "line", "column", "said"), WRONG, ids=[each[1][:40] for each in WRONG])
def test_mistakes_are_told_where_they_stand(right: str, wrong: str, line: int, column: int, said: str) -> None:
    """Line, column and a sentence that helps; one mistake at a time."""
    assert 1 == GOOD.count(right)

    with pytest.raises(MappingError, match=re.escape(said)) as told:
        load_mapping(GOOD.replace(right, wrong))

    assert (line, column) == (told.value.line, told.value.column), told.value
    assert f":{line}:{column}: " in str(told.value)


@pytest.mark.parametrize("key", ["history", "partition_by", "retention", "views", "access", "policies"])
@pytest.mark.parametrize(
    ("indent", "after"), [("", "name: shop\n"), ("    ", "table: clients\n"), ("        ", "each: orders\n")]
)
def test_later_keys_are_refused_as_such(key: str, indent: str, after: str) -> None:
    """What is planned and not built says so, wherever it stands, instead of being ignored."""
    text = GOOD.replace(after, f"{after}{indent}{key}: {{a: b}}\n")

    with pytest.raises(NotSupportedError, match=f"'{key}' is not supported yet") as told:
        load_mapping(text)

    assert text[: text.index(f"{key}:")].count("\n") + 1 == told.value.line
    assert key in told.value.hint


@pytest.mark.parametrize(
    "text", ["\n", "# nothing\n", "[]\n", "a\n", "{}\n", "version: 1\nname: x\nentities: {}\n", "&a [*a]\n"]
)
def test_files_that_are_no_mapping(text: str) -> None:
    """Empty, of another shape, or within itself: refused as a mapping, never by a traceback."""
    with pytest.raises(MappingError):
        load_mapping(text)


def test_a_file_is_named(tmp_path: Path) -> None:
    """Mistakes in a file carry its name; a file that is not there or not UTF-8 says so."""
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD.replace("version: 1", "version: 3"))
    with pytest.raises(MappingError, match=r"shop\.yaml:1:10: version"):
        load_mapping(file)
    with pytest.raises(MappingError, match="cannot read"):
        load_mapping(tmp_path / "none.yaml")
    file.write_bytes(b"\xff\n")
    with pytest.raises(MappingError, match="cannot read"):
        load_mapping(file)


def test_the_fingerprint_is_of_what_is_said() -> None:
    """Comments and layout do not change it; values and the order of columns do."""
    plain = load_mapping(GOOD).fingerprint

    assert (
        plain
        == load_mapping("# hello\n" + GOOD.replace("{key: id, type: uuid}", "{key:   id, type: 'uuid'}")).fingerprint
    )
    assert plain != load_mapping(GOOD.replace("type: text", "type: jsonb")).fingerprint
    swapped = re.sub(r"(      name: .*\n)(      price: .*\n)", r"\2\1", GOOD)
    assert plain != load_mapping(swapped).fingerprint


def test_generated_columns() -> None:
    """What a mapping leaves implicit is there after loading: owner, expiry, rest, copies."""
    text = GOOD.replace('"client:{id}"', '"client:{id}", "clients:{id}"').replace(
        "primary_key: [id]", "expires: column"
    )
    entity = load_mapping(text).entity("client")

    assert [Role.KEY, Role.PATH, Role.PATH, Role.SOURCE_KEY, Role.EXPIRES, Role.REST] == [
        column.role for column in entity.root.columns
    ]
    assert not entity.owned_by_source_key
    child = entity.root.children[0]
    assert ("client_id", "position") == child.primary_key
    assert [("client_id",), True] == [child.foreign_keys[0].columns, child.foreign_keys[0].owned]


def test_no_file_ends_in_a_traceback() -> None:
    """Random damage is either told as a mistake, nearly always with its line, or makes a mapping that compiles."""
    told = without_line = 0
    for seed in range(1_200):
        rnd = random.Random(seed)
        text = _damaged(rnd)
        try:
            compile_mapping(load_mapping(text))
        except MappingError as exc:
            told += 1
            without_line += not (exc.line or "nested too deep" in str(exc))
    assert 0 == without_line
    assert 600 < told < 1_200


def _damaged(rnd: random.Random) -> str:
    values = [
        "null",
        "[]",
        "{}",
        "[[]]",
        "1",
        "1.5",
        "true",
        "2024-13-45",
        "!!int x",
        "!!bool x",
        "!!timestamp x",
        "&a [*a]",
    ]
    values += [
        '"\\ud800"',
        '"\\0"',
        "''",
        "{a: {b: [c]}}",
        ".inf",
        "'{id}'",
        "'a}b'",
        "1:99:99",
        "<<: {a: 1}",
        "? [a] : b",
    ]
    values += ["!!set {a}", "!!binary '*'", "[[[a]]]", "'" + "x" * 70 + "'", "'/~2'", "'a..b'", "'a\"\\b'"]
    lines = GOOD.split("\n")
    at = rnd.randrange(len(lines))
    draw = rnd.random()
    parts = list(re.finditer(r"(: |\[|, )([^,\[\]{}:]+)", lines[at]))
    if draw < 0.7 and parts:
        part = rnd.choice(parts)
        lines[at] = lines[at][: part.start(2)] + rnd.choice(values) + lines[at][part.end(2) :]
    elif draw < 0.85:
        del lines[at]
    else:
        lines.insert(at, rnd.choice(lines))
    return "\n".join(lines)
