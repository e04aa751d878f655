"""LaunchDarkly's migrator as its documentation shows it, without a connection to its service and without events."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FLAG = "shop"
DUALWRITE = "dualwrite"

Write = Callable[[Any], None]


class MigratorPeer:
    """A migrator in one stage, for one user."""

    def __init__(self, migrator: Any, context: Any, default: Any) -> None:
        """Write through *migrator*."""
        self._migrator, self._context, self._default = migrator, context, default

    def write(self, payload: Any) -> None:
        """Write into both stores. Raises what either of them raised."""
        result = self._migrator.write(FLAG, self._context, self._default, payload)
        for each in (result.authoritative, result.nonauthoritative):
            if each is not None and not each.is_success():
                raise each.exception or RuntimeError(each.error)


@contextmanager
def migrator(old: Write, new: Write) -> Iterator[MigratorPeer]:
    """A migrator in stage dualwrite: *old* is the authority, and written first. Its package is in the bench extra."""
    sdk, migrations = importlib.import_module("ldclient"), importlib.import_module("ldclient.migrations")
    data = importlib.import_module("ldclient.integrations.test_data").TestData.data_source()
    logging.getLogger("ldclient").setLevel(logging.CRITICAL)
    stages = [stage.value for stage in migrations.Stage]
    data.update(data.flag(FLAG).variations(*stages).variation_for_all(stages.index(DUALWRITE)))
    client = sdk.LDClient(sdk.Config("no-key", update_processor_class=data, send_events=False))

    def told(write: Write) -> Callable[[Any], Any]:
        def tell(payload: Any) -> Any:
            write(payload)
            return sdk.Result.success(None)

        return tell

    try:
        builder = migrations.MigratorBuilder(client).read(told(old), told(new)).write(told(old), told(new))
        context = sdk.Context.builder("user-1").set("tenant", "acme").build()
        yield MigratorPeer(builder.build(), context, migrations.Stage.OFF)
    finally:
        client.close()
