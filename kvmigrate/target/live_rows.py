"""Items read back from the tables, whole and with their version: one statement for all items of an entity.

One statement is one snapshot, so an item's rows and its version belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.abc import AdaptContext
from psycopg.types.json import set_json_loads

from kvmigrate.errors import LensError, OnlyInStoreError
from kvmigrate.model import Item, LedgerStatus, Version
from kvmigrate.target.layout import Layout
from kvmigrate.target.payload import decode_payload
from kvmigrate.target.rows_postgres import WholeIntervalLoader
from kvmigrate.target.rows_spelled import chains, joined
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Entity, Table
from kvmigrate.transform.values.json_text import decode_json, json_equal, load_jsonb
from kvmigrate.transform.values.refused import ValueRefused

_SELECT = """
SELECT l.key, l.epoch, l.n, l.deleted, l.entity, l.mapping, l.status, coalesce(l.expires_at <= now(), false),
    CASE l.status
        WHEN 'kept' THEN (SELECT ROW(h.value, h.kind, {kept_ms}) FROM kvmigrate.kept AS h
            WHERE h.scope = l.scope AND h.key = l.key)
        WHEN 'quarantined' THEN (SELECT ROW(h.payload, h.payload_kind, {kept_ms}) FROM kvmigrate.quarantine AS h
            WHERE h.scope = l.scope AND h.key = l.key)
    END{tables}
