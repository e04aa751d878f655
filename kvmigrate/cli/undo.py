"""``kvmigrate undo``: take out what an offline run brought."""

from __future__ import annotations

from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)

EPILOG = example("kvmigrate undo 1 --mapping mapping.yaml --target postgresql://localhost/shop")
KEPT = 4
FORESEEN = (
    "nothing was changed; referenced counts what foreign keys say, and a trigger or a row that comes meanwhile "
    "may keep more"
)

_RunArgument = Annotated[int, typer.Argument(metavar="RUN", min=1, help="The run, as its report names it.")]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only count what would be taken out and kept.")]


def undo(
    run: _RunArgument,
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: _DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take out what an offline run brought.

    Items that the run brought lose their rows, as if it had never read them; a later
    backfill writes them again. Ends with 4 where something of the run was kept.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.undo import describe_undo

    call = Call("undo", as_json=as_json)
    with Migration.open(settings_of(mapping=mapping, target=target, config=config)) as migration:
        with call.progress() as progress:
            done = migration.undo(run, dry_run=dry_run, progress=progress)
        again = next_command(migration.settings, f"undo {run}" if dry_run else "backfill", "target")
        envelope = call.envelope(
            done.to_json(),
            mapping=migration.mapping,
            warnings=[FORESEEN] if dry_run else [],
            next_commands=[again] if done.undone else [],
            ok=done.whole,
        )
    call.finish(envelope, describe_undo(envelope), exit_code=0 if done.whole else KEPT)
