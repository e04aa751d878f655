"""Keys, uniques, checks and indexes of one table, wanted and found.

They are compared by what they do, not by their names: a constraint that does the
same under another name is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kvmigrate.transform.mapping import ForeignKey, Index, Unique
from kvmigrate.transform.tables.ddl import Kind, Statement, all_indexes, check_name, check_sql, is_deferrable
from kvmigrate.transform.tables.difference import Difference, Level, Pair
from kvmigrate.transform.tables.identifiers import qualified, quote_identifier
from kvmigrate.transform.tables.live_schema import LiveConstraint, LiveIndex

_LITERAL = re.compile(r"(E?'(?:[^']|'')*')")
_LEFT_OUT = str.maketrans("", "", '"()')


def constraint_differences(pair: Pair) -> Iterator[Difference]:
    """Yield how constraints and indexes differ, extra constraints included."""
    used: set[str] = set()
    yield from _primary_key(pair, used)
    for unique in pair.table.uniques:
        yield from _unique(pair, unique, used)
    for key in pair.table.foreign_keys:
        yield from _foreign_key(pair, key, used)
    yield from _checks(pair, used)
    for table, index in all_indexes(pair.mapping):
        if table.name == pair.table.name:
            yield from _index(pair, index)
    for extra in pair.live.constraints:
        if extra.name not in used and extra.kind in "pufcx":
            where = pair.called("constraint", extra.name)
            yield Difference(Level.WARNING, where, f"is not in the mapping and may refuse rows: {extra.definition}")


def _of_kind(pair: Pair, kind: str) -> Iterator[LiveConstraint]:
    return (each for each in pair.live.constraints if each.kind == kind)


def _primary_key(pair: Pair, used: set[str]) -> Iterator[Difference]:
    wanted = ", ".join(quote_identifier(name) for name in pair.table.primary_key)
    where = f"primary key of {pair.mapping.schema}.{pair.table.name}"
    found = next(_of_kind(pair, "p"), None)
    if found is None:
        sql = f"ALTER TABLE {pair.name} ADD PRIMARY KEY ({wanted})"
        yield Difference(Level.ERROR, where, f"is missing: ({wanted})", sql)
        return
    used.add(found.name)
    if set(found.columns) != set(pair.table.primary_key):
        yield Difference(Level.ERROR, where, f"is {found.definition}, not ({wanted})")


def _unique(pair: Pair, unique: Unique, used: set[str]) -> Iterator[Difference]:
    alike = [each for each in _of_kind(pair, "u") if set(each.columns) == set(unique.columns)]
    used.update(each.name for each in alike)
    deferrable = is_deferrable(pair.mapping, pair.table, unique)
    if any(each.deferrable == deferrable for each in alike):
        return
    where = pair.called("unique", unique.name)
    if alike:
        level = Level.WARNING if deferrable else Level.ERROR
        drop = f"ALTER TABLE {pair.name} DROP CONSTRAINT {quote_identifier(alike[0].name)}"
        sql = f"{drop};\n{pair.statements[Kind.UNIQUE, unique.name].sql}"
        yield Difference(level, where, "is not deferrable" if deferrable else "is deferrable", sql)
    elif any(_serves_as_unique(index, unique.columns) for index in pair.live.indexes):
        yield Difference(Level.NOTE, where, "is a unique index: one transaction cannot swap two of its values")
    else:
        yield pair.missing(Level.ERROR, Kind.UNIQUE, unique.name)


def _serves_as_unique(index: LiveIndex, columns: Iterable[str]) -> bool:
    return index.unique and not index.partial and index.valid and {part[0] for part in index.parts} == set(columns)


def _foreign_key(pair: Pair, key: ForeignKey, used: set[str]) -> Iterator[Difference]:
    target = (pair.mapping.schema, key.target_table)
    links = set(zip(key.columns, key.target_columns, strict=True))
    alike = [
        each
        for each in _of_kind(pair, "f")
        if each.target == target and set(zip(each.columns, each.target_columns, strict=True)) == links
    ]
    used.update(each.name for each in alike)
    if not alike:
        yield pair.missing(Level.ERROR, Kind.FOREIGN_KEY, key.name)
        return
    found, where = alike[0], pair.called("foreign key", key.name)
    drop = f"ALTER TABLE {pair.name} DROP CONSTRAINT {quote_identifier(found.name)}"
    again = f"{drop};\n{pair.statements[Kind.FOREIGN_KEY, key.name].sql}"
    if key.owned and found.on_delete != "c":
        yield Difference(Level.ERROR, where, "does not delete the rows of a deleted parent", again)
    elif not key.owned and found.on_delete not in "ar":
        yield Difference(Level.ERROR, where, "changes rows of other items when its target is deleted", again)
    elif not key.owned and not found.deferrable:
        yield Difference(Level.WARNING, where, "is not deferrable", again)
    if not found.valid:
        sql = f"ALTER TABLE {pair.name} VALIDATE CONSTRAINT {quote_identifier(found.name)}"
        yield Difference(Level.WARNING, where, "is not validated", sql)


def _checks(pair: Pair, used: set[str]) -> Iterator[Difference]:
    for column in pair.table.columns:
        check = check_sql(column)
        if check is None:
            continue
        name = check_name(pair.table, column)
        found = {each.name: each for each in _of_kind(pair, "c")}
        alike = [each.name for each in found.values() if _folded(each.definition) == _folded(f"CHECK (({check}))")]
        used.update([*alike, name])
        if alike:
            continue
        add = f"ALTER TABLE {pair.name} ADD CONSTRAINT {quote_identifier(name)} CHECK ({check})"
        where = pair.called("check", name)
        if name in found:
            drop = f"ALTER TABLE {pair.name} DROP CONSTRAINT {quote_identifier(name)}"
            yield Difference(Level.ERROR, where, f"is {found[name].definition}", f"{drop};\n{add}")
        else:
            yield Difference(Level.ERROR, where, "is missing", add, Statement(Kind.CHECK, pair.table.name, name, add))


def _folded(definition: str) -> str:
    """Return a check without what servers write differently: blanks, brackets, name quotes, escapes in literals."""
    parts = _LITERAL.split(definition.removesuffix(" NOT VALID"))
    parts[::2] = ["".join(part.split()).translate(_LEFT_OUT) for part in parts[::2]]
    parts[1::2] = [part[1:].replace("\\\\", "\\") if part.startswith("E") else part for part in parts[1::2]]
    return "".join(parts)


def _index(pair: Pair, index: Index) -> Iterator[Difference]:
    alike = [each for each in pair.live.indexes if _is_same(each, index)]
    sound = [each for each in alike if each.valid]
    if sound:
        return
    if alike:
        sql = f"REINDEX INDEX CONCURRENTLY {qualified(pair.mapping.schema, alike[0].name)}"
        yield Difference(Level.WARNING, pair.called("index", index.name), "is invalid: its build failed", sql)
        return
    sql = pair.statements[Kind.INDEX, index.name].sql
    if pair.live.has_rows:
        sql = sql.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1)
    yield pair.missing(Level.WARNING, Kind.INDEX, index.name, sql=sql)


def _is_same(live: LiveIndex, index: Index) -> bool:
    if live.partial:
        return False
    if index.method == "trigram":
        searched = {name for name, _, operators in live.parts if operators == "gin_trgm_ops"}
        return live.method == "gin" and {name for name, _ in index.parts} <= searched
    return live.method == "btree" and tuple((name, descends) for name, descends, _ in live.parts) == index.parts
