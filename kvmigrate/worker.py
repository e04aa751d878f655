"""The worker processes of a run: ``python -m kvmigrate.worker``, spoken to by `kvmigrate.processes.crew`.

Each kind of work imports what it needs and no more: that is most of what its start costs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kvmigrate.errors import ConfigError
from kvmigrate.model import Version
from kvmigrate.processes.fork import Pipes, fork_each
from kvmigrate.processes.frames import Setup, read_frame
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.processes.serve import Work, serve
from kvmigrate.stores.open import open_fenced, open_source
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.mapping import Mapping

if TYPE_CHECKING:
    from kvmigrate.backfill.share_work import ShareWork
    from kvmigrate.consistency.share_work import CompareWork

T = TypeVar("T")

_Kind = tuple[Callable[[], Work], msgspec.msgpack.Decoder[Any]]
"""How the work is opened, and what reads its messages."""


class _Tag(msgspec.Struct):
    """Of which kind a setup is."""

    kind: str


def main() -> None:
    """Do what comes in until nothing more comes."""
    # Ctrl-C is for the run; it says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipes, body = read_frame(sys.stdin.buffer), read_frame(sys.stdin.buffer)
    if pipes is not None and body is not None:
        kinds = {"backfill": _backfill, "verify": _verify}
        open_work, messages = kinds[msgspec.msgpack.decode(body, type=_Tag).kind](body)
        with rare_collections():
            fork_each(msgspec.msgpack.decode(pipes, type=Pipes), partial(serve, open_work, messages))


def _backfill(body: bytes) -> _Kind:
    from kvmigrate.backfill.share_work import MESSAGES, BackfillSetup, ShareWork
    from kvmigrate.stores.base import divisible
    from kvmigrate.target.postgres import PostgresTarget
    from kvmigrate.transform.lens import compile_mapping

    setup = msgspec.msgpack.decode(body, type=BackfillSetup)
    compiled = _once(lambda: compile_mapping(_mapping(setup)))

    def open_work() -> ShareWork:
        lens = compiled()
        source = divisible(open_source(setup.source))
        if source is None:
            raise ConfigError("the source cannot be divided any more", hint="run it with --processes 1")
        as_of = Version(*setup.as_of) if setup.as_of else None
        return ShareWork(source, PostgresTarget(setup.target, lens, as_of=as_of), lens)

    return open_work, MESSAGES


def _verify(body: bytes) -> _Kind:
    from kvmigrate.consistency.json_exact import loads_column
    from kvmigrate.consistency.share_work import MESSAGES, CompareWork, VerifySetup
    from kvmigrate.consistency.sight import FencedSight
    from kvmigrate.consistency.verify import Verification
    from kvmigrate.target.rows_postgres import PostgresRowReader

    setup = msgspec.msgpack.decode(body, type=VerifySetup)
    declared = _once(lambda: _mapping(setup))

    def open_work() -> CompareWork:
        mapping, opened = declared(), ExitStack()
        source = open_source(setup.source)
        opened.callback(source.close)
        reader = opened.enter_context(PostgresRowReader.open(setup.target, mapping, json_loads=loads_column))
        sight = None
        if setup.is_live:
            store = open_fenced(setup.source, scope=mapping.name)
            opened.callback(store.close)
            sight = FencedSight(store)
        run = Verification(
            source, reader, mapping, setup.entity, show_values=setup.show_values, settle_s=setup.settle_s, sight=sight
        )
        return CompareWork(run, opened.close)

    return open_work, MESSAGES


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """Return *make*, done once for all workers; where it failed, each of them fails and tells its run."""
    once = cache(make)
    with suppress(Exception):
        once()
    return once


def _mapping(setup: Setup) -> Mapping:
    mapping = load_mapping(setup.mapping)
    if mapping.fingerprint != setup.fingerprint:
        raise ConfigError("a worker reads another mapping than its run", hint="run the same command again")
    return mapping


if __name__ == "__main__":
    main()
    # All that was opened is closed; the run would wait while an interpreter is taken apart.
    os._exit(0)
