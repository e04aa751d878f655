"""A worker process of a backfill: ``python -m kvmigrate.worker``, spoken to by `kvmigrate.backfill.crew`."""

from __future__ import annotations

import signal
import sys
from typing import IO

import msgspec

from kvmigrate.backfill.crew import Setup, read_frame
from kvmigrate.backfill.rare_collections import rare_collections
from kvmigrate.backfill.share_work import ShareWork, serve
from kvmigrate.errors import ConfigError
from kvmigrate.stores.base import divisible
from kvmigrate.stores.open import open_source
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping


def main() -> None:
    """Do what comes in until nothing more comes."""
    # Ctrl-C is for the run; it says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    body = read_frame(sys.stdin.buffer)
    if body is not None:
        with rare_collections():
            work(msgspec.msgpack.decode(body, type=Setup), sys.stdin.buffer, sys.stdout.buffer)


def work(setup: Setup, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Open what *setup* names when the first task comes, and serve."""

    def open_work() -> ShareWork:
        mapping = load_mapping(setup.mapping)
        if mapping.fingerprint != setup.fingerprint:
            raise ConfigError("a worker reads another mapping than its run", hint="run the same command again")
        lens = compile_mapping(mapping)
        source = divisible(open_source(setup.source))
        if source is None:
            raise ConfigError("the source cannot be divided any more", hint="run it with --processes 1")
        return ShareWork(source, PostgresTarget(setup.target, lens), lens)

    serve(open_work, incoming, outgoing)


if __name__ == "__main__":
    main()
