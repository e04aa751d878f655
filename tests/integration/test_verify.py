"""Each kind of fault, put into real tables by hand, is found and named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.consistency.difference import Cause, Difference
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.errors import ConfigError, SchemaError
from tests.verify_stand import VerifyStand

KEY = "thing:7"
ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
MAPPING = """
version: 1
name: things
entities:
  thing:
    keys: ["thing:{id}", "things:{id}"]
    table: things
    columns:
      id:       {key: id, type: integer}
      name:     {path: name, type: text, personal: true}
      flag:     {path: flag, type: boolean}
      small:    {path: small, type: smallint}
      big:      {path: big, type: bigint}
      price:    {path: price, type: "numeric(12,2)"}
      plain:    {path: plain, type: numeric}
      ratio:    {path: ratio, type: double precision}
      share:    {path: share, type: real}
      ref:      {path: ref, type: uuid}
      day:      {path: day, type: date}
      clock:    {path: clock, type: time}
      at:       {path: at, type: timestamptz}
      epoch:    {path: epoch, type: timestamptz, format: epoch_ms}
      span:     {path: span, type: interval}
      raw:      {path: raw, type: bytea}
      data:     {path: data, type: jsonb}
      kind:     {path: kind, type: enum, values: [a, b]}
      tags:     {path: tags, type: "text[]"}
      numbers:  {path: numbers, type: "integer[]"}
      loose:    {path: loose, type: integer, on_bad_value: "null"}
    primary_key: [id]
    expires: column
    children:
      lines:
        each: lines
        parent: {thing_id: id}
        columns:
          position: {ordinal: true}
          label:    {path: label, type: text}
          amount:   {path: amount, type: integer}
        children:
          notes:
            each: notes
            parent: {thing_id: thing_id, line: position}
            columns: {place: {ordinal: true}, note: {value: true, type: text}}
      facts:
        each: facts
        parent: {thing_id: id}
        columns: {name: {map_key: true}, fact: {value: true, type: text}}
  list:
    keys: ["list:{owner}"]
    rows_only: true
    columns:
      owner: {key: owner, type: text}
    children:
      entries:
        each: ""
        parent: {owner: owner}
        columns: {position: {ordinal: true}, entry: {value: true, type: text}}
pointers:
  - {key: "things:all", lists: thing}
