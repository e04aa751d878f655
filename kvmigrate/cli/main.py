"""The program ``kvmigrate``."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from kvmigrate.cli.group import KVMigrateGroup
from kvmigrate.cli.logs import configure_logs
from kvmigrate.cli.options import example

COMMANDS = (
    "demo",
    "schema",
    "backfill",
    "relay",
    "stage",
    "gate",
    "flags",
    "rollback",
    "explain",
    "status",
    "verify",
    "sample",
    "repair",
    "erase",
    "quarantine",
    "control",
    "doctor",
    "report",
    "undo",
    "export",
)
"""Each is a module beside this one: a function of that name, or an `app` of several commands."""


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"kvmigrate {version('kvmigrate')}\n")
        raise typer.Exit


def kvmigrate(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say on stderr what is done.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Move JSON blobs out of a key-value store into PostgreSQL tables, losing nothing."""
    del show_version, debug  # the one has ended the program, the other is read where errors are shown
    configure_logs(verbose=verbose, as_json="--json" in sys.argv)


def app_with(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the program with these commands alone: to load all of them takes longer than some take to run."""
    app = typer.Typer(
        name="kvmigrate",
        cls=KVMigrateGroup,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback(epilog=example("kvmigrate demo"))(kvmigrate)
    for name in names:
        module = import_module(f"kvmigrate.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, epilog=module.EPILOG)
        else:
            app.command(name, epilog=module.EPILOG)(getattr(module, name))
    return app


def _named(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command that is named, or all where that is not certain."""
    named = next((each for each in arguments if not each.startswith("-")), "")
    return (named,) if named in COMMANDS else COMMANDS


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program with *arguments* (default: the process's) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A key may hold what the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    app = app_with(_named(sys.argv[1:] if arguments is None else arguments))
    return int(typer.main.get_command(app).main(arguments, prog_name="kvmigrate"))
