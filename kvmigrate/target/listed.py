"""Index keys kept by hand, compared both ways with the items that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.base import ListedIds
from kvmigrate.target.layout import Layout, all_set, owner_key
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

EXAMPLES = 10

# One row for each key that a listed id may have; place numbers the listed ids.
_LISTED = 'CREATE TEMPORARY TABLE kvm_listed (place int, v text[], id text, key text COLLATE "C") ON COMMIT DROP'

_REAL_BY_LEDGER = (
    "CREATE TEMPORARY TABLE kvm_real ON COMMIT DROP AS "
    "SELECT key, '{{}}'::text[] AS v, true AS placed FROM kvmigrate.ledger "
    "WHERE scope = {scope} AND entity = {entity} AND NOT deleted"
)

# An item without rows cannot show its columns: it counts as listed rightly, and never as missing from a list.
_REAL_BY_COLUMNS = (
    "CREATE TEMPORARY TABLE kvm_real ON COMMIT DROP AS "
    "SELECT {owner} AS key, ARRAY[{columns}] AS v, true AS placed FROM {table} AS t WHERE {filled} "
    "UNION ALL SELECT key, NULL, false FROM kvmigrate.ledger "
    "WHERE scope = {scope} AND entity = {entity} AND NOT deleted AND status <> 'ok'"
)

_DANGLING = (
    "SELECT id, count(*) OVER () FROM kvm_listed AS x GROUP BY place, id HAVING NOT bool_or(EXISTS ("
    "SELECT FROM kvm_real AS r WHERE r.key = x.key AND (NOT r.placed OR r.v = x.v))) ORDER BY id LIMIT %s"
)

_UNLISTED = (
    "SELECT r.key FROM kvm_real AS r WHERE r.placed AND NOT EXISTS ("
    "SELECT FROM kvm_listed AS x WHERE x.key = r.key AND x.v = r.v) ORDER BY r.key"
)

Listed = Iterator[tuple[Sequence[str], str, Sequence[str]]]


def compare_listed(
    connection: Connection,
    layout: Layout,
    scope: int,
    entity: Entity,
    *,
    columns: Sequence[str],
    listed: Listed,
    identify: Callable[[str], str],
) -> ListedIds:
    """Compare listed ids with the items of *entity*, in one transaction of its own.

    Args:
        connection: Free of any transaction.

        layout: Of the mapping.

        scope: Whose ledger.

        entity: What is listed.

        columns: Columns of its root whose values choose the items of each index; none means all items.

        listed: Values of *columns* as text, an id, and the keys that an item with this id may have.

        identify: The id in a key; generations of one item have the same.
    """
    with connection.transaction():
        connection.execute(_LISTED)
        count = _load(connection, listed)
        connection.execute(_real_sql(layout, scope, entity, columns))
        connection.execute("CREATE INDEX ON kvm_listed (key)")
        connection.execute("CREATE INDEX ON kvm_real (key)")
        connection.execute("ANALYZE kvm_listed, kvm_real")
        lost = connection.execute(_DANGLING, [EXAMPLES]).fetchall()
        unlisted, unlisted_examples = _unlisted(connection, identify)
        connection.execute("DROP TABLE kvm_listed, kvm_real")
    dangling = lost[0][1] if lost else 0
    return ListedIds(
        listed=count,
        real=count - dangling + unlisted,
        dangling=dangling,
        unlisted=unlisted,
        dangling_examples=tuple(name for name, _ in lost),
        unlisted_examples=unlisted_examples,
    )


def _load(connection: Connection, listed: Listed) -> int:
    place = -1
    with connection.cursor() as cursor, cursor.copy("COPY kvm_listed (place, v, id, key) FROM STDIN") as copy:
        for place, (values, name, keys) in enumerate(listed):
            for key in keys or (name,):
                copy.write_row((place, list(values), name, key))
    return place + 1


def _real_sql(layout: Layout, scope: int, entity: Entity, columns: Sequence[str]) -> sql.Composed:
    if not columns:
        return sql.SQL(_REAL_BY_LEDGER).format(scope=sql.Literal(scope), entity=sql.Literal(entity.id))
    return sql.SQL(_REAL_BY_COLUMNS).format(
        owner=owner_key(entity, "t"),
        columns=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in columns),
        table=layout.by_name[entity.root.name].name,
        filled=all_set("t", columns),
        scope=sql.Literal(scope),
        entity=sql.Literal(entity.id),
    )


def _unlisted(connection: Connection, identify: Callable[[str], str]) -> tuple[int, tuple[str, ...]]:
    """Count distinct ids, streaming: the answer may be every item; a hash of each is all that is kept."""
    seen: set[int] = set()
    examples: list[str] = []
    with connection.cursor(name="kvm_unlisted") as cursor:
        cursor.itersize = 5000
        cursor.execute(_UNLISTED)
        for (key,) in cursor:
            name = hash(identify(key))
            if name not in seen and len(examples) < EXAMPLES:
                examples.append(key)
            seen.add(name)
    return len(seen), tuple(examples)
