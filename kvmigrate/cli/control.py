"""``kvmigrate control``: the tool's own tables: made, upgraded, looked at, and who may use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.group import KVMigrateGroup
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.config import Settings, mask_url
from kvmigrate.target.part import Part

if TYPE_CHECKING:
    from kvmigrate.target.owing_install import WatchedTable

EPILOG = example("kvmigrate control status --target postgresql://localhost/shop")
OUT_OF_DATE = 3

app = typer.Typer(cls=KVMigrateGroup, no_args_is_help=True, rich_markup_mode=None)

_RoleOption = Annotated[Part, typer.Option("--role", help="What the role is for.")]
_ToOption = Annotated[str, typer.Option("--to", metavar="ROLE", help="The database role that gets the rights.")]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the SQL, for whoever owns the tables.")]
_ApplyOption = Annotated[bool, typer.Option("--apply", help="Execute the statements; without it they are printed.")]


@app.callback(epilog=EPILOG)
def control() -> None:
    """Make, upgrade and see the tool's own schema, and grant rights in it."""


@app.command(epilog=example("kvmigrate control install --target postgresql://localhost/shop"))
def install(*, target: TargetOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make schema kvmigrate, or what is missing of it. Safe to repeat."""
    _bring_up_to_date("install", settings_of(target=target, config=config), as_json=as_json)


@app.command(epilog=example("kvmigrate control upgrade --target postgresql://localhost/shop"))
def upgrade(*, target: TargetOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Apply the migrations that this version has and the schema lacks.

    Programs of the version before keep working meanwhile and afterwards.
    """
    _bring_up_to_date("upgrade", settings_of(target=target, config=config), as_json=as_json)


@app.command(epilog=EPILOG)
def status(
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the migrations, the adapters that use the schema, and with --mapping which of its tables are watched.

    Ends with 3 where a migration is missing, or was applied from another text.
    """
    from kvmigrate.report.control import describe_status
    from kvmigrate.target.control import ControlSchema
    from kvmigrate.transform.declaration.mapping_file import load_mapping

    call = Call("control status", as_json=as_json)
    settings = settings_of(mapping=mapping, target=target, config=config)
    with ControlSchema(settings.need_target()) as schema:
        found = schema.status()
        watched = schema.look_at_watch(load_mapping(mapping)) if mapping and found.current else None
    fields = {
        "target": mask_url(settings.target),
        "installed": found.installed,
        "current": found.current,
        "migrations": [{**each._asdict(), "applied_at": _time(each.applied_at)} for each in found.migrations],
        "adapters": [{**each._asdict(), "last_seen_s": round(each.last_seen_s, 1)} for each in found.adapters],
        "roles": list(found.roles),
        "watched": watched if watched is None else _tables(watched),
    }
    missing = any(each.state == "missing" for each in found.migrations)
    command = "control upgrade" if found.installed else "control install"
    envelope = call.envelope(
        fields, next_commands=[next_command(settings, command, "target")] if missing else [], ok=found.current
    )
    call.finish(envelope, describe_status(envelope), exit_code=0 if found.current else OUT_OF_DATE)


@app.command(
    epilog=example(
        "kvmigrate control grants --role service --to shop_app --mapping mapping.yaml "
        "--target postgresql://localhost/shop"
    )
)
def grants(
    *,
    role: _RoleOption,
    to: _ToOption,
    apply: _ApplyOption = False,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print, or execute, the statements that give a role what its part needs and no more."""
    from kvmigrate.report.control import grants_text
    from kvmigrate.target.control import ControlSchema
    from kvmigrate.transform.declaration.mapping_file import load_mapping

    call = Call("control grants", as_json=as_json)
    settings = settings_of(mapping=mapping, target=target, config=config)
    loaded = load_mapping(settings.need_mapping())
    with ControlSchema(settings.need_target()) as schema:
        plan = schema.plan_grants(role, to, loaded)
        if apply:
            schema.apply_grants(plan)
    fields = {
        "target": mask_url(settings.target),
        "role": str(role),
        "to": to,
        "applied": apply,
        "statements": list(plan.statements),
    }
    envelope = call.envelope(fields, mapping=loaded, warnings=plan.notes)
    call.finish(envelope, grants_text(envelope))


@app.command(
    epilog=example("kvmigrate control watch --mapping mapping.yaml --target postgresql://localhost/shop --dry-run")
)
def watch(
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: _DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have SQL that others write into the mapping's tables, while they lead, owed to the store.

    Makes triggers on them. Safe to repeat; needed again after an edit of the mapping.
    """
    from kvmigrate.report.control import describe_watch, statements_text
    from kvmigrate.target.control import ControlSchema
    from kvmigrate.transform.declaration.mapping_file import load_mapping

    call = Call("control watch", as_json=as_json)
    settings = settings_of(mapping=mapping, target=target, config=config)
    loaded = load_mapping(settings.need_mapping())
    with ControlSchema(settings.need_target()) as schema:
        made = [] if dry_run else schema.watch(loaded)
        found = schema.look_at_watch(loaded)
    fields = {
        "target": mask_url(settings.target),
        "dry_run": dry_run,
        "made": made,
        "tables": _tables(found),
        "statements": [each for table in found for each in table.statements] if dry_run else [],
    }
    envelope = call.envelope(fields, mapping=loaded)
    call.finish(envelope, statements_text(envelope) if dry_run else describe_watch(envelope))


@app.command(epilog=example("kvmigrate control unwatch --mapping mapping.yaml --target postgresql://localhost/shop"))
def unwatch(
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: _DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Drop the triggers that `watch` made. Safe to repeat."""
    from kvmigrate.report.control import describe_unwatch, statements_text
    from kvmigrate.target.control import ControlSchema
    from kvmigrate.transform.declaration.mapping_file import load_mapping

    call = Call("control unwatch", as_json=as_json)
    settings = settings_of(mapping=mapping, target=target, config=config)
    loaded = load_mapping(settings.need_mapping())
    with ControlSchema(settings.need_target()) as schema:
        plan = schema.plan_unwatch(loaded) if dry_run else []
        dropped = [] if dry_run else schema.unwatch(loaded)
    fields = {
        "target": mask_url(settings.target),
        "dry_run": dry_run,
        "dropped": dropped,
        "statements": [text for each in plan for text in each.texts],
    }
    envelope = call.envelope(fields, mapping=loaded)
    call.finish(envelope, statements_text(envelope) if dry_run else describe_unwatch(envelope))


def _tables(found: Sequence[WatchedTable]) -> list[dict[str, str]]:
    return [{"table": each.table, "state": each.state.value} for each in found]


def _bring_up_to_date(verb: str, settings: Settings, *, as_json: bool) -> None:
    from kvmigrate.report.control import describe_applied
    from kvmigrate.target.control import ControlSchema

    call = Call(f"control {verb}", as_json=as_json)
    with ControlSchema(settings.need_target()) as schema:
        applied = schema.install() if verb == "install" else schema.upgrade()
        roles = schema.status().roles if applied else ()
    fields: dict[str, Any] = {"target": mask_url(settings.target), "applied": applied}
    hints = [next_command(settings, "control status", "target")]
    envelope = call.envelope(fields, warnings=_grant_again(roles), next_commands=hints)
    call.finish(envelope, describe_applied(envelope))


def _grant_again(roles: Sequence[str]) -> list[str]:
    named = ", ".join(roles)
    return [f"new tables and functions have no grants yet: run `control grants` again for {named}"] if roles else []


def _time(at: Any) -> str | None:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None
