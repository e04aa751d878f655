"""A worker process: ``python -m kvmigrate.worker``, spoken to by `kvmigrate.processes.crew`."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from functools import partial
from typing import IO

import msgspec

from kvmigrate.backfill.share_work import MESSAGES as SHARES
from kvmigrate.backfill.share_work import BackfillSetup, ShareWork
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.share_work import MESSAGES as PARTS
from kvmigrate.consistency.share_work import CompareWork, VerifySetup
from kvmigrate.consistency.verify import Verification
from kvmigrate.errors import ConfigError
from kvmigrate.processes.frames import Setup, read_frame
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.processes.serve import serve
from kvmigrate.stores.base import divisible
from kvmigrate.stores.open import open_source
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from kvmigrate.transform.mapping import Mapping

_SETUPS = msgspec.msgpack.Decoder(BackfillSetup | VerifySetup)


def main() -> None:
    """Do what comes in until nothing more comes."""
    # Ctrl-C is for the run; it says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    body = read_frame(sys.stdin.buffer)
    if body is not None:
        with rare_collections():
            work(_SETUPS.decode(body), sys.stdin.buffer, sys.stdout.buffer)


def work(setup: BackfillSetup | VerifySetup, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Open what *setup* names when the first message comes, and serve."""
    if isinstance(setup, BackfillSetup):
        serve(partial(_backfill, setup), SHARES, incoming, outgoing)
    else:
        serve(partial(_verify, setup), PARTS, incoming, outgoing)


def _backfill(setup: BackfillSetup) -> ShareWork:
    lens = compile_mapping(_mapping(setup))
    source = divisible(open_source(setup.source))
    if source is None:
        raise ConfigError("the source cannot be divided any more", hint="run it with --processes 1")
    return ShareWork(source, PostgresTarget(setup.target, lens), lens)


def _verify(setup: VerifySetup) -> CompareWork:
    mapping, opened = _mapping(setup), ExitStack()
    source = open_source(setup.source)
    opened.callback(source.close)
    reader = opened.enter_context(PostgresRowReader.open(setup.target, mapping, json_loads=loads_column))
    run = Verification(source, reader, mapping, setup.entity, show_values=setup.show_values, settle_s=setup.settle_s)
    return CompareWork(run, opened.close)


def _mapping(setup: Setup) -> Mapping:
    mapping = load_mapping(setup.mapping)
    if mapping.fingerprint != setup.fingerprint:
        raise ConfigError("a worker reads another mapping than its run", hint="run the same command again")
    return mapping


if __name__ == "__main__":
    main()
