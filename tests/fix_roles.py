"""Roles of a database in which PUBLIC may do nothing, and the rights that `control grants` gives them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors, sql

from kvmigrate.target.control import ControlSchema
from kvmigrate.target.part import Part
from kvmigrate.transform.lens import Lens
from tests.fix_postgres import PgConnection


class Member:
    """A role that may log in, and nothing more until it is granted something."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url

    def may(self, statement: str) -> bool:
        """Whether the server lets this role do it; it is rolled back."""
        with psycopg.connect(self.url) as connection, connection.transaction(force_rollback=True):
            try:
                connection.execute(statement.encode())
            except errors.InsufficientPrivilege:
                return False
            return True


@contextmanager
def member(pg: PgConnection, database: str, name: str) -> Iterator[Member]:
    """Make a role and remove it with all that it got."""
    role = sql.Identifier(name)
    pg.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(role))
    parts = urlsplit(database)
    try:
        yield Member(name, urlunsplit(parts._replace(netloc=f"{name}:secret@{parts.hostname}:{parts.port}")))
    finally:
        statement = sql.SQL("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}").format(role)
        for _ in range(20):
            # A session of the role that is just ending takes its temporary tables along.
            with suppress(errors.InternalError_):
                pg.execute(statement)
                break
            time.sleep(0.1)
        else:
            pg.execute(statement)


@pytest.fixture
def bare_pg(pg: PgConnection) -> PgConnection:
    """A hardened database: PUBLIC may do nothing in it."""
    pg.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(pg.info.dbname)))
    pg.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    pg.execute("CREATE TABLE of_others (id int)")
    return pg


def grant(database: str, part: Part, role: str, lens: Lens) -> tuple[str, ...]:
    """Give the role its part; return the notes."""
    with ControlSchema(database) as schema:
        plan = schema.plan_grants(part, role, lens.mapping)
        schema.apply_grants(plan)
        return plan.notes
