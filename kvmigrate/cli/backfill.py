"""``kvmigrate backfill``: the store into the tables."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    EntitiesOption,
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
from kvmigrate.cli.pace import (
    MaxActiveOption,
    MaxLagOption,
    MaxQuarantinedOption,
    PauseOption,
    RateOption,
    RetuneOption,
    UnpauseOption,
    budget_of,
    change,
    changes_of,
    check_preview,
    first_knobs,
    limits,
)
from kvmigrate.config import Settings
from kvmigrate.errors import ConfigError

if TYPE_CHECKING:
    from kvmigrate.backfill.report import BackfillReport
    from kvmigrate.migration import Migration

EPILOG = example(
    "kvmigrate backfill --mapping mapping.yaml --source redis://localhost:6379/0"
    " --target postgresql://localhost/shop --report report",
)

_ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Write the report there as text, JSON, Markdown and HTML."),
]

_AcceptDeletesOption = Annotated[
    bool, typer.Option("--accept-deletes", help="Delete rows also when the source lacks many items (over 5 %).")
]

_RewriteOption = Annotated[
    bool, typer.Option("--rewrite", help="Write every item again: mends rows that were edited in the tables.")
]

_WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COLUMN=VALUE", help="Only items with this value; tenant=... for a tenant."),
]

_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Read and tell; write nothing, need no database.")]


def backfill(
    context: typer.Context,
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    entity: EntitiesOption = None,
    where: _WhereOption = None,
    limit: LimitOption = None,
    dry_run: _DryRunOption = False,
    accept_deletes: _AcceptDeletesOption = False,
    rewrite: _RewriteOption = False,
    processes: ProcessesOption = None,
    rate: RateOption = None,
    max_lag: MaxLagOption = None,
    max_active: MaxActiveOption = None,
    max_quarantined: MaxQuarantinedOption = None,
    pause: PauseOption = False,
    unpause: UnpauseOption = False,
    retune: RetuneOption = False,
    report: _ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the store into the tables.

    Tables are made where they are missing. Safe to interrupt and to run again:
    what did not change is not written again. --pause, --unpause and --retune begin
    nothing: they change the backfill of this mapping that runs now, wherever it runs.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.backfill import describe_backfill
    from kvmigrate.report.write import check_folder, write_report

    call = Call("backfill", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    typed, budget = limits(rate, max_lag, max_active), budget_of(max_quarantined)
    if (changes := changes_of(context, typed, pause=pause, unpause=unpause, retune=retune)) is not None:
        with Migration.open(settings) as migration:
            change(call, migration, changes)
    if dry_run:
        check_preview(typed, budget)
    if report:
        check_folder(report)
    with Migration.open(settings) as migration:
        with call.progress() as progress:
            done = (
                migration.preview(only=entity or (), where=_one(where), limit_keys=limit, progress=progress)
                if dry_run
                else migration.backfill(
                    only=entity or (),
                    where=_one(where),
                    limit_keys=limit,
                    accept_deletes=accept_deletes,
                    rewrite=rewrite,
                    processes=processes,
                    knobs=first_knobs(typed),
                    budget=budget,
                    progress=progress,
                )
            )
        envelope = call.envelope(
            done.to_json(),
            mapping=migration.mapping,
            warnings=[*_warnings(done), *([] if dry_run else _left_behind(migration, done))],
            next_commands=_next_commands(settings, done),
            ok=done.ok,
        )
    document = describe_backfill(envelope)
    if report:
        write_report(report, envelope, document)
    call.finish(envelope, document, exit_code=0 if done.ok else 1)


def _warnings(done: BackfillReport) -> list[str]:
    warnings = []
    if done.unmatched:
        keys = "1 key matches" if done.unmatched == 1 else f"{done.unmatched:,} keys match"
        warnings.append(f"{keys} no pattern of the mapping and stay where they are: name them, be it under leave_in_kv")
    if done.not_resumed:
        warnings.append(
            "a load that was cut short could not go on, since the mapping, the store, its life or what was asked for "
            "is another now, or its keys were there already: it was ended, and every item compared instead"
        )
    return warnings


def _left_behind(migration: Migration, done: BackfillReport) -> list[str]:
    """Say what a mapping that was edited no longer names."""
    warnings = []
    if columns := migration.unnamed_columns():
        warnings.append(
            f"the mapping does not name {', '.join(columns)}: if it did once, the members stand in rest now"
        )
    if lost := migration.unnamed_items(done.run_id):
        items = "1 item" if lost == 1 else f"{lost:,} items"
        warnings.append(
            f"{items} of entities that the mapping no longer names: their rows stay; drop their tables when you like"
        )
    return warnings


def _one(where: list[str] | None) -> str | None:
    """Return the only condition: of several the last would win without a word."""
    if where and len(where) > 1:
        raise ConfigError("--where takes one condition", hint="run it once for each, or choose a column that says both")
    return where[0] if where else None


def _next_commands(settings: Settings, done: BackfillReport) -> list[str]:
    backfill_again = next_command(settings, "backfill", "source", "target")
    if done.dry_run:
        return [f"{backfill_again} --where {shlex.quote(done.where)}" if done.where else backfill_again]
    if done.where:
        # A part of a store cannot be proven: verify would miss all of the rest.
        return [backfill_again]
    commands = [next_command(settings, "verify", "source", "target")]
    if done.quarantined:
        commands.append(next_command(settings, "quarantine list", "target"))
    return commands
