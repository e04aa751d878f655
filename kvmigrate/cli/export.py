"""``kvmigrate export``: every item as a line, from the store or rebuilt from the tables."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from kvmigrate.cli.call import Call, binary_output
from kvmigrate.cli.options import (
    UNFINISHED,
    ConfigOption,
    EntitiesOption,
    JsonOption,
    LimitOption,
    MappingOption,
    OutputOption,
    SourceOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)

EPILOG = example(
    "kvmigrate export --mapping mapping.yaml --source redis://localhost:6379/0 --from source -o store.ndjson",
    "kvmigrate export --mapping mapping.yaml --target postgresql://localhost/shop --from target -o tables.ndjson",
)
INCOMPLETE = 3


class Side(enum.StrEnum):
    """The two sides of a migration."""

    SOURCE = "source"
    TARGET = "target"


_FromOption = Annotated[Side, typer.Option("--from", help="The store as it is, or the items that the tables rebuild.")]


def export(
    *,
    from_side: _FromOption,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    entity: EntitiesOption = None,
    limit: LimitOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every item as a line, from either side.

    It is NDJSON in the order of the keys. From the target no store is needed.
    Ends with 3 if a value could not be written: sorted sets and streams are only
    named; so is what is not in the tables, with --from target.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.export import describe_export

    call = Call("export", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration:
        work = migration.export_from_source if from_side is Side.SOURCE else migration.export_from_target
        with binary_output(output) as out, call.progress() as progress:
            done = work(out, only=entity or (), limit_keys=limit, progress=progress)
        exit_code = INCOMPLETE if done.missing or done.unfinished else 0
        fields = {"from": str(from_side), "output": str(output or "stdout"), **done.to_json()}
        again = next_command(settings, "backfill", "source", "target")
        envelope = call.envelope(
            fields,
            mapping=migration.mapping,
            warnings=[UNFINISHED] if done.unfinished else [],
            next_commands=[again] if done.unfinished else [],
            ok=exit_code == 0,
        )
    finish = call.finish if output else call.finish_beside_data
    finish(envelope, describe_export(envelope), exit_code=exit_code)
