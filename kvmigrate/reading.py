"""The reads of a live mapping, wired: who says what is wanted, what bounds it, what takes it back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from time import monotonic

from kvmigrate.config import Settings
from kvmigrate.errors import ConfigError, KVMigrateError
from kvmigrate.flags.base import FlagSource
from kvmigrate.flags.file import FileFlags
from kvmigrate.flags.openfeature import SCHEME, OpenFeatureFlags
from kvmigrate.flags.row import RowFlags
from kvmigrate.flags.state_folder import StateFolder
from kvmigrate.flags.unleash import UnleashFlags
from kvmigrate.flags.unleash_place import SCHEMES
from kvmigrate.intent import FlagState
from kvmigrate.log import get_log
from kvmigrate.reads.poll import Poller
from kvmigrate.reads.router import Router
from kvmigrate.reads.standby import Standby, StandbyLook
from kvmigrate.reads.summing import plus
from kvmigrate.reads.telling import Telling
from kvmigrate.stores.redis_rollback import RedisRollbacks
from kvmigrate.target.log_position import PostgresLogPosition
from kvmigrate.target.process_row import process_id
from kvmigrate.target.read_row import PostgresReadRow

_CHANCE = SystemRandom()
"""Not the program's own, whose numbers it may want to have again."""


_log = get_log()

LOOK_S = 0.2
"""Between two looks at whatever can take reads back."""

COUNT_S = 5.0
"""How often a process says what it counted."""

FOLD_S = 60.0
"""How often a process looks for the rows of those that ended."""

_SHARDS_LOOKED_AT = 4


def open_flags(settings: Settings, scope: str) -> FlagSource:
    """Return who says what is wanted of the reads of the mapping *scope*; nothing is read yet.

    Raises:
        ConfigError: the setting names nothing that can be one.
    """
    if not settings.flags:
        return RowFlags(PostgresReadRow(settings.need_target(), scope, role="flags"), scope)
    scheme, is_url, _ = settings.flags.partition("://")
    if is_url:
        if scheme == SCHEME:
            return OpenFeatureFlags(settings.flags, scope)
        if scheme not in SCHEMES:
            raise ConfigError(
                f"flags: {scheme}:// is no source of flags",
                hint=f"a file, {SCHEMES[1]}://host/api, or {SCHEME}://module:provider",
            )
        return UnleashFlags(settings.flags, scope)
    return FileFlags(Path(settings.flags), scope)


def router_of(settings: Settings, scope: str, standby: Standby | None = None) -> Router:
    """Return what decides of the reads of a mapping. Connects, with the first read, in threads of its own.

    *standby* is told how well `read_target` follows the target.
    """
    folder = StateFolder(settings.state, scope) if settings.state else None
    source, target, by_row = settings.need_source(), settings.need_target(), not settings.flags
    if not by_row:
        # Told to whoever makes an endpoint, and not to a thread.
        open_flags(settings, scope).close()

    def pollers(router: Router) -> Sequence[Poller]:
        known = folder.last_flags() if folder is not None else None
        if known is not None:
            router.guess_flags(known)
        found = [
            Poller("database", lambda: _TargetLook(router, target, by_row=by_row, folder=folder), LOOK_S),
            Poller("store", lambda: _StoreLook(router, source), LOOK_S),
        ]
        if folder is not None:
            found.append(Poller("folder", lambda: _FolderLook(router, folder), LOOK_S))
        if standby is not None:
            sides = PostgresLogPosition(target), PostgresLogPosition(settings.read_target)
            found.append(Poller("standby", lambda: StandbyLook(standby, *sides), LOOK_S))
        if not by_row:
            flags = open_flags(settings, scope)
            found.append(Poller("flags", lambda: _FlagsLook(router, flags, folder), flags.interval_s))
        return found

    return Router(scope, pollers)


class _Heard:
    """Hands flags to the router, and leaves new ones for the next start."""

    def __init__(self, router: Router, folder: StateFolder | None) -> None:
        self._router, self._folder = router, folder
        self._kept = ""

    def __call__(self, state: FlagState) -> None:
        self._router.hear_flags(state)
        if self._folder is not None and state.version != self._kept:
            self._kept = state.version
            with suppress(KVMigrateError):
                self._folder.keep_flags(state)


class _TargetLook:
    """Looks at the control row, the rollbacks and, where nothing else has them, the flags."""

    def __init__(self, router: Router, url: str, *, by_row: bool, folder: StateFolder | None) -> None:
        self._router = router
        self._row = PostgresReadRow(url, router.scope)
        self._flags = RowFlags(self._row, router.scope) if by_row else None
        self._hear = _Heard(router, folder)
        process = process_id("reads")
        self._telling = Telling(lambda counts: self._row.keep_counts(process, counts))
        self._count_at = monotonic() + COUNT_S * _CHANCE.uniform(0.2, 1.0)
        self._fold_at = monotonic() + FOLD_S * _CHANCE.uniform(0.2, 1.0)

    def look(self) -> None:
        """Look once; now and then say what was counted."""
        begun = monotonic()
        found = self._row.look()
        self._router.hear_rollbacks("target", found.rollbacks)
        self._router.hear_control(found.control, begun)
        if begun >= self._count_at:
            self._count_at = begun + COUNT_S
            self._telling.tell(self._counted())
        if self._flags is not None:
            self._hear(self._flags.parsed(found.flags))
        if begun >= self._fold_at:
            self._fold_at = begun + FOLD_S
            self._row.fold_counts(plus)

    def close(self) -> None:
        """Say what was counted last."""
        with suppress(KVMigrateError):
            self._telling.tell({slug: {**counts, "ended": True} for slug, counts in self._counted().items()})
        self._row.close()

    def _counted(self) -> dict[str, dict[str, object]]:
        states = list(self._router.endpoints.values())
        age_s = self._router.flag_age_s()
        return {state.slug: {**state.told(), "flags_age_s": age_s} for state in states}


class _StoreLook:
    """Looks at the store's fence, and at the rollbacks beside it."""

    def __init__(self, router: Router, url: str) -> None:
        self._router = router
        self._rollbacks = RedisRollbacks(url, scope=router.scope)
        self._store = self._rollbacks.fenced

    def look(self) -> None:
        """Look once."""
        self._router.hear_rollbacks("store", self._rollbacks.rollbacks())
        shards = self._store.shards()
        # A flip moves all shards: a few of many are enough to hear of it.
        some = _CHANCE.sample(shards, min(len(shards), _SHARDS_LOOKED_AT))
        self._router.hear_fences(self._store.fences(some).values())

    def close(self) -> None:
        """Close what is open."""
        self._rollbacks.close()


class _FolderLook:
    """Looks at the rollbacks of this machine."""

    def __init__(self, router: Router, folder: StateFolder) -> None:
        self._router, self._folder = router, folder

    def look(self) -> None:
        """Look once."""
        self._router.hear_rollbacks("folder", self._folder.rollbacks())

    def close(self) -> None:
        """Nothing is open."""


class _FlagsLook:
    """Looks at flags that stand elsewhere than in the target."""

    def __init__(self, router: Router, flags: FlagSource, folder: StateFolder | None) -> None:
        self._flags, self._hear = flags, _Heard(router, folder)

    def look(self) -> None:
        """Look once."""
        self._hear(self._flags.read())

    def close(self) -> None:
        """Close what is open."""
        self._flags.close()