FROM {keys} JOIN kvmigrate.ledger AS l ON l.scope = {scope} AND l.key = k.key COLLATE "C"
"""
_KEPT_MS = sql.SQL("(extract(epoch FROM h.expires_at) * 1000)::bigint")


class Query(NamedTuple):
    """What reads some items of one entity, or of none; its parameters are arrays of equal length."""

    statement: bytes
    parameters: list[list[Any]]


class Stored(NamedTuple):
    """An item as the tables have it.

    Attributes:
        version: Of the ledger.

        status: Of the ledger.

        is_there: Neither deleted nor past its expiry.

        item: Rebuilt, or whole where it is kept or quarantined; ``None`` where it is deleted, or waits.
    """

    key: str
    version: Version
    status: LedgerStatus
    is_there: bool
    item: Item | None


class LiveRows:
    """Composes the statements once, and rebuilds items from what they return."""

    def __init__(self, lens: Lens, scope: int) -> None:
        """Read what *scope*'s ledger has of *lens*'s mapping."""
        self._lens, self._scope = lens, scope
        self._layout = Layout(lens.mapping)
        self._entities = {entity.id: entity for entity in lens.mapping.entities}
        self._statements: dict[int, bytes] = {}

    def queries(self, keys: Iterable[str]) -> list[Query]:
        """Return what reads these items; for results that `read_exactly` prepared, in binary."""
        groups: dict[int, list[tuple[Any, ...]]] = {}
        for key in keys:
            entity = self._lens.route(key).entity
            values = () if entity is None or entity.owned_by_source_key else self._lens.primary_key(entity, key)
            if entity is None or values is None:
                groups.setdefault(0, []).append((key,))
            else:
                groups.setdefault(entity.id, []).append((key, *values))
        return [
            Query(self._statement(number), [list(column) for column in zip(*rows, strict=True)])
            for number, rows in groups.items()
        ]

    def stored(self, row: Sequence[Any], *, lenient: bool = False) -> Stored:
        """Return a row of a `Query` as the item it tells; *lenient* takes rows that no item can have for none.

        Raises:
            LensError: no item can have these rows.
        """
        key, epoch, n, deleted, number, mapping, status, expired, whole, *tables = row
        version, known = Version(epoch, n), LedgerStatus(status)
        item = None
        if not deleted and whole is not None:
            item = decode_payload(key, *whole)
        elif not deleted and known is LedgerStatus.OK:
            with suppress(LensError) if lenient else nullcontext():
                item = self._rebuilt(key, number, mapping, tables)
        return Stored(key, version, known, not deleted and not expired, item)

    def _rebuilt(self, key: str, number: int, mapping: int, tables: Sequence[Sequence[Sequence[Any]]]) -> Item:
        entity = self._entities.get(number)
        is_ours = entity is not None and self._lens.route(key).entity is entity
        # Under an edited declaration the same rows may read as another value.
        if entity is None or not is_ours or mapping != self._layout.numbers[number]:
            raise LensError(
                f"{key}: its rows were written under another version of the mapping",
                key=key,
                hint="run `kvmigrate backfill`, or use the mapping that wrote them",
            )
        names = [chain[-1].name for chain in chains(entity)]
        return self._lens.backward(entity, key, dict(zip(names, tables, strict=True)))

    def _statement(self, number: int) -> bytes:
        if number not in self._statements:
            entity = self._entities.get(number)
            keyed = entity is not None and not entity.owned_by_source_key
            root = entity.root if entity is not None else None
            key = root.primary_key if root is not None and keyed else ()
            types = [_array_type(root, name) for name in key] if root is not None else []
            names = [sql.Identifier("key"), *(sql.Identifier(f"k{place}") for place in range(len(key)))]
            relation = sql.SQL("unnest({}) AS k ({})").format(
                sql.SQL(", ").join([sql.SQL("%s::text[]"), *types]), sql.SQL(", ").join(names)
            )
            tables = [self._table_rows(entity, chain) for chain in chains(entity)] if entity is not None else []
            self._statements[number] = (
                sql.SQL(_SELECT)
                .format(
                    kept_ms=_KEPT_MS,
                    tables=sql.SQL("").join(sql.SQL(",\n    {}").format(each) for each in tables),
                    keys=relation,
                    scope=sql.Literal(self._scope),
                )
                .as_bytes()
            )
        return self._statements[number]

    def _table_rows(self, entity: Entity, chain: Sequence[Table]) -> sql.Composed:
        """The rows of the last table of *chain*, as an array."""
        schema, last = self._lens.mapping.schema, len(chain) - 1
        if entity.owned_by_source_key:
            owned = sql.SQL("t0.{} = k.key").format(sql.Identifier(entity.owner_column))
        else:
            owned = sql.SQL(" AND ").join(
                sql.SQL("t0.{} = k.{}").format(sql.Identifier(name), sql.Identifier(f"k{place}"))
                for place, name in enumerate(entity.root.primary_key)
            )
        joins = [
            sql.SQL(" JOIN {} AS {} ON {}").format(
                sql.Identifier(schema, table.name),
                sql.Identifier(f"t{depth}"),
                joined(f"t{depth}", f"t{depth - 1}", table),
            )
            for depth, table in enumerate(chain)
            if depth
        ]
        return sql.SQL("ARRAY(SELECT ROW({}) FROM {} AS t0{} WHERE {})").format(
            sql.SQL(", ").join(sql.Identifier(f"t{last}", column.name) for column in chain[-1].columns),
            sql.Identifier(schema, chain[0].name),
            sql.Composed(joins),
            owned,
        )


def read_exactly(context: AdaptContext) -> None:
    """Make a connection or cursor load numbers in JSON exactly, and no interval as more or less than it is."""
    set_json_loads(load_jsonb, context)
    context.adapters.register_loader("interval", WholeIntervalLoader)


def holds(stored: Stored, expect: Item) -> bool:
    """Whether the item stands there with this value and expiry. JSON is compared as a value, not by its bytes."""
    found = stored.item
    if not stored.is_there or found is None or found[2:] != expect[2:]:
        return False
    if found.value == expect.value:
        return True
    if not (isinstance(found.value, bytes) and isinstance(expect.value, bytes)):
        return False
    return _same_json(found.value, expect.value)


def _same_json(one: bytes, other: bytes) -> bool:
    """Whether both are the same value; of JSON in a string what is in it counts."""
    try:
        mine, theirs = decode_json(one), decode_json(other)
        if isinstance(mine, str) and isinstance(theirs, str) and mine != theirs:
            return _same_json(mine.encode(), theirs.encode())
        return json_equal(mine, theirs)
    except (ValueRefused, UnicodeEncodeError):
        return False


def item_of(stored: Stored | None) -> Item | None:
    """Return the item that stands there; ``None`` where none does.

    Raises:
        OnlyInStoreError: it is there, and only the store has its value.
    """
    if stored is None or not stored.is_there:
        return None
    if stored.item is None:
        raise OnlyInStoreError(
            f"{stored.key!r} is {stored.status.value}: only the store has its value", hint="read it from the store"
        )
    return stored.item


def _array_type(root: Table, name: str) -> sql.Composable:
    base = root.column(name).type.sql
    # A column's checked type name; numeric(p,s) would be rounded by a cast to it.
    return sql.SQL("%s::{}[]").format(sql.SQL("numeric" if base.startswith("numeric") else base))


class Condition(NamedTuple):
    """What a write of the open tables depends on.

    Attributes:
        expect: What must stand there.

        only_new: Nothing may stand there.
    """

    expect: Item | None = None
    only_new: bool = False

    @property
    def is_any(self) -> bool:
        """Whether it depends on anything."""
        return self.only_new or self.expect is not None

    def is_met(self, stored: Stored | None) -> bool:
        """Whether what stands there allows the write; ``None`` where the ledger does not know the key."""
        if self.only_new and stored is not None and stored.is_there:
            return False
        return self.expect is None or (stored is not None and holds(stored, self.expect))
