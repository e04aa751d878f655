"""One endpoint without servers: readers that do what a test says, and a router that is told what it would hear."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from contextvars import copy_context
from time import monotonic
from typing import Any

from kvmigrate.errors import DeadlineError, OnlyInStoreError
from kvmigrate.intent import FlagState, ReadIntent
from kvmigrate.model import Authority, Stage
from kvmigrate.reads.demotion import Demotion
from kvmigrate.reads.reads import Reads
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.reads.router import Router
from kvmigrate.reads.state import MISS, StaleReadError
from kvmigrate.target.live_base import Control

NAME = "GET /clients/{id}"
SLUG = "get.clients.id"


def control(stage: Stage, **changes: Any) -> Control:
    """A control row with nothing amiss."""
    leads = stage in {Stage.RAMPDOWN, Stage.COMPLETE}
    row = Control(
        scope=1,
        epoch=5,
        authority=Authority.TABLES if leads else Authority.STORE,
        stage=stage,
        phase="",
        backfill_epoch=0,
        backfilled_epoch=0,
        owes_all=False,
        store_incarnation="",
        target_incarnation="",
        safe_n={},
        updated_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )
    return row._replace(**changes)


def raising(error: BaseException) -> Callable[[Any], Any]:
    """A reader that fails."""

    def read(_: Any) -> Any:
        raise error

    return read


FAULTS: dict[str, Callable[[Any], Any]] = {
    "error": raising(RuntimeError("broken")),
    "hang": raising(DeadlineError("no answer in time")),
    "wrong": lambda _: "wrong",
    "same": lambda _: "same",
    "null": lambda _: None,
    "missing": lambda _: MISS,
    "lookup": raising(KeyError("1")),
    "stale": raising(StaleReadError()),
    "waits": raising(OnlyInStoreError("it waits")),
    "exit": raising(SystemExit()),
}
"""What a side may say in place of what it should."""


class Closing:
    """Tables by key that no test here uses."""

    def close(self) -> None:
        """Nothing is open."""


class Stand:
    """An endpoint whose sides are functions: `kv` and `tables` are called with the id, and may be replaced.

    Attributes:
        asked: Which sides were asked, in order.
    """

    def __init__(self, stage: Stage = Stage.LIVE, *, is_async: bool = False, **intent: Any) -> None:
        self.kv: Callable[[Any], Any] = lambda _: "kv"
        self.tables: Callable[[Any], Any] = lambda _: "tables"
        self.asked: list[str] = []
        self.demotion = Demotion(jitter=lambda: 1.0)
        self.router = Router("shop", lambda _: [])
        self._runner = asyncio.Runner() if is_async else None
        self.call, self.state = self._made_async() if is_async else self._made()
        self.router.start()
        self.stage(stage)
        self.intend(**{"share": 10_000, "shadow": 0, **intent})

    def stage(self, stage: Stage, **changes: Any) -> None:
        """Let the control row say this."""
        self.router.hear_control(control(stage, **changes), monotonic())

    def intend(self, **intent: Any) -> None:
        """Let the flag say this."""
        self.router.hear_flags(FlagState({SLUG: ReadIntent(**{"shadow": 0, **intent})}, ""))

    def tables_outcomes(self) -> list[int]:
        """How the reads of the tables ended: value, null, miss, error, timeout, stale."""
        return list(self.state.counts.outcomes[1])

    def close(self) -> None:
        """End the loop, if there is one."""
        if self._runner:
            self._runner.close()

    def _made(self) -> tuple[Callable[..., Any], Any]:
        reads = Reads(self.router, Closing(), Closing(), lambda: None)  # type: ignore[arg-type]

        @reads.endpoint(NAME, sticky="id", demotion=self.demotion)
        def read(id: Any) -> Any:  # noqa: A002 - as routes have it
            self.asked.append("kv")
            return self.kv(id)

        @read.tables
        def from_tables(id: Any) -> Any:  # noqa: A002 - as routes have it
            self.asked.append("tables")
            return self.tables(id)

        return read, read.state

    def _made_async(self) -> tuple[Callable[..., Any], Any]:
        runner = self._runner
        assert runner is not None
        reads = AsyncReads(self.router, Closing(), Closing(), lambda: None)  # type: ignore[arg-type]

        @reads.endpoint(NAME, sticky="id", demotion=self.demotion, deadline_s=0.05)
        async def read(id: Any) -> Any:  # noqa: A002 - as routes have it
            self.asked.append("kv")
            return self.kv(id)

        @read.tables
        async def from_tables(id: Any) -> Any:  # noqa: A002 - as routes have it
            self.asked.append("tables")
            found = self.tables(id)
            return await found if asyncio.iscoroutine(found) else found

        async def called(id: Any) -> Any:  # noqa: A002 - as routes have it
            return await read(id)

        return lambda id: runner.run(called(id), context=copy_context()), read.state  # noqa: A006 - as routes have it
