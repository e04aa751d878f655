"""``kvmigrate verify``: do the tables say what the store says?"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.duration import moment_of
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
from kvmigrate.cli.signals import ended_by_signals
from kvmigrate.errors import ConfigError

EPILOG = example(
    "kvmigrate verify --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)
DIVERGENT, INCONCLUSIVE = 5, 4

_ShowValuesOption = Annotated[
    bool, typer.Option("--show-values", help="Show the values that differ, but for personal columns.")
]
_RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate", metavar="N", min=0.1, help="Compare at most N keys a second; stopped and typed again it goes on."
    ),
]
_SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only what was written since the last clean verification: of all of them (last), or of those that began "
        "by a time such as 2026-03-01T12:00Z or 2h.",
    ),
]
_QuickOption = Annotated[
    bool,
    typer.Option(
        "--quick", help="Every item by its hash in the ledger, in full only what was written since: not independent."
    ),
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
    rate: _RateOption = None,
    since: _SinceOption = None,
    quick: _QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every item with its rows, both ways.

    It changes no data. Ends with 5 if store and tables disagree, with 4 if nothing could be compared, or with --rate if
    it was stopped. With --since it says what share of all items it looked at.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.verify import describe_verify

    call = Call("verify", as_json=as_json)
    if rate and (entity or limit or show_values or processes):
        raise ConfigError("--rate verifies everything, in one process", hint="leave the other options away")
    if (since or quick) and (entity or limit or processes or rate):
        raise ConfigError("--since and --quick look at all entities, in one process", hint="leave other options away")
    if since and quick:
        raise ConfigError("--since looks at a part, and --quick at everything", hint="leave one of them away")
    before = moment_of(since, now=datetime.now(UTC)) if since else None
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration:
        with call.progress() as progress:
            if since:
                found = migration.verify_since(before, show_values=show_values, progress=progress)
            elif quick:
                found = migration.verify_quick(show_values=show_values, progress=progress)
            elif rate:
                stop = threading.Event()
                with ended_by_signals(stop):
                    found = migration.verify_paced(rate, stop, progress=progress)
            else:
                found = migration.verify(
                    entity=entity, limit_keys=limit, show_values=show_values, processes=processes, progress=progress
                )
        is_stopped = bool(rate) and not found.complete
        exit_code = DIVERGENT if found.divergent else 0 if found.compared and not is_stopped else INCONCLUSIVE
        commands = ["backfill"] if found.unfinished else MEND if found.divergent else []
        if is_stopped:
            commands = [f"verify --rate {rate:g}"]
        warnings = [UNFINISHED] if found.unfinished else []
        if found.unkept:
            warnings.append(f"the gate will not know of the keys that diverge: {found.unkept}")
        envelope = call.envelope(
            {"source": migration.source_name, "target": migration.target_name, **found.to_json()},
            mapping=migration.mapping,
            warnings=warnings,
            next_commands=[next_command(settings, each, "source", "target") for each in commands],
            ok=exit_code == 0,
        )
    call.finish(envelope, describe_verify(envelope), exit_code=exit_code)
