"""An endpoint over two sides that do nothing, and whose flags and control row are in memory."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from kvmigrate.intent import FlagState, ReadIntent, slug_of
from kvmigrate.model import Authority, Stage
from kvmigrate.reads.reads import Reads
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.reads.router import Router
from kvmigrate.reads.shadow import Shadow
from kvmigrate.target.live_base import Control

NAME = "GET /clients/{id}"
CALL = "user-1"


class Nothing:
    """What nobody asks here."""

    def close(self) -> None:
        """Nothing is open."""


def control(stage: Stage) -> Control:
    """Return a control row with nothing amiss."""
    leads = stage in {Stage.RAMPDOWN, Stage.COMPLETE}
    return Control(
        scope=1,
        epoch=1,
        authority=Authority.TABLES if leads else Authority.STORE,
        stage=stage,
        phase="",
        backfill_epoch=0,
        backfilled_epoch=0,
        owes_all=False,
        store_incarnation="",
        target_incarnation="",
        safe_n={},
        updated_at=dt.datetime.now(dt.UTC),
    )


def router_at(stage: Stage, share: int, shadow: int = 0) -> Router:
    """Return what decides, at a share in hundredths of a percent; it looks at nothing."""
    router = Router("shop", lambda _: [])
    router.start()
    router.hear_flags(FlagState({slug_of(NAME): ReadIntent(share, shadow=shadow)}, "1"))
    router.hear_control(control(stage), monotonic())
    router.life.until = math.inf
    return router


def endpoint(router: Router, shadow: Shadow | None = None) -> Callable[[str], str]:
    """Return the endpoint: each side says its name."""
    nothing = cast("Any", Nothing())
    reads = Reads(router, nothing, nothing, lambda: None, shadow=shadow)

    @reads.endpoint(NAME, sticky="user")
    def read(user: str) -> str:
        del user
        return "kv"

    @read.tables
    def from_tables(user: str) -> str:
        del user
        return "tables"

    read(CALL)  # The first call begins what decides.
    return read


def async_endpoint(router: Router, tables: Callable[[str], Any] | None = None, deadline_s: float = 0.25) -> Any:
    """Return the endpoint for an event loop; *tables* reads them where given."""
    nothing = cast("Any", Nothing())
    reads = AsyncReads(router, nothing, nothing, lambda: None)

    @reads.endpoint(NAME, sticky="user", deadline_s=deadline_s)
    async def read(user: str) -> str:
        del user
        return "kv"

    async def from_tables(user: str) -> str:
        del user
        return "tables"

    read.tables(tables or from_tables)
    return read
