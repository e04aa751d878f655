"""Everything wired together: a migration as the command line and the demo use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ParamSpec, Self, TypeVar, Unpack

from kvmigrate.backfill.budget import Budget
from kvmigrate.backfill.pace import Knobs
from kvmigrate.backfill.preview import preview_backfill
from kvmigrate.backfill.progress import Progress, counted
from kvmigrate.backfill.quarantine import QuarantineStore, ReplayReport
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import PAGE_KEYS, run_backfill
from kvmigrate.backfill.share_work import BackfillSetup, Done
from kvmigrate.backfill.undo import UndoReport, run_undo
from kvmigrate.backfill.where import read_where
from kvmigrate.config import Settings, mask_url, read_settings
from kvmigrate.consistency.bounds import CONFIDENCE
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.sample import Wanted, new_seed
from kvmigrate.consistency.sample_report import Sampled
from kvmigrate.consistency.share_work import Compared, VerifySetup, run_shared_verify
from kvmigrate.consistency.verify import run_verify
from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.commands import Commands
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.relay import Relay
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.way import Connections
from kvmigrate.endpoints import open_reads
from kvmigrate.erasing import Erasure, erase
from kvmigrate.errors import CheckFailedError, ConfigError, SchemaError, TargetError
from kvmigrate.export.report import ExportReport, Lines, type_name
from kvmigrate.export.source import export_source
from kvmigrate.export.target import TargetExport
from kvmigrate.gating import check_entities, wish_of
from kvmigrate.log import get_log
from kvmigrate.model import Authority, Item, ItemKind, Version
from kvmigrate.processes.crew import Crew
from kvmigrate.processes.crew_size import crew_size
from kvmigrate.reads.endpoint import Read
from kvmigrate.reads.options import EndpointOptions
from kvmigrate.reads.reads import Reads
from kvmigrate.relaying import LiveScope, Opener, read_control
from kvmigrate.repairing import Repair
from kvmigrate.sampling import Sampling, evidence_of, open_sampling, sight_of, verify_paced, verify_quick, verify_since
from kvmigrate.stages import Stages, leader_steps
from kvmigrate.stores.base import KVSource, divisible
from kvmigrate.stores.export_format import write_item, write_unreadable
from kvmigrate.stores.open import open_drop_in, open_fenced, open_source, open_writer
from kvmigrate.target.base import QuarantineEntry
from kvmigrate.target.evidence import VERIFY
from kvmigrate.target.kept_list import KeptEntry
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.own_ids import with_own_ids
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.process_row import PostgresProcessRow, process_id
from kvmigrate.target.retune import RunState, retune
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.target.schema_postgres import AppliedSchema, apply_schema, diff_schema, drop_schema
from kvmigrate.target.waiting_list import WaitingEntry
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.mapping import Mapping as MappingFile
from kvmigrate.transform.tables.ddl_formats import Format, render
from kvmigrate.transform.tables.difference import Difference
from kvmigrate.transform.values.json_text import load_jsonb

_LINES = Lines(write_item, write_unreadable)
_log = get_log()

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")


class Migration:
    """One mapping, its store and its tables. A context manager; leaving it closes connections.

    The mapping is read when the migration is opened; store and target are connected
    when they are first needed, so that a command needs only the sides it reads.
    Not for several threads at once, apart from its `store`.
    """

    def __init__(self, settings: Settings, mapping: MappingFile) -> None:
        """Use `open` instead."""
        self.settings = settings
        self.mapping = mapping
        self._open = ExitStack()

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Read the mapping that *settings* name (default: those of environment and ``kvmigrate.toml``).

        Raises:
            ConfigError: no mapping is named. `MappingError`: it is wrong.
        """
        settings = settings or read_settings()
        mapping = load_mapping(settings.need_mapping())
        _log.debug("mapping read", file=mapping.file, name=mapping.name, fingerprint=mapping.fingerprint[:12])
        return cls(settings, mapping)

    @cached_property
    def lens(self) -> Lens:
        """The compiled mapping."""
        return compile_mapping(self.mapping)

    @cached_property
    def source(self) -> KVSource:
        """The store. Raises `ConfigError` where none is named or its URL is wrong."""
        source = open_source(self.settings.need_source())
        self._open.callback(source.close)
        _log.debug("store opened", name=source.name, named_by=self.settings.came_from.get("source"))
        return source

    @cached_property
    def target(self) -> PostgresTarget:
        """The database. Raises `ConfigError` where none is named, `TargetError` where it cannot be reached."""
        target = PostgresTarget.connect(self.settings.need_target(), self.lens)
        self._open.callback(target.close)
        _log.debug("target opened", name=target.name, named_by=self.settings.came_from.get("target"))
        return target

    @cached_property
    def store(self) -> Store:
        """Reads and writes of mapped keys, wherever the authority is. For all threads and forks. See `Store`.

        Raises:
            ConfigError: no store or target is named; later, at the first use, that their URLs are wrong.
        """
        source, target, scope = self.settings.need_source(), self.settings.need_target(), self.mapping.name

        def connect() -> Connections:
            companion = Companion(
                lambda: open_fenced(source, scope=scope),
                lambda: PostgresProcessRow(
                    target, scope, kind="adapter", name=process_id("adapter"), mapping=self.mapping.fingerprint
                ),
                use=self._use,
            )
            return Connections(open_writer(source, scope=scope), LiveWriter(target, self.lens), companion)

        store = Store(self.lens, connect)
        self._open.callback(store.close)
        return store

    @cached_property
    def reads(self) -> Reads:
        """The endpoints, whose reads move to the tables one by one. For all threads and forks. See `Reads`.

        Raises:
            ConfigError: no store or target is named, or the flags cannot be read from what is named.
        """
        reads = open_reads(self.settings, self.lens, self.store)
        self._open.callback(reads.close)
        return reads

    def endpoint(self, name: str, **options: Unpack[EndpointOptions]) -> Callable[[Callable[P, T]], Read[P, T]]:
        """Decorate the reader of an endpoint; see `Reads.endpoint`."""
        return self.reads.endpoint(name, **options)

    def redis(self, client: C) -> C:
        """Return a client that behaves as *client*, of this mapping's store, while its data move.

        *client* is a `redis.Redis` of one server, or of the master that Sentinel names, or a `redis.RedisCluster`.

        A write of a mapped key is one step with its fence and its mark, and a relay brings it into the tables; all
        else passes as it is. It uses the connections of *client*, which it closes when it is closed; writes to a
        cluster have some of their own. For all threads, and forks. Raised beside the client's own errors: what `Store`
        raises, `CommandRefusedError` for commands that cannot be fenced, `NotAfterCutoverError` for those that do not
        work while the tables are the authority.

        Raises:
            ConfigError: it is another kind of client.
        """
        return open_drop_in(client, Commands(self.lens, self.store, self._use), scope=self.mapping.name)

    @cached_property
    def _use(self) -> CommandUse:
        return CommandUse()

    def backfill(
        self,
        *,
        only: Sequence[str] = (),
        where: str | None = None,
        limit_keys: int | None = None,
        accept_deletes: bool = False,
        rewrite: bool = False,
        processes: int | None = None,
        knobs: Knobs | None = None,
        budget: Budget | None = None,
        progress: Progress | None = None,
    ) -> BackfillReport:
        """Copy the store into the tables, which are made where they are missing. See `run_backfill`.

        *processes* read and write together; 1 does all of it in this process, as small stores do by default.
        """
        self.check_entities(only)
        _ = self.source  # a source that is not one is told first
        with ExitStack() as stack:
            live = self._live(stack)
            if live is not None and (where or limit_keys is not None):
                raise ConfigError(
                    "--where and --limit are for a first look, and this mapping is live: a part of it proves nothing",
                    hint="leave them away: a backfill of a live mapping writes only what differs",
                )
            as_of = live.as_of if live is not None and live.is_loading else None
            target = self.target if live is None else self._target_as_of(stack, as_of or Version(live.epoch, 0))
            alone = limit_keys is not None or (live is not None and not live.is_loading)
            count = 1 if alone else self._processes(processes, beyond=1)
            setup = BackfillSetup(*self._opened(), as_of=as_of)
            crew = stack.enter_context(Crew(setup, count, Done)) if count > 1 else None
            return run_backfill(
                self.source,
                target,
                self.lens,
                only=tuple(only),
                where=read_where(where, self.mapping) if where else None,
                limit_keys=limit_keys,
                accept_deletes=accept_deletes,
                rewrite=rewrite,
                crew=crew,
                knobs=knobs,
                budget=budget,
                progress=progress,
                live=live,
            )

    def _live(self, stack: ExitStack) -> LiveScope | None:
        """Return the live side of this mapping, open until *stack* ends; ``None`` where it never left stage off."""
        control = self._control()
        if control is None or not control.epoch:
            return None
        opener = Opener(self.settings.need_source(), self.settings.need_target(), self.lens)
        return stack.enter_context(LiveScope(opener))

    def _control(self) -> Control | None:
        """Return the control row; ``None`` where nothing was ever migrated under the mapping's name."""
        url = self.settings.need_target()
        try:
            return read_control(url, self.lens)
        except SchemaError:
            # Of an earlier version, which can be upgraded under whatever runs; who may not do that is told who may.
            self.target.install()
            return read_control(url, self.lens)

    def _target_as_of(self, stack: ExitStack, as_of: Version) -> PostgresTarget:
        return stack.enter_context(PostgresTarget.connect(self.settings.need_target(), self.lens, as_of=as_of))

    def check_relayed(self) -> None:
        """Tell at once what no relay could wait for; a database that does not answer may still come.

        Raises:
            SchemaError: the control schema is missing or of an older version, or the mapping is not known in it.
        """
        url = self.settings.need_target()
        try:
            control = read_control(url, self.lens)
        except SchemaError:
            raise
        except TargetError as exc:
            _log.warning("the database does not answer: it is waited for", error=str(exc))
            return
        if control is None:
            raise SchemaError(
                f"nothing was migrated to {mask_url(url)} under the name {self.mapping.name!r}",
                hint="`kvmigrate stage advance` begins, or check --target and the mapping's name",
            )

    def relay(self, stop: threading.Event) -> Relay:
        """Return a relay of this mapping that *stop* ends. See `Relay`."""
        opener = Opener(self.settings.need_source(), self.settings.need_target(), self.lens)
        return opener.relay(stop, leader_steps(opener, replicas=self.settings.wait_replicas))

    def stages(self) -> Stages:
        """Return what moves this mapping from stage to stage. See `Stages`."""
        settings = self.settings
        self.check_entities(settings.zero_tolerance)
        wish = wish_of(settings)
        return Stages(
            settings.need_source(), settings.need_target(), self.lens, replicas=settings.wait_replicas, wish=wish
        )

    def retune(self, changes: Mapping[str, Any]) -> RunState:
        """Change knobs of the backfill of this mapping that runs now, wherever it runs; see `Knobs`.

        Returns:
            How it stands, when it has heard of them and had a moment to act on them.

        Raises:
            CheckFailedError: none is running.
        """
        return retune(self.settings.need_target(), self.mapping.name, changes)

    def preview(
        self,
        *,
        only: Sequence[str] = (),
        where: str | None = None,
        limit_keys: int | None = None,
        progress: Progress | None = None,
    ) -> BackfillReport:
        """Tell what `backfill` would do, without a database. See `preview_backfill`."""
        self.check_entities(only)
        return preview_backfill(
            self.source,
            self.lens,
            page_keys=PAGE_KEYS,
            only=tuple(only),
            where=read_where(where, self.mapping) if where else None,
            limit_keys=limit_keys,
            progress=progress,
        )

    def _processes(self, wanted: int | None, *, beyond: int = 0) -> int:
        if wanted == 1 or divisible(self.source) is None:
            return 1
        return wanted if wanted is not None else crew_size(self.source.count(), beyond=beyond)

    def _opened(self) -> tuple[str, str, str, str]:
        """Return what every worker opens: the fields of `Setup`."""
        settings = self.settings
        text = Path(settings.need_mapping()).read_text(encoding="utf-8")
        return settings.need_source(), settings.need_target(), text, self.mapping.fingerprint

    def verify(
        self,
        *,
        entity: str | None = None,
        limit_keys: int | None = None,
        show_values: bool = False,
        processes: int | None = None,
        progress: Progress | None = None,
    ) -> VerifyReport:
        """Compare the store with the tables, both ways. See `run_verify`.

        *processes* is as for `backfill`; the report is the same, however many compare.
        """
        self.check_entities([entity] if entity else [])
        source, url, told = self.source, self.settings.need_target(), counted(progress)
        with ExitStack() as stack:
            reader = stack.enter_context(PostgresRowReader.open(url, self.mapping, json_loads=loads_column))
            finished = reader.is_backfill_finished()
            evidence = stack.enter_context(evidence_of(self.settings, self.mapping))
            begun = evidence.try_begin()
            count = self._processes(processes) if limit_keys is None else 1
            sight = sight_of(self.settings, self.lens, stack)
            if count > 1:
                setup = VerifySetup(*self._opened(), entity, show_values, is_live=sight is not None)
                crew = stack.enter_context(Crew(setup, count, Compared))
                found = run_shared_verify(source, reader, self.mapping, crew, entity=entity, progress=told, sight=sight)
            else:
                found = run_verify(
                    source,
                    reader,
                    self.mapping,
                    progress=told,
                    show_values=show_values,
                    limit=limit_keys,
                    entity=entity,
                    sight=sight,
                )
            found.unfinished = not finished
            if found.complete and entity is None:
                facts = {**found.evidence(), **begun}
                if unkept := evidence.try_add(VERIFY, facts, mapping=self.mapping.fingerprint):
                    _log.debug("the verification was not kept", why=unkept)
        return found

    def verify_paced(self, rate: float, stop: threading.Event, *, progress: Progress | None = None) -> VerifyReport:
        """Compare everything at *rate* keys a second until *stop* is set; again, it goes on. See `verify_paced`."""
        return verify_paced(self.settings, self.source, self.lens, rate, stop, counted(progress))

    def verify_since(
        self, before: datetime | None = None, *, show_values: bool = False, progress: Progress | None = None
    ) -> VerifyReport:
        """Compare what was written since the last clean verification that began by *before*. See `verify_since`."""
        told = counted(progress)
        return verify_since(self.settings, self.source, self.lens, before, show_values=show_values, progress=told)

    def verify_quick(self, *, show_values: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Compare every item by its content hash, and what was written since in full. See `verify_quick`."""
        told = counted(progress)
        return verify_quick(self.settings, self.source, self.lens, show_values=show_values, progress=told)

    def sample(
        self,
        wanted: Wanted,
        *,
        seed: int | None = None,
        confidence: float = CONFIDENCE,
        entity: str | None = None,
        show_values: bool = False,
        progress: Progress | None = None,
    ) -> Sampled:
        """Compare some keys of both sides, drawn by chance, and keep what was found as evidence. See `run_sample`."""
        self.check_entities([entity] if entity else [])
        seed, told = new_seed() if seed is None else seed, counted(progress)
        with self.sampling(confidence=confidence, entity=entity) as sampling:
            return sampling.once(wanted, seed=seed, show_values=show_values, progress=told)

    def sampling(self, *, confidence: float = CONFIDENCE, entity: str | None = None) -> Sampling:
        """Return what samples for as long as it is let, and keeps what it finds as evidence; see `Sampling`.

        Close it, as it has connections of its own.
        """
        self.check_entities([entity] if entity else [])
        return open_sampling(self.settings, self.source, self.lens, entity=entity, confidence=confidence)

    def repairs(self) -> Repair:
        """Return what repairs single items of this mapping, from the side that leads. See `Repair`."""
        return Repair(self.settings, self.lens, self._control())

    def erase(self, key: str, *, why: str) -> Erasure:
        """Let an item leave the store, the tables, and everything that is kept of it; see `kvmigrate.erasing.erase`."""
        with self.repairs() as repair:
            url, delete = self.settings.need_target(), self.store.delete
            return erase(key, url=url, lens=self.lens, control=self._control(), delete=delete, repair=repair, why=why)

    def export_from_source(
        self,
        out: BinaryIO,
        *,
        only: Sequence[str] = (),
        limit_keys: int | None = None,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write the store's items as lines. With *only*, those of some entities. See `export_source`."""
        self.check_entities(only)

        def wants(key: str) -> bool:
            entity = self.lens.route(key).entity
            return entity is not None and entity.name in only

        return export_source(
            self.source, out, _LINES, wants=wants if only else None, limit_keys=limit_keys, progress=counted(progress)
        )

    def export_from_target(
        self,
        out: BinaryIO,
        *,
        only: Sequence[str] = (),
        limit_keys: int | None = None,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write the items of the tables as lines. The store is read only where it is named. See `TargetExport`."""
        self.check_entities(only)
        source = self.source if self.settings.source else None
        with PostgresRowReader.open(self.settings.need_target(), self.mapping, json_loads=load_jsonb) as reader:
            finished = reader.is_backfill_finished()
            export = TargetExport(reader, self.lens, self._quarantined, source)
            done = export.write(out, _LINES, only=only, limit_keys=limit_keys, progress=counted(progress))
        done.unfinished = not finished
        return done

    @cached_property
    def quarantine(self) -> QuarantineStore:
        """The quarantined items."""
        return QuarantineStore(self.target, self.lens, write_item)

    def waiting(self, *, reason: str | None = None, entity: str | None = None, limit: int = 100) -> list[WaitingEntry]:
        """Return what waiting items wait for, in order of their keys; *limit* is in obstacles."""
        found = self.target.waiting_items(reason=reason, entity=entity, limit=limit)
        return with_own_ids(found, self.source.get_many) if self.settings.source else found

    def kept(self, *, entity: str | None = None, limit: int = 100) -> list[KeptEntry]:
        """Return kept items, in order of their keys."""
        return self.target.kept_items(entity=entity, limit=limit)

    def apply_schema(self) -> AppliedSchema:
        """Make what is missing of the tables. See `apply_schema`."""
        return apply_schema(self.settings.need_target(), self.mapping)

    def diff_schema(self) -> list[Difference]:
        """Return how the tables differ from the mapping. See `diff_schema`."""
        return diff_schema(self.settings.need_target(), self.mapping)

    def unnamed_columns(self) -> list[str]:
        """Return the columns of the mapping's tables that the mapping does not name."""
        return [
            each.object.removeprefix("column ")
            for each in self.diff_schema()
            if each.object.startswith("column ") and each.what.startswith("is not in the mapping")
        ]

    def unnamed_items(self, run: int) -> int:
        """Return how many items of entities that the mapping lost are in the tables, or left the ledger in *run*."""
        return self.target.unnamed_items(run)

    def drop_schema(self, *, force: bool) -> list[str]:
        """Drop the mapping's tables; with rows only if *force*. See `drop_schema`."""
        return drop_schema(self.settings.need_target(), self.mapping, force=force)

    def schema_text(self, text_format: Format, *, down: bool = False) -> str:
        """Return the SQL of the tables as a tool wants it. See `render`."""
        return render(self.mapping, text_format, down=down)

    def replay(
        self,
        *,
        keys: Sequence[str] = (),
        reason: str | None = None,
        every: bool = False,
        progress: Progress | None = None,
    ) -> ReplayReport:
        """Try quarantined items again; the store is read where it is named. See `QuarantineStore.replay`.

        Of a live mapping they are only marked, in the store: see `QuarantineStore.touch`.

        Raises:
            CheckFailedError: the tables are the authority, so nothing is tried from the store any more.
        """
        with ExitStack() as stack:
            control = self._control()
            if control is not None and control.authority is not Authority.STORE:
                raise CheckFailedError(
                    f"{self.mapping.name!r} is in stage {control.stage}: the tables are the authority, and nothing "
                    "comes into them from the store any more",
                    hint="write the item with `Migration.store`, which refuses at once what the tables cannot hold; "
                    "`kvmigrate stage rollback` gives the store its authority back",
                )
            live = self._live(stack)
            if live is not None:
                return self.quarantine.touch(live, tuple(keys), reason, every=every, progress=progress)
            source = self.source if self.settings.source else None
            return self.quarantine.replay(source, keys=tuple(keys), reason=reason, every=every, progress=progress)

    def undo(self, run: int, *, dry_run: bool = False, progress: Progress | None = None) -> UndoReport:
        """Take out of the tables what a run brought. See `run_undo`."""
        return run_undo(self.target, run, dry_run=dry_run, progress=progress)

    def payload_line(self, entry: QuarantineEntry) -> str:
        """Return the value of a quarantined item as a line of an export; "" where it was not kept."""
        return "" if entry.item is None else write_item(entry.item).decode().rstrip("\n")

    def payload_text(self, entry: QuarantineEntry) -> str:
        """Return the value of a quarantined item for people: UTF-8 text as it is, else as `payload_line`."""
        item = entry.item
        if item is None:
            return ""
        if item.kind is ItemKind.OTHER:
            return f"a {type_name(str(item.value))}: its content is not read"
        try:
            return item.value.decode() if isinstance(item.value, bytes) else self.payload_line(entry)
        except UnicodeDecodeError:
            return self.payload_line(entry)

    def check_entities(self, names: Sequence[str]) -> None:
        """Raise `ConfigError` where the mapping lacks one of these entities."""
        check_entities(self.mapping, names)

    @property
    def source_name(self) -> str:
        """The store's URL without secrets, or ""."""
        return mask_url(self.settings.source)

    @property
    def target_name(self) -> str:
        """The target's URL without secrets, or ""."""
        return mask_url(self.settings.target)

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _quarantined(self, keys: Sequence[str]) -> Mapping[str, Item]:
        if not keys:
            return {}
        entries = self.target.quarantined(after="", limit=len(keys), reason=None, entity=None, keys=keys, payload=True)
        return {**self.target.kept(keys), **{each.key: each.item for each in entries if each.item is not None}}
