"""The pure parts of the comparison: equality, differences, routing, and items against expected rows."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmigrate.consistency.compare import Compared, Outcome, compare_item
from kvmigrate.consistency.decode import Decoded, Undecodable, decode_item, escape, unescape
from kvmigrate.consistency.difference import Cause, spots, value_cause
from kvmigrate.consistency.expect import ExpectedRow, expected_rows
from kvmigrate.consistency.json_exact import (
    JSON_NULL,
    JsonError,
    _equal_one_by_one,
    compact,
    equal,
    loads,
    loads_column,
)
from kvmigrate.consistency.judge import is_content
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.routing import Destination, Router, by_head
from kvmigrate.consistency.uuids import NAMESPACE, foreign_uuid, parse_uuid
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.values.content_hash import content_hash

MAPPING = load_mapping("""
version: 1
name: m
entities:
  thing:
    keys: ["thing:{id}"]
    table: things
    columns:
      id:    {key: id, type: text}
      count: {path: count, type: integer, on_bad_value: keep_raw}
      owner: {path: owner, type: text, references: thing, on_missing: "null"}
    children:
      lines:
        each: lines
        on_bad_value: keep_raw
        parent: {thing_id: id}
        columns: {position: {ordinal: true}, amount: {path: amount, type: numeric, on_bad_value: keep_raw}}
  special:
    keys: ["thing:{env=test}:{id=int}", "thing:{id=uuid}"]
    table: specials
    columns: {id: {key: id, type: text}}
  record:
    keys: [{hash: registry, field: "{id}"}]
    table: records
    columns: {id: {key: id, type: text}}
pointers: [{key: "things:all", lists: thing}]
leave_in_kv: [{key: "session:{x*}", reason: short-lived}]
""")
THING = EntityPlan(MAPPING.entity("thing"))
numbers = st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=3)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
things = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(-5, 5) | st.just("7") | st.none() | st.text(max_size=2),
        "owner": st.text(max_size=3),
        "lines": st.lists(st.fixed_dictionaries({}, optional={"amount": numbers, "x": values}), max_size=3) | st.none(),
        "more": values,
        "$": values,
    },
)


def rows_of(key: str, value: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Return the rows of a thing, its rest written by the simplest reading of the rules."""
    captured = {"id": key.partition(":")[2]}
    expected = expected_rows(THING, key, captured, Decoded(value, value))
    assert not expected.problems
    rows: dict[str, list[list[Any]]] = {}

    def write(row: ExpectedRow, children: Sequence[str]) -> None:
        rest = {("$" + name if name.startswith("$") else name): member for name, member in row.value.items()}
        for each in row.plan.path_columns:
            stored = row.values[each.index]
            if stored is not None and equal(each.kind.to_json(stored), row.value.get(each.name)):
                del rest[each.name]
        for name, below in zip(children, row.children, strict=True):
            if below:
                del rest[name]
            for child in below:
                write(child, ())
        made = list(row.values)
        if row.plan.rest is not None:
            made[row.plan.rest.index] = rest or None
        rows.setdefault(row.plan.name, []).append(made)

    write(expected.root, ("lines",))
    return rows


def compare(value: Any, rows: Any, **options: Any) -> Compared:
    """Compare the item ``thing:1`` with rows."""
    text = compact(value) if not isinstance(value, bytes) else value.decode()
    return compare_item(THING, Item("thing:1", text.encode("utf-8", "surrogatepass")), rows, **options)


@given(value=things)
def test_an_item_matches_its_own_rows(value: dict[str, Any]) -> None:
    """Comparison is reflexive: whatever an item is, its rows are no divergence."""
    if "\0" in compact(value) or "\\u0000" in compact(value):
        return
    assert Compared(Outcome.MATCH) == compare(value, rows_of("thing:1", value))