"""
THING: dict[str, Any] = {
    "name": "Ann",
    "flag": True,
    "small": 1,
    "big": 2**53 + 1,
    "price": 12.5,
    "plain": 3.25,
    "ratio": 0.1,
    "share": 0.5,
    "ref": ID,
    "day": "2024-02-29",
    "clock": "10:30:00",
    "at": "2024-06-01T12:00:00.000Z",
    "epoch": 1717243200000,
    "span": "P1DT2H",
    "raw": "aGk=",
    "data": {"a": [1, None]},
    "kind": "a",
    "tags": ["x", "y", None],
    "numbers": [1, 2],
    "loose": 5,
    "extra": {"kept": 1},
    "lines": [{"label": "l0", "amount": 1, "notes": ["n0", "n1"]}, {"label": "l1", "amount": 2}],
    "facts": {"f": "1", "g": "2"},
}


@pytest.fixture
def stand(database: str, tmp_path: Path) -> Iterator[VerifyStand]:
    """A store of two things and a list, and their rows."""
    made = VerifyStand(database, tmp_path, MAPPING)
    made.load({KEY: THING, "things:8": {"name": "Bob"}, "list:x": ["a", "b"], "things:all": [7, 8]})
    yield made
    made.close()


def only(report: VerifyReport) -> Difference:
    """Return the one difference of a report."""
    assert (1, 1) == (report.different, len(report.examples)), report.to_json()
    assert report.divergent
    return report.examples[0]


def test_what_was_loaded_matches(stand: VerifyStand) -> None:
    """Rows as the lens writes them are no divergence, and every key is in one count."""
    report = stand.verify()
    assert (3, 3, 0) == (report.compared, report.matched, report.pending)
    assert {"pointers": 1} == {name: count for name, count in report.outside.items() if count}
    assert not report.divergent
    assert ("things:all", True) == (report.verified_up_to, report.complete)


@pytest.mark.parametrize(
    ("column", "value", "cause"),
    [
        ("name", "An", Cause.CHANGED),
        ("name", None, Cause.NULL_MISSING),
        ("name", "", Cause.NULL_MISSING),
        ("flag", False, Cause.CHANGED),
        ("small", 2, Cause.NUMBER),
        ("big", 2**53, Cause.NUMBER),
        ("price", "12.49", Cause.NUMBER),
        ("plain", "NaN", Cause.NUMBER),
        ("ratio", 0.10000000000000002, Cause.NUMBER),
        ("share", 0.5000001, Cause.NUMBER),
        ("ref", ID[:-1] + "2", Cause.CHANGED),
        ("day", "2024-03-01", Cause.CHANGED),
        ("day", "infinity", Cause.TYPE),
        ("clock", "10:30:01", Cause.CHANGED),
        ("at", "2024-06-01 14:00:00+00", Cause.TIMEZONE),
        ("at", "2024-06-01 12:00:00.000001+00", Cause.CHANGED),
        ("at", "infinity", Cause.TYPE),
        ("epoch", "2024-06-01 17:30:00+00", Cause.TIMEZONE),
        ("span", "P1DT2H0.001S", Cause.CHANGED),
        ("span", "1 month", Cause.TYPE),
        ("raw", b"ho", Cause.CHANGED),
        ("data", '{"a": [1]}', Cause.CHANGED),
        ("data", "null", Cause.NULL_MISSING),
        ("kind", "b", Cause.CHANGED),
        ("tags", ["y", "x", None], Cause.ORDER),
        ("tags", ["x", "y"], Cause.CHILD_COUNT),
        ("numbers", [1, 3], Cause.CHANGED),
        ("loose", 6, Cause.NUMBER),
    ],
)
def test_a_changed_value_is_found_in_its_column(stand: VerifyStand, column: str, value: Any, cause: Cause) -> None:
    """Whatever the type, another value in one column is found there, and named."""
    stand.execute(f"UPDATE things SET {column} = %s WHERE id = 7", [value])  # noqa: S608 - columns of this test
    found = only(stand.verify())
    assert (KEY, f"$.{column}", "things", column, cause) == found[:5]


def test_a_value_moved_into_rest_is_found_though_the_blob_still_rebuilds(stand: VerifyStand) -> None:
    """What a column can hold must be in the column."""
    stand.execute("UPDATE things SET price = NULL, rest = rest || '{\"price\": 12.5}' WHERE id = 7")
    found = only(stand.verify())
    assert ("$.price", "price", Cause.MOVED) == (found.path, found.column, found.cause)


def test_a_value_in_its_column_and_in_rest_is_found(stand: VerifyStand) -> None:
    """Rest holds only what no column carries."""
    stand.execute("UPDATE things SET rest = rest || '{\"price\": 12.50}' WHERE id = 7")
    assert ("$.price", Cause.EXTRA_FIELD) == (only(stand.verify()).path, only(stand.verify()).cause)


def test_a_column_filled_though_the_blob_has_no_such_member_is_found(stand: VerifyStand) -> None:
    """NULL is not the same as a value that happens to be empty."""
    stand.execute("UPDATE things SET name = NULL, day = '2024-01-01' WHERE id = 8")
    report = stand.verify()
    assert {("$.name", Cause.NULL_MISSING), ("$.day", Cause.NULL_MISSING)} == {
        (found.path, found.cause) for found in report.examples
    }


@pytest.mark.parametrize(
    ("patch", "path", "cause"),
    [
        ("rest - 'extra'", "$.extra", Cause.NULL_MISSING),
        ("jsonb_set(rest, '{extra,kept}', '2')", "$.extra.kept", Cause.NUMBER),
        ("jsonb_set(rest, '{extra,more}', 'null')", "$.extra.more", Cause.EXTRA_FIELD),
        ("jsonb_set(rest, '{extra}', '[]')", "$.extra", Cause.NULL_MISSING),
        ("jsonb_set(rest, '{extra}', '\"text\"')", "$.extra", Cause.TYPE),
        ('rest || \'{"$": {"item": ["double-json"]}}\'', "$", Cause.TYPE),
        ("rest || '{\"$$x\": 1}'", "$['$x']", Cause.EXTRA_FIELD),
    ],
)
def test_a_changed_rest_is_found_in_the_rebuilt_blob(stand: VerifyStand, patch: str, path: str, cause: Cause) -> None:
    """Members that no column claims are compared, too."""
    stand.execute(f"UPDATE things SET rest = {patch} WHERE id = 7")  # noqa: S608 - patches of this test
    found = only(stand.verify())
    assert (path, "rest", cause) == (found.path, found.column, found.cause)


def test_swapped_children_are_an_order_fault(stand: VerifyStand) -> None:
    """The same rows at other positions are one difference, not one for each column."""
    stand.execute("DELETE FROM notes")
    stand.execute("UPDATE lines SET position = 9 WHERE position = 0")
    stand.execute("UPDATE lines SET position = 0 WHERE position = 1")
    stand.execute("UPDATE lines SET position = 1 WHERE position = 9")
    causes = {(found.path, found.table, found.cause) for found in stand.verify().examples}
    assert ("$.lines", "lines", Cause.ORDER) in causes
    stand.execute("UPDATE entries SET position = 1 - position + 10")
    assert Cause.ORDER in {found.cause for found in stand.verify().examples if found.table == "entries"}


@pytest.mark.parametrize(
    ("statement", "path", "table", "cause"),
    [
        ("DELETE FROM lines WHERE position = 1", "$.lines", "lines", Cause.CHILD_COUNT),
        ("INSERT INTO lines VALUES (7, 2, 'x', 1)", "$.lines", "lines", Cause.CHILD_COUNT),
        ("UPDATE lines SET position = 5 WHERE position = 1", "$.lines", "lines", Cause.ORDER),
        ("UPDATE lines SET amount = 3 WHERE position = 1", "$.lines[1].amount", "lines", Cause.NUMBER),
        ("DELETE FROM notes WHERE place = 1", "$.lines[0].notes", "notes", Cause.CHILD_COUNT),
        ("UPDATE notes SET note = 'other' WHERE place = 1", "$.lines[0].notes[1]", "notes", Cause.CHANGED),
        ("UPDATE notes SET line = 1", "$.lines[0].notes", "notes", Cause.CHILD_COUNT),
        ("DELETE FROM facts WHERE name = 'f'", "$.facts", "facts", Cause.CHILD_COUNT),
        ("UPDATE facts SET name = 'h' WHERE name = 'g'", "$.facts", "facts", Cause.MISSING_ROW),
        ("UPDATE facts SET fact = '3' WHERE name = 'g'", "$.facts.g", "facts", Cause.CHANGED),
        ("UPDATE things SET source_key = 'things:7' WHERE id = 7", "$", "things", Cause.MOVED),
        ("UPDATE things SET expires_at = now() + interval '1 day' WHERE id = 7", "$", "things", Cause.NULL_MISSING),
    ],
)
def test_a_fault_in_the_rows_is_found_where_it_is(
    stand: VerifyStand, statement: str, path: str, table: str, cause: Cause
) -> None:
    """Children, their order, their number, the owner and the expiry."""
    stand.execute(statement)
    assert (path, table, cause) in {(found.path, found.table, found.cause) for found in stand.verify().examples}


def test_a_missing_row_is_missing(stand: VerifyStand) -> None:
    """An item in store and ledger without its row."""
    stand.execute("DELETE FROM things WHERE id = 7")
    report = stand.verify()
    assert (1, 0, Cause.MISSING_ROW) == (report.missing, report.different, report.examples[0].cause)


def test_an_item_that_the_ledger_does_not_know_is_missing(stand: VerifyStand) -> None:
    """New in the store: nothing was migrated of it."""
    stand.store({"thing:9": {"name": "new"}})
    report = stand.verify()
    assert (1, 0, 3) == (report.missing, report.extra, report.matched)


def test_rows_of_an_item_that_is_gone_from_the_store_are_extra(stand: VerifyStand) -> None:
    """A delete that never reached the tables, at either end of the keys and in the middle."""
    for key in ("list:x", KEY, "things:8"):
        stand.forget(key)
        assert {"extra": 1} == counts(stand.verify()), key
        stand.store({key: {"list:x": ["a", "b"], KEY: THING, "things:8": {"name": "Bob"}}[key]})
        assert not stand.verify().divergent


def test_rows_that_no_ledger_entry_accounts_for_are_extra(stand: VerifyStand) -> None:
    """A row of no item, of a deleted item, of another address, and a child without its parent."""
    stand.execute("INSERT INTO things (id, name) VALUES (99, 'stranger')")
    report = stand.verify()
    assert ({"extra": 1}, "thing:99") == (counts(report), report.examples[0].key)
    stand.enter("thing:99", {}, "thing", deleted=True)
    assert {"extra": 1} == counts(stand.verify())
    stand.execute("UPDATE things SET source_key = 'things:8x' WHERE id = 99")
    assert {"extra": 1} == counts(stand.verify())
    stand.execute("DELETE FROM things WHERE id = 99")
    stand.execute("ALTER TABLE lines DROP CONSTRAINT lines_thing_id_fkey")
    stand.execute("INSERT INTO lines VALUES (55, 0, 'orphan', 1)")
    assert {"extra": 1} == counts(stand.verify())


def test_rows_without_ledger_entry_of_an_item_in_the_store_are_counted_once(stand: VerifyStand) -> None:
    """The item is missing from the ledger; its rows are not extra as well."""
    stand.execute("DELETE FROM kvmigrate.ledger WHERE key = 'thing:7'")
    assert {"missing": 1} == counts(stand.verify())


def test_an_older_version_in_the_tables_is_stale(stand: VerifyStand) -> None:
    """The ledger tells that the store has been written since."""
    stand.store({KEY: {**THING, "price": 13, "name": "Eve"}})
    found = only(stand.verify())
    assert (Cause.STALE, "things") == (found.cause, found.table)


def test_another_spelling_of_the_same_value_matches(stand: VerifyStand) -> None:
    """Equality is that of JSON: member order, white space and 12.5 against 12.50 do not count."""
    text = (
        json.dumps(dict(reversed(THING.items())), indent=2).replace("12.5,", "12.500,").replace('"Ann"', '"\\u0041nn"')
    )
    stand.store({KEY: text.encode()})
    assert {} == counts(stand.verify())


def test_waiting_and_quarantined_items_are_not_divergence(stand: VerifyStand) -> None:
    """They are counted apart, as long as the tables of waiting and quarantined items hold them."""
    stand.store({"thing:20": {"price": "N/A"}, "thing:21": {}, "thing:22": {"price": "N/A"}})
    stand.enter("thing:20", {"price": "N/A"}, "thing", status="quarantined")
    stand.enter("thing:21", {}, "thing", status="waiting")
    stand.enter("thing:22", {"price": "old"}, "thing", status="quarantined")
    report = stand.verify()
    assert {"different": 3} == counts(report)
    for key in ("thing:20", "thing:22"):
        stand.quarantine(key)
    stand.wait("thing:21")
    report = stand.verify()
    assert (1, 2, False) == (report.not_comparable, report.pending, report.divergent)


def test_a_declared_loss_is_tolerated_and_named(stand: VerifyStand) -> None:
    """on_bad_value: null drops a value, which is counted, not called a divergence."""
    stand.load({"thing:30": {"loose": "much"}})
    report = stand.verify()
    assert (1, False) == (report.tolerated, report.divergent)
    assert {"on_bad_value null: things.loose": 1} == dict(report.tolerances)


def test_an_item_that_should_have_been_refused_is_found(stand: VerifyStand) -> None:
    """A row of an item whose value its column cannot hold."""
    stand.store({"thing:31": {"price": "N/A"}})
    stand.enter("thing:31", {"price": "N/A"}, "thing")
    stand.execute('INSERT INTO things (id, rest) VALUES (31, \'{"price": "N/A"}\')')
    found = only(stand.verify())
    assert ("$.price", "price", Cause.TYPE) == (found.path, found.column, found.cause)


def test_values_are_shown_only_on_demand(stand: VerifyStand) -> None:
    """Reports go to places where data must not go; personal values go to none."""
    stand.execute("UPDATE things SET price = 4242 WHERE id = 7")
    assert "4242" not in only(stand.verify()).detail
    assert "4242" in only(stand.verify(show_values=True)).detail
    stand.execute("UPDATE things SET price = 12.5, name = 'Secret' WHERE id = 7")
    assert not any(word in only(stand.verify(show_values=True)).detail for word in ("Secret", "Ann"))


def test_a_limit_ends_early_and_says_so(stand: VerifyStand) -> None:
    """What lies behind the limit is neither compared nor called extra."""
    report = stand.verify(limit=1)
    assert (1, "list:x", False, False) == (
        report.compared,
        report.verified_up_to,
        report.complete,
        report.divergent,
    )


def test_one_entity_alone_is_verified(stand: VerifyStand) -> None:
    """Faults of other entities are not looked for."""
    stand.execute("DELETE FROM things")
    assert (1, False) == (stand.verify(entity="list").matched, stand.verify(entity="list").divergent)
    assert {"missing": 2} == counts(stand.verify(entity="thing"))
    with pytest.raises(ConfigError, match="no entity 'nothing'"):
        stand.verify(entity="nothing")


@pytest.mark.parametrize("page_keys", [1, 2, 1000])
def test_pages_do_not_change_the_result(stand: VerifyStand, page_keys: int) -> None:
    """Ledger entries between and behind the pages' keys are found whatever their size."""
    for number in range(5):
        stand.enter(f"thing:{number}0", {}, "thing")
    stand.enter("zzz", {}, "thing")
    report = stand.verify(page_keys=page_keys)
    assert ({"extra": 6}, 3) == (counts(report), report.matched)


