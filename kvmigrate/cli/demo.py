"""``kvmigrate demo``: see it work, on servers of its own."""

from __future__ import annotations

import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import JsonOption, example, program
from kvmigrate.cli.signals import ended_by_signals

if TYPE_CHECKING:
    from kvmigrate.demo.servers import DemoServers

EPILOG = example("kvmigrate demo --size 2000")
DEFAULT_SIZE = 20_000

_SizeOption = Annotated[int, typer.Option("--size", metavar="N", min=500, help="Keys in the store.")]
_KeepOption = Annotated[bool, typer.Option("--keep", help="Keep the servers running until Ctrl-C.")]
_RedisOption = Annotated[bool, typer.Option("--redis/--no-redis", help="Without Redis the store is a key-value table.")]

_LiveOption = Annotated[
    bool,
    typer.Option(
        "--live/--no-live",
        help="Go on while writes go on: a service whose reads move, and a sampler that finds a fault.",
    ),
]


def demo(
    *,
    size: _SizeOption = DEFAULT_SIZE,
    keep: _KeepOption = False,
    redis: _RedisOption = True,
    live: _LiveOption = True,
    as_json: JsonOption = False,
) -> None:
    """See it work: a Redis becomes tables, and a service reads them.

    On servers that start and end with the demo.
    """
    from kvmigrate.demo.run import run_demo
    from kvmigrate.demo.servers import demo_servers
    from kvmigrate.demo.summary import describe_demo

    call = Call("demo", as_json=as_json)
    with ExitStack() as stack:
        _say("starting servers of the demo's own")
        servers = stack.enter_context(demo_servers(redis=redis))
        with call.progress() as progress:
            report = run_demo(servers, size=size, progress=progress, say=_say, live=live)
        next_commands = _kept(servers, stack) if keep else [f"{program()} demo --keep", f"{program()} --help"]
        envelope = call.envelope(report.to_json(), ok=report.ok, next_commands=next_commands)
        exit_code = 5 if report.divergent else 0 if report.ok else 1
        if keep:
            call.show(envelope, describe_demo(envelope))
            _wait()
            raise typer.Exit(exit_code)
    call.finish(envelope, describe_demo(envelope), exit_code=exit_code)


def _say(line: str) -> None:
    sys.stderr.write(f"- {line}\n")
    sys.stderr.flush()


def _kept(servers: DemoServers, stack: ExitStack) -> list[str]:
    """Write the settings for other terminals, and return what one can type there."""
    from kvmigrate.demo.keep import write_settings

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmigrate-demo-")))
    file = write_settings(servers, folder)
    return [
        f"{program()} {command} --config {file}" for command in ("quarantine list", "verify", "export --from target")
    ]


def _wait() -> None:
    """Return when somebody presses Ctrl-C or asks the program to end."""
    _say("the servers run until Ctrl-C; type the commands above in another terminal")
    stop = threading.Event()
    with ended_by_signals(stop):
        stop.wait()
