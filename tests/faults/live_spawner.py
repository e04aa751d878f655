"""Starts programs of kvmigrate quickly: everything is imported once, and each program is a fork.

Run as a program: one JSON object a line on stdin, ``{"start": [kind, argument, ...], "environment": {}, "log": file}``
or ``{"poll": process}``; one a line on stdout. It ends its programs when stdin ends. A fork has connections and threads
of its own, and dies of signals as any program does.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import kvmigrate.migration
import kvmigrate.migration_async
import kvmigrate.stages
from kvmigrate.cli.main import run
from tests.faults import live_controller, live_writer, live_writer_async


def main() -> None:
    """Serve until nobody asks any more."""
    assert kvmigrate.migration
    assert kvmigrate.migration_async
    assert kvmigrate.stages
    ended: dict[int, int] = {}
    started: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            sys.stdout.flush()
            process = os.fork()
            if process == 0:
                be_program(asked)
            started.add(process)
            answer: dict[str, Any] = {"process": process}
        else:
            for process in started - set(ended):
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    ended[process] = os.waitstatus_to_exitcode(status)
            answer = {"code": ended.get(asked["poll"])}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for process in started - set(ended):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def be_program(asked: dict[str, Any]) -> None:
    """Be the program that was asked for, and end with its code. Never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for stream, descriptor in ((0, nothing), (1, log), (2, log)):
            os.dup2(descriptor, stream)
        os.environ.clear()
        os.environ.update(asked["environment"])
        kind, *arguments = asked["start"]
        sys.argv = [kind, *arguments]
        code = work(kind, arguments)
    except KeyboardInterrupt:
        code = 130
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def work(kind: str, arguments: list[str]) -> int:
    """Do what a program does; return its code."""
    match kind:
        case "writer":
            live_writer.main(Path(arguments[0]), int(arguments[1]))
        case "writer async":
            asyncio.run(live_writer_async.main(Path(arguments[0]), int(arguments[1])))
        case "program":
            os.execv(arguments[0], arguments)  # noqa: S606 - no shell is wanted
        case "controller":
            live_controller.main(*arguments)
        case _:
            return run(arguments)
    return 0


if __name__ == "__main__":
    main()
