"""The program ``kvmigrate``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from kvmigrate.cli import (
    backfill,
    control,
    demo,
    doctor,
    erase,
    explain,
    export,
    flags,
    gate,
    quarantine,
    relay,
    repair,
    report,
    rollback,
    sample,
    schema,
    stage,
    status,
    undo,
    verify,
)
from kvmigrate.cli.group import KVMigrateGroup
from kvmigrate.cli.logs import configure_logs
from kvmigrate.cli.options import example

app = typer.Typer(
    name="kvmigrate",
    cls=KVMigrateGroup,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"kvmigrate {version('kvmigrate')}\n")
        raise typer.Exit


@app.callback(epilog=example("kvmigrate demo"))
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


app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("schema", epilog=schema.EPILOG)(schema.schema)
app.command("backfill", epilog=backfill.EPILOG)(backfill.backfill)
app.command("relay", epilog=relay.EPILOG)(relay.relay)
app.add_typer(stage.app, name="stage", epilog=stage.EPILOG)
app.command("gate", epilog=gate.EPILOG)(gate.gate)
app.add_typer(flags.app, name="flags", epilog=flags.EPILOG)
app.command("rollback", epilog=rollback.EPILOG)(rollback.rollback)
app.command("explain", epilog=explain.EPILOG)(explain.explain)
app.command("status", epilog=status.EPILOG)(status.status)
app.command("verify", epilog=verify.EPILOG)(verify.verify)
app.command("sample", epilog=sample.EPILOG)(sample.sample)
app.command("repair", epilog=repair.EPILOG)(repair.repair)
app.command("erase", epilog=erase.EPILOG)(erase.erase)
app.add_typer(quarantine.app, name="quarantine", epilog=quarantine.EPILOG)
app.add_typer(control.app, name="control", epilog=control.EPILOG)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.command("report", epilog=report.EPILOG)(report.report)
app.command("undo", epilog=undo.EPILOG)(undo.undo)
app.command("export", epilog=export.EPILOG)(export.export)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program with *arguments* (default: the process's) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A key may hold what the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    return int(typer.main.get_command(app).main(arguments, prog_name="kvmigrate"))
