"""An item as the parameters of its live function, in binary: the lens's COPY rows become arrays of composites."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg.postgres import adapters

from kvmigrate.model import Version
from kvmigrate.target.live_function import LiveFunctions
from kvmigrate.target.staging import pack_expiry
from kvmigrate.transform.lens import Accepted, Lens, PageRows
from kvmigrate.transform.mapping import Table
from kvmigrate.transform.values.pack import NULL, packer

BINARY = 1

_int4 = struct.Struct("!i").pack
_int8 = struct.Struct("!q").pack
_length_at = struct.Struct("!i").unpack_from
_array_head = struct.Struct("!iiIii").pack
_row_head = struct.Struct("!ii").pack
_oid = struct.Struct("!I").pack
_FALSE, _TRUE = b"\x00", b"\x01"


def _oid_of(name: str) -> int:
    return adapters.types[name].oid


_MIRROR_OIDS = tuple(map(_oid_of, ("int4", "int8", "text", "int4", "bytea", "timestamptz", "bool")))
_PUT_OIDS = tuple(map(_oid_of, ("int4", "int4", "text", "int4", "int8", "timestamptz", "bool")))


class Call(NamedTuple):
    """A statement with its parameters, as libpq takes them.

    Attributes:
        oids: Of the parameters' types; 0 lets the function say.
    """

    statement: bytes
    values: list[bytes | None]
    oids: list[int]


class RowType:
    """The composite type of one table's rows."""

    def __init__(self, table: Table, oid: int) -> None:
        """Keep what the server calls the type (*oid*), and prepare the types of its fields."""
        self._oid, self._columns = oid, table.columns
        self._fields = [_oid(_field_oid(column.type.base, array=column.type.array)) for column in table.columns]

    def array(self, rows: bytes) -> bytes:
        """Return COPY rows, without header and trailer, as one array."""
        parts, at, end, count = [b""], 0, len(rows), 0
        while at < end:
            at += 2
            start, fields = at, [b""]
            for oid in self._fields:
                size = _length_at(rows, at)[0]
                after = at + 4 + max(size, 0)
                fields += (oid, rows[at:after])
                at = after
            fields[0] = _row_head(at - start + 4 + 4 * len(self._fields), len(self._fields))
            parts += fields
            count += 1
        parts[0] = _array_head(1, 0, self._oid, count, 1)
        return b"".join(parts)

    def key_only(self, key: Mapping[str, object]) -> bytes:
        """Return an array of one row that has only these columns."""
        fields = [packer(column.type)(key[column.name]) if column.name in key else NULL for column in self._columns]
        return self.array(struct.pack("!h", len(fields)) + b"".join(fields))


class EntityCalls:
    """Makes the calls of one entity's functions."""

    def __init__(self, functions: LiveFunctions, lens: Lens, oids: Mapping[str, int]) -> None:
        """Take *oids* of the composite types by name."""
        self._functions, self._lens = functions, lens
        self._types = [
            RowType(plan.table, oids[name]) for plan, name in zip(functions.plans, functions.types, strict=True)
        ]
        self._tables = [plan.table.name for plan in functions.plans]
        self._root = next((place for place, plan in enumerate(functions.plans) if plan.anchor), 0)
        count = 7 + len(self._types)
        places = ", ".join(f"${place + 1}" for place in range(count))
        self._mirror = f'SELECT kvmigrate."{functions.mirror}"({places})'.encode()
        self._put = f'SELECT kvmigrate."{functions.put}"({places})'.encode()
        self._mirror_oids = [*_MIRROR_OIDS, *[0] * len(self._types)]
        self._put_oids = [*_PUT_OIDS, *[0] * len(self._types)]
        self._number = _int4(functions.number)

    def mirror(self, accepted: Accepted, rows: PageRows, version: Version) -> Call:
        """Return the call that mirrors an item's rows, as `Lens.page` made them unstaged."""
        return self._mirror_call(
            accepted.key, version, accepted.content_hash, accepted.expires_at_ms, self._arrays(rows)
        )

    def mirror_gone(self, key: str, version: Version) -> Call | None:
        """Return the call that mirrors a deletion; ``None`` where the key does not tell the rows."""
        found = self._key_only(key)
        return None if found is None else self._mirror_call(key, version, None, None, found, deleted=True)

    def put(self, accepted: Accepted, rows: PageRows, epoch: int, known: Version | None) -> Call:
        """Return the call that writes an item to the open tables, if the ledger has it at *known*."""
        return self._put_call(accepted.key, epoch, known, accepted.expires_at_ms, self._arrays(rows))

    def put_gone(self, key: str, epoch: int, known: Version | None) -> Call | None:
        """Return the call that deletes from the open tables; ``None`` where the key does not tell the rows."""
        found = self._key_only(key)
        return None if found is None else self._put_call(key, epoch, known, None, found, deleted=True)

    def _arrays(self, rows: PageRows) -> list[bytes | None]:
        tables = rows.tables
        return [
            kind.array(tables[name]) if name in tables else None
            for name, kind in zip(self._tables, self._types, strict=True)
        ]

    def _key_only(self, key: str) -> list[bytes | None] | None:
        entity, arrays = self._functions.entity, list[bytes | None]([None] * len(self._types))
        if not entity.owned_by_source_key:
            values = self._lens.primary_key(entity, key)
            if values is None:
                return None
            named = dict(zip(entity.root.primary_key, values, strict=True))
            arrays[self._root] = self._types[self._root].key_only(named)
        return arrays

    def _mirror_call(
        self,
        key: str,
        version: Version,
        digest: bytes | None,
        expires_at_ms: int | None,
        arrays: Sequence[bytes | None],
        *,
        deleted: bool = False,
    ) -> Call:
        head = [
            _int4(version.epoch),
            _int8(version.n),
            key.encode(),
            self._number,
            digest,
            _expiry(expires_at_ms),
            _TRUE if deleted else _FALSE,
        ]
        return Call(self._mirror, [*head, *arrays], self._mirror_oids)

    def _put_call(
        self,
        key: str,
        epoch: int,
        known: Version | None,
        expires_at_ms: int | None,
        arrays: Sequence[bytes | None],
        *,
        deleted: bool = False,
    ) -> Call:
        head = [
            _int4(epoch),
            None if known is None else _int4(known.epoch),
            key.encode(),
            self._number,
            None if known is None else _int8(known.n),
            _expiry(expires_at_ms),
            _TRUE if deleted else _FALSE,
        ]
        return Call(self._put, [*head, *arrays], self._put_oids)


def _expiry(expires_at_ms: int | None) -> bytes | None:
    return None if expires_at_ms is None else pack_expiry(expires_at_ms)[4:]


def _field_oid(base: str, *, array: bool) -> int:
    info = adapters.types["text" if base == "enum" else base]
    return info.array_oid if array else info.oid
