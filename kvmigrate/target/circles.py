"""Waiting items that wait for each other only, and so can be written only together."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import psycopg

from kvmigrate.target.attempt import Parts
from kvmigrate.transform.mapping import Entity, ForeignKey

Connection = psycopg.Connection[Any]

MOST_WAITING = 500_000
"""Obstacles looked at for circles, in order of the items' keys; bounds memory."""

_SELECT = """
SELECT w.key, l.entity, w.on_constraint, w.on_value
FROM kvmigrate.waiting AS w JOIN kvmigrate.ledger AS l ON l.scope = w.scope AND l.key = w.key
WHERE w.scope = %s AND l.status = 'waiting' AND NOT l.deleted
ORDER BY w.key LIMIT %s
"""

_SAME_IN_SQL = frozenset({"text", "enum", "uuid", "smallint", "integer", "bigint", "date"})


class _Row(NamedTuple):
    """A row by the entity's name and its primary key as text; "" stands for any row that no key tells."""

    entity: str
    value: str


def find_circles(connection: Connection, parts: Parts, *, limit: int) -> list[list[str]]:
    """Return batches of at most *limit* keys of items all of whose missing parents wait as well.

    Items that hang together are in one batch. Those of more than *limit* items that
    hang together are left out: no batch of that size could hold them.
    """
    rows = connection.execute(_SELECT, [parts.scope, MOST_WAITING]).fetchall()
    waiting = _Waiting(parts, rows)
    return list(_batches(waiting.groups(), limit))


class _Waiting:
    """Who waits, which row each of them would bring, and which rows each needs."""

    def __init__(self, parts: Parts, rows: Iterable[tuple[str, int, str, str]]) -> None:
        self._parts = parts
        self._references = {key.name: key for plan in parts.layout.plans for key in plan.references}
        entities = {entity.id: entity for entity in parts.layout.mapping.entities}
        self._needs: dict[str, set[_Row | None]] = defaultdict(set)
        self._brings: dict[str, _Row] = {}
        for key, entity_id, constraint, value in rows:
            if key not in self._brings and entity_id in entities:
                self._brings[key] = self._brought(entities[entity_id], key)
            self._needs[key].add(self._needed(constraint, value))
        self._prune()

    def groups(self) -> Iterator[list[str]]:
        """Yield the keys that hang together, each group in order."""
        ties = self._ties()
        seen: set[str | _Row] = set()
        for start in sorted(self._brings):
            if start not in seen:
                group: list[str] = []
                ahead: list[str | _Row] = [start]
                seen.add(start)
                while ahead:
                    here = ahead.pop()
                    if isinstance(here, str):
                        group.append(here)
                    new = ties[here] - seen
                    ahead += new
                    seen |= new
                yield sorted(group, key=str.encode)

    def _ties(self) -> dict[str | _Row, set[str | _Row]]:
        ties: dict[str | _Row, set[str | _Row]] = defaultdict(set)
        untold = {row for row in self._brings.values() if not row.value}
        for key, row in self._brings.items():
            needs = {need for need in self._needs[key] if need is not None}
            strangers = {_Row(need.entity, "") for need in needs} & untold
            for tied in {row, *needs, *strangers}:
                ties[key].add(tied)
                ties[tied].add(key)
        return ties

    def _brought(self, entity: Entity, key: str) -> _Row:
        plain = [entity.root.column(name).type for name in entity.root.primary_key]
        values = self._parts.lens.primary_key(entity, key)
        if not values or len(values) > 1 or plain[0].base not in _SAME_IN_SQL:
            return _Row(entity.name, "")
        return _Row(entity.name, str(values[0]))

    def _needed(self, constraint: str, value: str) -> _Row | None:
        """The row that an obstacle speaks of; ``None`` where it is no missing parent."""
        key = self._references.get(constraint)
        if key is None:
            return None
        return _Row(key.entity, value if len(key.columns) == 1 else _last(key, value))

    def _prune(self) -> None:
        """Take out, to the end of each chain, who needs a row that nobody waiting would bring."""
        bringers: dict[_Row, set[str]] = defaultdict(set)
        needers: dict[_Row | None, set[str]] = defaultdict(set)
        for key, brought in self._brings.items():
            bringers[brought].add(key)
        for key, needs in self._needs.items():
            for need in needs:
                needers[need].add(key)
        ahead = deque(need for need in needers if not self._may_come(need, bringers))
        while ahead:
            for key in needers.pop(ahead.popleft(), ()):
                row = self._brings.pop(key, None)
                if row is None:
                    continue
                bringers[row].discard(key)
                if not bringers[row]:
                    lost = [each for each in needers if each and each.entity == row.entity] if not row.value else [row]
                    ahead.extend(need for need in lost if not self._may_come(need, bringers))

    def _may_come(self, need: _Row | None, bringers: dict[_Row, set[str]]) -> bool:
        return need is not None and bool(bringers.get(need) or bringers.get(_Row(need.entity, "")))


def _last(key: ForeignKey, value: str) -> str:
    """The referred row's own key: the columns before it say the tenant."""
    found = json.loads(value)[len(key.columns) - 1]
    return str(found)


def _batches(groups: Iterable[list[str]], limit: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for group in groups:
        if len(group) > limit:
            continue
        if len(batch) + len(group) > limit:
            yield batch
            batch = []
        batch += group
    if batch:
        yield batch
