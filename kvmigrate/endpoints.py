"""The endpoints of a live mapping, wired to both sides, for threads and for an event loop."""

from __future__ import annotations

from kvmigrate.config import Settings
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.reading import router_of
from kvmigrate.reads.reads import Reads
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.reads.standby import Standby
from kvmigrate.reads.standby_tables import StandbyTables
from kvmigrate.reads.standby_tables_async import AsyncStandbyTables
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.live_writer_async import AsyncLiveWriter
from kvmigrate.target.row_query import PostgresRowQuery
from kvmigrate.target.row_query_async import AsyncPostgresRowQuery
from kvmigrate.transform.lens import Lens


def open_reads(settings: Settings, lens: Lens, store: Store) -> Reads:
    """Return the endpoints of a mapping, which close what they open.

    Raises:
        ConfigError: no store or target is named, or the flags cannot be read from what is named.
    """
    known = Standby() if settings.read_target else None
    router, target, last = router_of(settings, lens.mapping.name, known), settings.need_target(), store.last_write
    tables, rows, standby = LiveWriter(target, lens), PostgresRowQuery(target), None
    if known is not None:
        url = settings.read_target
        items, queries = LiveWriter(url, lens, is_standby=True), PostgresRowQuery(url, is_standby=True)
        standby = StandbyTables(known, (tables, items), (rows, queries), last, store.lacking)
    lacking, reached, mapping = store.lacking, store.has_reached_tables, lens.mapping
    return Reads(router, tables, rows, last, lacking=lacking, reached=reached, standby=standby, mapping=mapping)


def open_async_reads(settings: Settings, lens: Lens, store: AsyncStore) -> AsyncReads:
    """As `open_reads`, for an event loop."""
    known = Standby() if settings.read_target else None
    router, target, last = router_of(settings, lens.mapping.name, known), settings.need_target(), store.last_write
    tables, rows, standby = AsyncLiveWriter(target, lens), AsyncPostgresRowQuery(target), None
    if known is not None:
        url = settings.read_target
        items, queries = AsyncLiveWriter(url, lens, is_standby=True), AsyncPostgresRowQuery(url, is_standby=True)
        standby = AsyncStandbyTables(known, (tables, items), (rows, queries), last, store.lacking)
    lacking, reached, mapping = store.lacking, store.has_reached_tables, lens.mapping
    return AsyncReads(router, tables, rows, last, lacking=lacking, reached=reached, standby=standby, mapping=mapping)