NESTED = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**70, Decimal(0), Decimal("-0.0"), Decimal(1), Decimal("1.0"), Decimal("1.50"), 1.0])
    | st.sampled_from(["", "1", "1.0", "true", "null", "a\ud800", JSON_NULL]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(NESTED, NESTED)
def test_equal_values_are_told_the_quick_way_as_one_by_one(one: Any, other: Any) -> None:
    """Booleans are no numbers, numbers count by value, in whatever spelling, order of members and size."""
    pairs = [(one, other), ([one], [other]), ({"x": one, "y": 1}, {"y": 1, "x": other}), ({"x": one}, {"x": one})]
    assert [_equal_one_by_one(*each) for each in pairs] == [equal(*each) for each in pairs]


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_any_depth_is_compared(make: Callable[[Any], Any]) -> None:
    """Where Python's own comparison gives up, one by one goes on."""
    one, other, third = 1, 1, 2
    for _ in range(20_000):
        one, other, third = make(one), make(other), make(third)

    assert (True, False) == (equal(one, other), equal(one, third))


@given(value=things, other=things)
def test_items_match_exactly_when_their_values_are_equal(value: dict[str, Any], other: dict[str, Any]) -> None:
    """No difference is missed, and none is made up."""
    if "\\u0000" in compact([value, other]):
        return
    outcome = compare(value, rows_of("thing:1", other)).outcome
    assert (Outcome.MATCH if equal(value, other) else Outcome.DIFFERENT) == outcome


def test_a_reference_may_be_null_while_the_item_waits_for_it() -> None:
    """on_missing: null leaves the id in rest; only the very value that is awaited is tolerated."""
    rows = {"things": [["1", None, None, {"owner": "2"}]]}
    awaited = [("things", "owner", "2")]
    assert [column.name for column in THING.root.columns] == ["id", "count", "owner", "rest"]
    tolerated = Compared(Outcome.TOLERATED, (), frozenset(["on_missing null: things.owner"]))
    assert tolerated == compare({"owner": "2"}, rows, awaited=awaited)
    assert Cause.MOVED is compare({"owner": "2"}, rows).differences[0].cause
    assert Outcome.DIFFERENT is compare({"owner": "3"}, rows, awaited=awaited).outcome
    assert Outcome.DIFFERENT is compare({"owner": "2", "count": 5}, rows, awaited=awaited).outcome
    lost = {"things": [["1", None, None, None]]}
    assert Outcome.DIFFERENT is compare({"owner": "2"}, lost, awaited=awaited).outcome


@pytest.mark.parametrize("value", [b"{", b"[1]", b'{"a": NaN}', b"\xef\xbb\xbf{}", b'"text"', b"null"])
def test_what_cannot_be_an_item_of_the_rows_differs(value: bytes) -> None:
    """An item that the rules refuse must not have rows."""
    found = compare_item(THING, Item("thing:1", value), {"things": [["1", None, None, None]]})
    assert (Outcome.DIFFERENT, Cause.TYPE) == (found.outcome, found.differences[0].cause)


@given(value=values)
def test_equality_is_that_of_json(value: Any) -> None:
    """A value equals what its text reads back as, and differs from itself in a list."""
    assert equal(value, loads(compact(value)))
    assert not equal(value, [value])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True),
        ("1e2", "100", True),
        ("0.1", "0.10000000000000000001", False),
        ("1", "true", False),
        ("0", "false", False),
        ('""', "null", False),
        ("[]", "{}", False),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": 1, "b": 2}', '{"b": 2.0, "a": 1}', True),
        ('{"a": null}', "{}", False),
        ('{"a": 1, "a": 2}', '{"a": 2}', True),
        ("9" * 5000, "9" * 5000, True),
        ("9" * 5000, "9" * 4999 + "8", False),
    ],
)
def test_equality_of_texts(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a table of cases
    """Numbers by exact value and never as booleans, empties told apart."""
    assert same is equal(loads(one), loads(other))


def test_deep_values_are_compared_without_recursion() -> None:
    """Depth is limited by the reader of JSON alone."""
    one, other = [1], [2]
    for _ in range(5000):
        one, other = [one], [other]  # type: ignore[list-item]  # nested on purpose
    assert not equal(one, other)
    assert Cause.NUMBER is next(spots(one, other)).cause


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "\ufeff1", "1 2", "{'a': 1}", "01", "1e99999999999999999999", "[" * 200_000]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    """Refused with a reason, whatever it is."""
    with pytest.raises(JsonError):
        loads(text)


def test_a_null_in_a_jsonb_column_is_no_sql_null() -> None:
    """Both would be None otherwise."""
    assert JSON_NULL is loads_column("null")
    assert [None] == loads_column("[null]")


