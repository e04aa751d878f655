"""``kvmigrate report``: what is recorded of a migration, and its documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    DivergenceOption,
    JsonOption,
    MappingOption,
    TargetOption,
    example,
    settings_of,
)

EPILOG = example("kvmigrate report --mapping mapping.yaml --target postgresql://localhost/shop --write report")

_WriteOption = Annotated[
    Path | None,
    typer.Option(
        "--write", metavar="FOLDER", help="Write five documents there, and a page with pictures of the divergence."
    ),
]


def report(
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    write: _WriteOption = None,
    max_divergence: DivergenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what the control schema has recorded: runs, measurements, repairs, changes, reads. It measures nothing."""
    from kvmigrate.migration import Migration
    from kvmigrate.recording import recorded, write_documents
    from kvmigrate.report.migration import describe_recorded

    call = Call("report", as_json=as_json)
    settings = settings_of(mapping=mapping, target=target, config=config, max_divergence=max_divergence)
    with Migration.open(settings) as migration:
        fields = {"target": migration.target_name, **recorded(settings, migration.lens)}
        envelope = call.envelope({**fields, "files": []}, mapping=migration.mapping)
        if write is not None:
            envelope["files"] = [str(path) for path in write_documents(write, envelope, migration.lens)]
    call.finish(envelope, describe_recorded(envelope))
