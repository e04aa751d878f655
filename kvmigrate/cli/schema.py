"""``kvmigrate schema``: the tables of a mapping as SQL, in a database, or gone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from kvmigrate.cli.call import Call, write_text
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    OutputOption,
    TargetOption,
    YesOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.errors import ConfigError
from kvmigrate.transform.tables.ddl_formats import Format

EPILOG = example(
    "kvmigrate schema --mapping mapping.yaml --format sql -o schema.sql",
    "kvmigrate schema --mapping mapping.yaml --target postgresql://localhost/shop --apply",
)

_FormatOption = Annotated[Format, typer.Option("--format", help="For which tool the SQL is written.")]
_DownOption = Annotated[bool, typer.Option("--down", help="The way back: the SQL that drops the tables.")]
_ApplyOption = Annotated[bool, typer.Option("--apply", help="Make in the target what is missing.")]
_DiffOption = Annotated[bool, typer.Option("--diff", help="Compare the target with the mapping; 3 if they differ.")]
_DropOption = Annotated[bool, typer.Option("--drop", help="Drop the mapping's tables; with --yes also with rows.")]
_CodeOption = Annotated[bool, typer.Option("--show-code", help="Print the code generated from the mapping.")]
_CodeEntityOption = Annotated[str | None, typer.Option("--entity", metavar="NAME", help="Only this entity's code.")]


def schema(
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    text_format: _FormatOption = Format.SQL,
    output: OutputOption = None,
    down: _DownOption = False,
    apply: _ApplyOption = False,
    diff: _DiffOption = False,
    drop: _DropOption = False,
    show_code: _CodeOption = False,
    entity: _CodeEntityOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print, make, compare or drop the mapping's tables."""
    from kvmigrate.migration import Migration

    if sum((apply, diff, drop, show_code)) > 1:
        raise typer.BadParameter("--apply, --diff, --drop and --show-code exclude each other")
    if entity and not show_code:
        raise typer.BadParameter("--entity goes with --show-code")
    call = Call("schema", as_json=as_json)
    with Migration.open(settings_of(mapping=mapping, target=target, config=config)) as migration:
        if apply:
            _apply(call, migration)
        if diff:
            _diff(call, migration)
        if drop:
            _drop(call, migration, yes=yes)
        if show_code:
            migration.check_entities([entity] if entity else [])
            _print(call, migration, {"code": migration.lens.show_code(entity)}, output)
        fields = {"format": str(text_format), "sql": migration.schema_text(text_format, down=down)}
        _print(call, migration, fields, output)


def _apply(call: Call, migration: Any) -> NoReturn:
    from kvmigrate.report.schema import describe_applied

    done = migration.apply_schema().to_json()
    backfill = next_command(migration.settings, "backfill", "target")
    envelope = call.envelope(done, mapping=migration.mapping, next_commands=[backfill])
    call.finish(envelope, describe_applied(envelope))


def _diff(call: Call, migration: Any) -> NoReturn:
    from kvmigrate.report.schema import describe_differences

    found = [each.to_json() for each in migration.diff_schema()]
    differs = any(each["level"] != "note" for each in found)
    envelope = call.envelope({"differences": found}, mapping=migration.mapping, ok=not differs)
    call.finish(envelope, describe_differences(envelope), exit_code=3 if differs else 0)


def _drop(call: Call, migration: Any, *, yes: bool) -> NoReturn:
    from kvmigrate.report.schema import describe_dropped

    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("--drop asks, and there is no terminal to ask on", hint="add --yes")
        question = f"Drop the tables of {migration.mapping.name!r} in {migration.target_name}?"
        typer.confirm(question, abort=True, err=True)
    envelope = call.envelope({"dropped": migration.drop_schema(force=yes)}, mapping=migration.mapping)
    call.finish(envelope, describe_dropped(envelope))


def _print(call: Call, migration: Any, fields: dict[str, str], output: Path | None) -> NoReturn:
    text = fields.get("sql") or fields.get("code", "")
    if output:
        write_text(output, text)
    written = {**fields, "output": str(output) if output else None}
    shown = f"written to {output}\n" if output else text
    call.finish(call.envelope(written, mapping=migration.mapping), shown)
