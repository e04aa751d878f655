"""``kvmigrate verify``: do the tables say what the store says?"""

from __future__ import annotations

from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    UNFINISHED,
    ConfigOption,
    EntityOption,
    JsonOption,
    LimitOption,
    MappingOption,
    ProcessesOption,
    SourceOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)

EPILOG = example(
    "kvmigrate verify --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)
DIVERGENT, INCONCLUSIVE = 5, 4

_ShowValuesOption = Annotated[
    bool, typer.Option("--show-values", help="Show the values that differ, but for personal columns.")
]

MEND = ["verify --show-values", "repair --all --dry-run", "backfill --rewrite"]
"""What to type about a divergence: see it, and make right what diverges, or all rows again from the store."""


def verify(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    entity: EntityOption = None,
    limit: LimitOption = None,
    show_values: _ShowValuesOption = False,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every item with its rows, both ways.

    It changes no data. Ends with 5 if store and tables disagree, with 4 if nothing could be compared.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.verify import describe_verify

    call = Call("verify", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration:
        with call.progress() as progress:
            found = migration.verify(
                entity=entity, limit_keys=limit, show_values=show_values, processes=processes, progress=progress
            )
        exit_code = DIVERGENT if found.divergent else 0 if found.compared else INCONCLUSIVE
        commands = ["backfill"] if found.unfinished else MEND if found.divergent else []
        envelope = call.envelope(
            {"source": migration.source_name, "target": migration.target_name, **found.to_json()},
            mapping=migration.mapping,
            warnings=[UNFINISHED] if found.unfinished else [],
            next_commands=[next_command(settings, each, "source", "target") for each in commands],
            ok=exit_code == 0,
        )
    call.finish(envelope, describe_verify(envelope), exit_code=exit_code)
