"""Stand-in until the tables' live side is complete."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.model import Item, Version
from kvmigrate.target.live_base import Owed
from kvmigrate.target.live_postgres import PostgresLiveTarget


class PendingTarget(PostgresLiveTarget):
    def _all(self, query: str, *values: Any) -> list[Any]:
        return self._session.run(lambda c: c.execute(query.encode(), values or None).fetchall())

    def keys_since(self, version: Version) -> Iterator[Sequence[str]]:
        rows = self._all("SELECT key FROM kvmigrate.ledger WHERE (epoch, n) >= (%s, %s) ORDER BY key", *version)
        if rows:
            yield [key for (key,) in rows]

    def owed(self, *, limit: int) -> Sequence[Owed]:
        rows = self._all(
            "SELECT l.key, l.epoch, l.n, l.deleted, c.name FROM kvmigrate.ledger l LEFT JOIN clients c "
            "ON l.key = 'client:' || c.id WHERE kv_dirty ORDER BY l.key LIMIT %s",
            limit,
        )
        return [
            Owed(k, Version(e, n), None if d else Item(k, json.dumps({"name": name}).encode()))
            for k, e, n, d, name in rows
        ]

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        count = 0
        for key, (e, n) in given:
            count += len(
                self._all(
                    "UPDATE kvmigrate.ledger SET kv_dirty = false WHERE key = %s AND epoch = %s AND n = %s AND kv_dirty RETURNING key",
                    key,
                    e,
                    n,
                )
            )
        return count

    def owes(self) -> int:
        return self._all("SELECT count(*) FROM kvmigrate.ledger WHERE kv_dirty")[0][0]

    def _fenced(self, epoch: int, query: str, *values: Any) -> list[Any]:
        def work(c: Any) -> Any:
            with c.transaction():
                c.execute("SELECT kvmigrate.fence(%s, %s, 'T')", [self._lens.mapping.name, epoch])
                return c.execute(query.encode(), values or None).fetchall()

        return self._session.run(work)

    def touch(self, keys: Sequence[str], *, epoch: int) -> int:
        return len(
            self._fenced(
                epoch,
                "INSERT INTO kvmigrate.ledger AS l (scope, key, entity, mapping, run, born, epoch, n, deleted, kv_dirty, status) "
                "SELECT 1, k, 1, 1, 0, 0, %s, 1, true, true, 'ok' FROM unnest(%s::text[]) k ON CONFLICT (scope, key) DO UPDATE SET "
                "epoch = excluded.epoch, n = l.n + 1, kv_dirty = true RETURNING key",
                epoch,
                list(keys),
            )
        )

    def touch_all(self, *, epoch: int) -> int:
        return len(
            self._fenced(
                epoch, "UPDATE kvmigrate.ledger SET epoch = %s, n = n + 1, kv_dirty = true RETURNING key", epoch
            )
        )

    def unsettled(self) -> tuple[int, int]:
        return self._all(
            "SELECT count(*) FILTER (WHERE status = 'quarantined'), count(*) FILTER (WHERE status = 'waiting') "
            "FROM kvmigrate.ledger WHERE NOT deleted"
        )[0]

    def ledger_hashes(self, keys):
        return {}

    def ledger_keys(self, *, after, limit):
        return []

    def expired_keys(self, *, limit):
        return []

    def expire(self, *, epoch, limit):
        return 0

    def put(self, epoch: int, key: str, name: str | None) -> None:
        def work(c: Any) -> None:
            with c.transaction():
                c.execute("SELECT kvmigrate.fence(%s, %s, 'T')", [self._lens.mapping.name, epoch])
                c.execute(
                    "INSERT INTO kvmigrate.ledger AS l (scope, key, entity, mapping, run, born, epoch, n, deleted, kv_dirty, status) "
                    "VALUES (1, %s, 1, 1, 0, 0, %s, 1, %s, true, 'ok') ON CONFLICT (scope, key) DO UPDATE SET "
                    "epoch = excluded.epoch, n = l.n + 1, kv_dirty = true, deleted = excluded.deleted, content_hash = NULL, status = 'ok'",
                    [key, epoch, name is None],
                )
                id_ = key.removeprefix("client:")
                if name is None:
                    c.execute("DELETE FROM clients WHERE id = %s", [id_])
                else:
                    c.execute(
                        "INSERT INTO clients (id, name) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                        [id_, name],
                    )

        self._session.run(work)
