"""What the control schema still knows of one item once it is gone: found, and taken out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from kvmigrate.target.session import Session

Connection = psycopg.Connection[Any]

ERASED = "(erased)"
"""Stands where the key stood in the change log."""

_OF_MAPPING = frozenset(("entity", "table", "column", "name", "by"))
"""Members of documents that hold words of the mapping."""

_HOLDERS = ("quarantine", "kept", "waiting", "evidence")
_DELETE = sql.SQL(
    "DELETE FROM kvmigrate.{} AS t USING kvmigrate.control AS c"
    " WHERE c.scope = %(scope)s AND t.scope = c.id AND t.key = %(key)s"
)

# A document in which the key does not stand as text cannot name it.
_RUNS = """
SELECT r.id, r.report FROM kvmigrate.run AS r JOIN kvmigrate.control AS c ON c.id = r.scope
WHERE c.scope = %(scope)s AND position(%(json)s IN r.report::text) > 0
"""
_EVIDENCE = """
SELECT e.id, e.facts FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %(scope)s AND position(%(json)s IN e.facts::text) > 0
"""
_SET_RUN = "UPDATE kvmigrate.run SET report = %s WHERE id = %s"
_SET_EVIDENCE = "UPDATE kvmigrate.evidence SET facts = %s WHERE id = %s"

_LOG = """
SELECT l.id, l.before, l.after, l.why FROM kvmigrate.change_log AS l JOIN kvmigrate.control AS c ON c.id = l.scope
WHERE c.scope = %(scope)s AND position(%(key)s IN concat_ws(' ', l.why, l.before, l.after)) > 0
"""
_SET_LOG = "UPDATE kvmigrate.change_log SET before = %s, after = %s, why = %s WHERE id = %s"

_HASH = """
UPDATE kvmigrate.ledger AS l SET content_hash = NULL FROM kvmigrate.control AS c
WHERE c.scope = %(scope)s AND l.scope = c.id AND l.key = %(key)s AND l.deleted AND l.content_hash IS NOT NULL
"""

_NOTE = """
INSERT INTO kvmigrate.change_log (scope, who, what, before, after, why)
SELECT c.id, %(who)s, 'erase', %(entity)s, '', %(why)s FROM kvmigrate.control AS c WHERE c.scope = %(scope)s
"""


class Traces:
    """What is known of single items, of one scope. One thread at a time; every method may raise `TargetError`."""

    def __init__(self, url: str, scope: str) -> None:
        """Open nothing yet; *scope* is the mapping's name."""
        self._session, self._scope = Session(url, application_name="kvmigrate:erase"), scope

    def erase(self, key: str, *, entity: str, why: str, who: str) -> Mapping[str, int]:
        """Take out what is known of *key* in one transaction, and note that something of *entity* was erased.

        The item must be gone: what remains is its key in the ledger, as a tombstone, which keeps an older state from
        coming back. Reports lose the elements that name the key.

        Returns:
            What was taken out, by table: rows deleted, documents changed.
        """
        values = {
            "scope": self._scope,
            "key": key,
            "json": _in_json(key),
            "entity": entity,
            "why": why,
            "who": who,
        }

        def work(connection: Connection) -> Mapping[str, int]:
            found: Counter[str] = Counter()
            with connection.transaction():
                for table in _HOLDERS:
                    found[table] += connection.execute(_DELETE.format(sql.Identifier(table)), values).rowcount
                for name, read, write in (("run", _RUNS, _SET_RUN), ("evidence", _EVIDENCE, _SET_EVIDENCE)):
                    for number, document in connection.execute(read, values).fetchall():
                        left = without(document, key)
                        if left != document:
                            connection.execute(write, [Jsonb(left), number])
                            found[name] += 1
                for number, *texts in connection.execute(_LOG, values).fetchall():
                    left_texts = [_named(key).sub(ERASED, text) for text in texts]
                    if left_texts != texts:
                        connection.execute(_SET_LOG, [*left_texts, number])
                        found["change_log"] += 1
                connection.execute(_HASH, values)
                connection.execute(_NOTE, values)
            return {name: count for name, count in found.items() if count}

        return self._session.run(work)

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()


def without(document: Any, key: str, inside: str = "") -> Any:
    """Return a JSON document without what is about *key*: its member of ``keys``, elements that are it or have it.

    A text that names it among other words, such as a message, gives way whole; names of entities, tables and columns
    stay, whatever keys are called. *inside* is the name of the member that *document* is.
    """
    if isinstance(document, dict):
        return {
            name: without(value, key, name)
            for name, value in document.items()
            if not (inside == "keys" and name == key) and not _is_of(value, key)
        }
    if isinstance(document, list):
        return [without(value, key, inside) for value in document if value != key and not _is_of(value, key)]
    if isinstance(document, str) and inside not in _OF_MAPPING and _named(key).search(document):
        return ERASED
    return document


def _is_of(value: Any, key: str) -> bool:
    return isinstance(value, dict) and value.get("key") == key


def _named(key: str) -> re.Pattern[str]:
    """Return what finds *key* where it stands by itself, and is no part of another key."""
    return re.compile(rf"(?<![^\s'\"`(,;:=\[{{]){re.escape(key)}(?=$|[\s'\"`),;\]}}]|[:.](?:\s|$))")


def _in_json(key: str) -> str:
    """Return *key* as PostgreSQL writes it in the text of a jsonb value, without its quotes."""
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    escaped = re.sub(r"[\x00-\x07\x0b\x0e-\x1f]", lambda found: f"\\u{ord(found[0]):04x}", escaped)
    for character, written in (("\b", "\\b"), ("\f", "\\f"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        escaped = escaped.replace(character, written)
    return escaped