def test_an_unknown_scope_is_an_error_with_a_hint(stand: VerifyStand) -> None:
    """A mapping under whose name nothing was migrated here."""
    stand.execute("DELETE FROM kvmigrate.control")
    with pytest.raises(SchemaError, match="nothing was migrated") as raised:
        stand.verify()
    assert "backfill" in raised.value.hint


def test_an_item_that_changes_while_it_is_read_is_not_divergent(
    stand: VerifyStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs at first sight is read again: it may have settled, or still be moving."""
    stand.execute("UPDATE things SET price = 1 WHERE id = 7")
    with monkeypatch.context() as patch:
        patch.setattr(
            "kvmigrate.consistency.verify.time.sleep",
            lambda _: stand.execute("UPDATE things SET price = 12.5 WHERE id = 7"),
        )
        assert (3, {}) == (stand.verify().matched, counts(stand.verify()))
    prices = iter(range(100))
    stand.execute("UPDATE things SET price = 1 WHERE id = 7")
    with monkeypatch.context() as patch:
        patch.setattr(
            "kvmigrate.consistency.verify.time.sleep",
            lambda _: stand.store({KEY: {**THING, "price": next(prices) + 20}}),
        )
        report = stand.verify()
    assert (2, 1, {}) == (report.matched, report.pending, counts(report))


def test_an_item_that_leaves_the_store_while_it_is_read_is_judged_at_the_end(
    stand: VerifyStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone on both sides by the second look: nothing differs."""
    stand.execute("UPDATE things SET price = 1 WHERE id = 7")

    def leave(_: float) -> None:
        stand.forget(KEY)
        stand.execute("DELETE FROM things WHERE id = 7")
        stand.execute("UPDATE kvmigrate.ledger SET deleted = true WHERE key = 'thing:7'")

    monkeypatch.setattr("kvmigrate.consistency.verify.time.sleep", leave)
    report = stand.verify()
    assert (2, {}, 1) == (report.matched, counts(report), report.outside["vanished"])


def test_rows_of_an_expired_item_are_pending(stand: VerifyStand) -> None:
    """The store dropped it by itself; the tables are about to."""
    stand.forget(KEY)
    stand.execute("UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 second' WHERE key = 'thing:7'")
    report = stand.verify()
    assert (1, {}) == (report.pending, counts(report))


def counts(report: VerifyReport) -> dict[str, int]:
    """Return the counts of divergence that are not zero."""
    every = {"missing": report.missing, "extra": report.extra, "different": report.different}
    return {name: count for name, count in every.items() if count}
