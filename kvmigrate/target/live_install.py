"""Puts the functions of live writes into the database, and anew where the mapping or this version makes others."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.control_schema import INSTALL_LOCK
from kvmigrate.target.layout import Layout
from kvmigrate.target.live_function import create_live, digest_of, live_functions
from kvmigrate.target.session import Session, never_migrated
from kvmigrate.transform.lens import Lens

Connection = psycopg.Connection[Any]

_FUNCTIONS = """
SELECT p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc')
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'kvmigrate'::regnamespace AND p.proname ~ %s
ORDER BY p.proname
"""

_CALLERS = """
SELECT DISTINCT a.grantee::regrole::text
FROM pg_catalog.pg_proc AS p, aclexplode(p.proacl) AS a
WHERE p.pronamespace = 'kvmigrate'::regnamespace AND p.proname ~ %s AND a.grantee NOT IN (0, p.proowner)
ORDER BY 1
"""

_TYPES = """
SELECT t.typname FROM pg_catalog.pg_type AS t
WHERE t.typnamespace = 'kvmigrate'::regnamespace AND t.typname ~ %s AND t.typtype = 'c'
"""


def install_live(url: str, lens: Lens) -> list[str]:
    """Make the functions that live writes of this mapping call; return the names of those made now.

    Nothing is done where they stand as this version and this mapping make them. Otherwise all of the
    scope's are dropped and made anew in one transaction, for the same callers; writers of the older mapping
    cease to mirror.

    Raises:
        SchemaError: the scope is not known in this database.

        TargetError: PostgreSQL failed, or the role may not create functions in schema kvmigrate.
    """
    session = Session(url, application_name="kvmigrate:install")
    try:
        return session.run(lambda connection: _install(connection, lens, session.name))
    finally:
        session.close()


def _install(connection: Connection, lens: Lens, database: str) -> list[str]:
    mapping = lens.mapping
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
        found = connection.execute("SELECT id FROM kvmigrate.control WHERE scope = %s", [mapping.name]).fetchall()
        if not found:
            raise never_migrated(database, mapping.name)
        layout, scope = Layout(mapping), int(found[0][0])
        statements = create_live(layout, scope)
        digest = digest_of(statements, mapping.fingerprint)
        wanted = [name for each in live_functions(layout, scope).values() for name in (each.mirror, each.put)]
        ours = rf"^(mirror|put)_{scope}_\d+$"
        standing = connection.execute(_FUNCTIONS, [ours]).fetchall()
        if len(standing) == len(wanted) and all(comment == digest for _, comment in standing):
            return []
        callers = [role for (role,) in connection.execute(_CALLERS, [ours]).fetchall()]
        _drop(connection, [signature for signature, _ in standing], rf"^row_{scope}_\d+$")
        for statement in statements:
            connection.execute(statement)
        for name in wanted:
            function = sql.Identifier("kvmigrate", name)
            connection.execute(sql.SQL("COMMENT ON FUNCTION {} IS {}").format(function, sql.Literal(digest)))
            for role in callers:
                # The server's own spelling of the role's name.
                connection.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(function, sql.SQL(role)))
        return wanted


def _drop(connection: Connection, functions: list[str], types: str) -> None:
    for signature in functions:
        # The server's own spelling of a name with its arguments' types.
        connection.execute(sql.SQL("DROP FUNCTION {}").format(sql.SQL(signature)))
    for (name,) in connection.execute(_TYPES, [types]).fetchall():
        connection.execute(sql.SQL("DROP TYPE {}").format(sql.Identifier("kvmigrate", name)))
