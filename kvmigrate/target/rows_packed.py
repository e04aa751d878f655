"""The SQL that reads the rows of a page of items as one value for each table: what compiled code compares them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from psycopg import sql

from kvmigrate.target.reader_base import Spelling
from kvmigrate.target.rows_spelled import joined, shortened
from kvmigrate.transform.mapping import Entity, Table


def select_packed(
    schema: str, entity: Entity, chain: Sequence[Table], spellings: Mapping[str, Spelling]
) -> sql.Composed:
    """Return the query for the rows of the last table of *chain*, with one array of texts per key column.

    Records one behind another, in no order: to number the items and sort their rows takes PostgreSQL as long as
    finding them.
    """
    chain, key = shortened(entity, chain)
    last = len(chain) - 1
    types = [sql.SQL(cast("Any", chain[0].column(name).type.sql)) for name in key]
    finders = [sql.Identifier("t0", name) for name in key]
    columns = [
        sql.SQL("{} IS NOT NULL" if spelling is Spelling.PRESENT else "{}").format(sql.Identifier(f"t{last}", name))
        for name, spelling in spellings.items()
    ]
    joins = [
        sql.SQL(" JOIN {} AS {} ON {}").format(
            sql.Identifier(schema, table.name), sql.Identifier(f"t{depth}"), joined(f"t{depth}", f"t{depth - 1}", table)
        )
        for depth, table in enumerate(chain)
        if depth
    ]
    top = sql.SQL("{} AS t0").format(sql.Identifier(schema, chain[0].name))
    if len(key) == 1:
        # Of one column the index is passed once, and not looked up for each key.
        source, where = top, sql.SQL(" WHERE {} = ANY(%s::{}[])").format(finders[0], types[0])
    else:
        names = [sql.Identifier("k", f"k{position}") for position in range(len(key))]
        source = sql.SQL("unnest({}) AS k ({}) JOIN {} ON {}").format(
            sql.SQL(", ").join(sql.SQL("%s::{}[]").format(each) for each in types),
            sql.SQL(", ").join(sql.Identifier(f"k{position}") for position in range(len(key))),
            top,
            sql.SQL(" AND ").join(sql.SQL("{} = {}").format(*pair) for pair in zip(finders, names, strict=True)),
        )
        where = sql.Composed([])
    return sql.SQL("SELECT string_agg(record_send(ROW({columns})), '') FROM {source}{joins}{where}").format(
        columns=sql.SQL(", ").join([*finders, *columns]), source=source, joins=sql.Composed(joins), where=where
    )