@given(text=st.text(alphabet="\u241b\0\ud800a0u", max_size=8))
def test_escapes_are_reversible(text: str) -> None:
    """Whatever the text holds."""
    assert {text: [text]} == unescape(escape({text: [text]}))
    assert "\0" not in escape(text)


@pytest.mark.parametrize(
    ("value", "flags", "decoded"),
    [
        (b'"{\\"a\\":1}"', {"double-json"}, {"a": 1}),
        (b'"[1]"', {"double-json"}, [1]),
        (b'"1"', set(), "1"),
        (b'"{"', set(), "{"),
        (b'"\\"[1]\\""', set(), '"[1]"'),
        (b'{"a":1}', set(), {"a": 1}),
    ],
)
def test_double_encoded_items_are_unwrapped_once(value: bytes, flags: set[str], decoded: Any) -> None:
    """Only a string that holds an object or an array is one."""
    made = decode_item(MAPPING.entity("thing"), Item("thing:1", value))
    assert isinstance(made, Decoded)
    assert (decoded, frozenset(flags)) == (made.value, made.flags)


def test_kinds_that_no_mapping_reads_are_undecodable() -> None:
    """SQL NULL, lists and sets have no value, and a hash with bytes that are no text neither."""
    entity = MAPPING.entity("thing")
    for item in (
        Item("thing:1", None, ItemKind.NULL),
        Item("thing:1", "list", ItemKind.OTHER),
        Item("thing:1", {b"a": b"\xff"}, ItemKind.HASH),
        Item("thing:1", b'{"a": "\\u0000"}'),
    ):
        assert isinstance(decode_item(entity, item), Undecodable)


@pytest.mark.parametrize(
    ("expected", "actual", "cause"),
    [
        (None, 1, Cause.NULL_MISSING),
        ([], {}, Cause.NULL_MISSING),
        ("1", 1, Cause.TYPE),
        (True, 1, Cause.TYPE),
        (1, 2, Cause.NUMBER),
        ([1, 2], [2, 1], Cause.ORDER),
        ([1, 2], [1], Cause.CHILD_COUNT),
        ([1, 2], [1, 3], Cause.CHANGED),
        ("a", "b", Cause.CHANGED),
        ("2024-06-01T12:00:00Z", "2024-06-01T13:30:00Z", Cause.TIMEZONE),
        ("2024-06-01T12:00:00Z", "2024-06-01T12:00:07Z", Cause.CHANGED),
        (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 5, tzinfo=dt.UTC), Cause.TIMEZONE),
        (Decimal(1), 1.5, Cause.NUMBER),
    ],
)
def test_causes(expected: Any, actual: Any, cause: Cause) -> None:
    """Every kind of difference has its name."""
    assert cause is value_cause(expected, actual)


LONE = load_mapping("""
version: 1
name: lone
entities:
  order:
    keys: ["order:{id}"]
    table: orders
    columns: {id: {key: id, type: text}}
leave_in_kv: [{key: "left:{id}", reason: short-lived}]
""")


@given(one=values, other=values)
def test_spots_are_found_exactly_where_values_differ(one: Any, other: Any) -> None:
    """Unequal values have a spot, equal ones none."""
    assert equal(one, other) is not bool(list(spots(one, other)))


@pytest.mark.parametrize(
    ("key", "destination", "entity"),
    [
        ("thing:1", Destination.ENTITY, "thing"),
        ("thing:test:1", Destination.ENTITY, "special"),
        ("thing:test:x", Destination.UNMATCHED, ""),
        ("thing:6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01", Destination.ENTITY, "special"),
        ("thing:", Destination.UNMATCHED, ""),
        ("thing:a\nb", Destination.ENTITY, "thing"),
        ("thing:a\0b", Destination.UNMATCHED, ""),
        ("thing:" + "é" * 1000, Destination.UNMATCHED, ""),
        ("registry\u241f7", Destination.ENTITY, "record"),
        ("registry", Destination.UNMATCHED, ""),
        ("things:all", Destination.POINTER, ""),
        ("session:", Destination.LEFT_IN_KV, ""),
        ("session:a:b", Destination.LEFT_IN_KV, ""),
    ],
)
def test_routing(key: str, destination: Destination, entity: str) -> None:
    """The pattern that constrains most decides."""
    routed = Router(MAPPING).route(key)
    assert (destination, entity) == (routed.destination, routed.entity.name if routed.entity else "")


