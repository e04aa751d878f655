"""LaunchDarkly's migrator as its documentation shows it, without a connection to its service and without events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ldclient import Config, Context, LDClient, Result
from ldclient.integrations.test_data import TestData
from ldclient.migrations import MigratorBuilder, Stage

FLAG = "shop"
DUALWRITE = "dualwrite"

Write = Callable[[Any], None]


class MigratorPeer:
    """A migrator in one stage."""

    def __init__(self, client: LDClient, old: Write, new: Write) -> None:
        """Write into *old*, then into *new*."""
        builder = MigratorBuilder(client).read(_told(old), _told(new)).write(_told(old), _told(new))
        built = builder.build()
        if isinstance(built, str):
            raise TypeError(built)
        self._migrator = built
        self._context = Context.builder("user-1").set("tenant", "acme").build()

    def write(self, payload: Any) -> None:
        """Write through the migrator. Raises what either side raised."""
        result = self._migrator.write(FLAG, self._context, Stage.OFF, payload)
        for each in (result.authoritative, result.nonauthoritative):
            if each is not None and not each.is_success():
                raise each.exception or RuntimeError(each.error)


@contextmanager
def migrator(old: Write, new: Write) -> Iterator[MigratorPeer]:
    """A migrator in stage dualwrite: the old store is the authority."""
    logging.getLogger("ldclient").setLevel(logging.CRITICAL)
    data = TestData.data_source()
    stages = [stage.value for stage in Stage]
    data.update(data.flag(FLAG).variations(*stages).variation_for_all(stages.index(DUALWRITE)))
    client = LDClient(Config("no-key", update_processor_class=data, send_events=False))
    try:
        yield MigratorPeer(client, old, new)
    finally:
        client.close()


def _told(write: Write) -> Callable[[Any], Result]:
    def told(payload: Any) -> Result:
        write(payload)
        return Result.success(None)

    return told
