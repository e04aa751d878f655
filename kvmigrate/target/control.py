"""The control schema of one database, as its administrator handles it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import psycopg

from kvmigrate.errors import SchemaError
from kvmigrate.target.control_schema import install_control, is_installed
from kvmigrate.target.control_status import ControlStatus, read_control_status
from kvmigrate.target.grants import GrantPlan, apply_grants, plan_grants
from kvmigrate.target.owing_install import (
    Leaving,
    WatchedTable,
    look_at_watch,
    plan_unwatch,
    unwatch_tables,
    watch_tables,
)
from kvmigrate.target.part import Part
from kvmigrate.target.session import Session
from kvmigrate.transform.mapping import Mapping as MappingFile

Connection = psycopg.Connection[Any]


class ControlSchema:
    """Schema ``kvmigrate`` in a database. A context manager; connected when first used.

    Every method may raise `TargetError`. One thread at a time.
    """

    def __init__(self, url: str) -> None:
        """Keep *url*. Raises `TargetError` where it cannot be read."""
        self._session = Session(url, application_name="kvmigrate:control")

    @property
    def name(self) -> str:
        """Host, port and database, without secrets."""
        return self._session.name

    def install(self) -> list[str]:
        """Make the schema, or what is missing of it; return the names of what was applied. See `install_control`."""
        return self._session.run(install_control)

    def upgrade(self) -> list[str]:
        """Apply what is missing; return the names of what was applied. See `install_control`.

        Raises:
            SchemaError: there is no control schema in this database.
        """

        def work(connection: Connection) -> list[str]:
            if not is_installed(connection):
                raise SchemaError(
                    f"there is no control schema in {self.name}",
                    hint="check --target; `kvmigrate control install` makes it",
                )
            return install_control(connection)

        return self._session.run(work)

    def status(self) -> ControlStatus:
        """Return migrations, adapters and roles."""
        return self._session.run(read_control_status)

    def plan_grants(self, part: Part, role: str, mapping: MappingFile) -> GrantPlan:
        """Return the statements that give *role* its part. See `kvmigrate.target.grants.plan_grants`."""
        return self._session.run(lambda connection: plan_grants(connection, part, role, mapping))

    def apply_grants(self, plan: GrantPlan) -> None:
        """Execute a plan, all of it or nothing. See `kvmigrate.target.grants.apply_grants`."""
        self._session.run(lambda connection: apply_grants(connection, plan))

    def look_at_watch(self, mapping: MappingFile) -> list[WatchedTable]:
        """Return which tables of *mapping* are watched. See `kvmigrate.target.owing_install.look_at_watch`."""
        return self._session.run(lambda connection: look_at_watch(connection, mapping, self.name))

    def watch(self, mapping: MappingFile) -> list[str]:
        """Have plain SQL owed to the store; return the tables that lacked it. See `watch_tables`."""
        return self._session.run(lambda connection: watch_tables(connection, mapping, self.name))

    def plan_unwatch(self, mapping: MappingFile) -> list[Leaving]:
        """Return what `unwatch` would execute. See `plan_unwatch`."""
        return self._session.run(lambda connection: plan_unwatch(connection, mapping, self.name))

    def unwatch(self, mapping: MappingFile) -> list[str]:
        """Drop what `watch` made; return the tables. See `unwatch_tables`."""
        return self._session.run(lambda connection: unwatch_tables(connection, mapping, self.name))

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