def test_keys_of_one_pattern_are_routed_together_as_one_by_one() -> None:
    """What may be of several patterns, or of none, is told by nobody but `route`."""
    router = Router(LONE)
    told = router.alike(["order:1", "order:x y\n"])
    assert told is not None
    assert [router.route(key)[1:] for key in ("order:1", "order:x y\n")] == [(told[0], each) for each in told[1]]
    for odd in ("order:", "order:a:b", "order:\0", "orders:1", "order", "", "order:" + "x" * 1000, "left:1"):
        assert router.alike(["order:1", odd]) is None
        assert router.alike([odd, "order:1"]) is None
    assert [["order:1", "order:2"], ["left:1"], ["x"]] == by_head(["order:1", "left:1", "order:2", "x"])


def test_hashes_that_are_tables_are_exploded() -> None:
    """Only those that a pattern of fields names."""
    router = Router(MAPPING)
    assert (True, False) == (router.explodes("registry"), router.explodes("thing:1"))


def test_foreign_ids_are_hashed_as_the_standard_says() -> None:
    """Against Python's own UUIDv5."""
    import uuid

    assert uuid.uuid5(NAMESPACE, "client\0é7") == foreign_uuid("client", "é7")
    text = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
    for spelling in (text, text.upper(), text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}"):
        assert uuid.UUID(text) == parse_uuid(spelling)
    assert [None] * 3 == [parse_uuid(odd) for odd in (text + "0", f"{{{text}", "1-2345678123456781234567812345678")]


@given(
    value=st.binary() | st.dictionaries(st.binary(max_size=3), st.binary(max_size=3)),
    expires=st.none() | st.integers(0, 2**50),
)
def test_content_is_hashed_as_the_ledger_has_it(value: Any, expires: int | None) -> None:
    """Two implementations of one hash."""
    item = Item("k", value, ItemKind.HASH if isinstance(value, dict) else ItemKind.JSON, expires)
    assert is_content(item, content_hash(item))
    assert not is_content(item, content_hash(item._replace(value=b"another")))


def test_json_texts_are_plain() -> None:
    """The compact text of a value is the one way to write it."""
    assert '{"a":[1.5,100,0,null,true,"é"],"b":{}}' == compact(
        {"b": {}, "a": [Decimal("1.50"), Decimal("1E+2"), Decimal("-0.0"), None, True, "é"]}
    )
    assert json.loads(compact({"a\n": "\u2028"})) == {"a\n": "\u2028"}


PERSONAL = EntityPlan(
    load_mapping("""
version: 1
name: m
entities:
  user:
    keys: ["user:{id}"]
    table: users
    columns:
      id:    {key: id, type: text}
      email: {path: email, type: text, personal: true}
      city:  {path: city, type: text}
    children:
      friends:
        each: friends
        parent: {user_id: id}
        columns:
          address: {map_key: true, type: text, personal: true}
          since:   {path: since, type: integer}
""").entity("user")
)


def test_personal_values_are_never_shown() -> None:
    """Neither a column's, though values were asked for, nor a member's name in a path."""
    item = Item(
        "user:1", json.dumps({"email": "a@x.org", "city": "Rome", "friends": {"b@x.org": {"since": 1}}}).encode()
    )
    orders = {plan.name: [each.name for each in plan.table.columns] for plan in PERSONAL.tables}
    values: dict[str, dict[str, Any]] = {
        "users": {"id": "1", "email": "c@x.org", "city": "Oslo"},
        "friends": {"user_id": "1", "address": "b@x.org", "since": 2},
    }
    rows = {name: [[values[name].get(column) for column in names]] for name, names in orders.items()}

    found = compare_item(PERSONAL, item, rows, show_values=True).differences

    assert ["$.email", "$.city", "$.friends['*'].since"] == [each.path for each in found]
    told = str(found)
    assert ("Rome" in told, "Oslo" in told, "@x.org" in told) == (True, True, False)
