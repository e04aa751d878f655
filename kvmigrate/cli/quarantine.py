"""``kvmigrate quarantine``: what was refused, why, and once more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kvmigrate.cli.call import Call, text_output
from kvmigrate.cli.group import KVMigrateGroup
from kvmigrate.cli.options import (
    ConfigOption,
    EntityOption,
    JsonOption,
    MappingOption,
    OutputOption,
    SourceOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.errors import ConfigError, KVMigrateError
from kvmigrate.model import Reason

if TYPE_CHECKING:
    from kvmigrate.target.base import QuarantineEntry

EPILOG = example("kvmigrate quarantine list --mapping mapping.yaml --target postgresql://localhost/shop")

app = typer.Typer(cls=KVMigrateGroup, no_args_is_help=True, rich_markup_mode=None)

_ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="R", help="Only items refused for this.")]
_WaitingOption = Annotated[bool, typer.Option("--waiting", help="The waiting items instead, with what for.")]
_KeptOption = Annotated[bool, typer.Option("--kept", help="The kept items instead: whole, and without rows.")]
_ShownOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show at most N items.")]
_KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The item's key.")]
_KeysArgument = Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys of items.")]
_UnsettledOption = Annotated[bool, typer.Option("--all", help="Every item that is quarantined or waits.")]
_WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the change log.")]
_AllOption = Annotated[bool, typer.Option("--all", help="Every quarantined item.")]


@app.callback(epilog=EPILOG)
def quarantine() -> None:
    """See what was refused and why, and try it again."""


@app.command("list", epilog=EPILOG)
def list_entries(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    reason: _ReasonOption = None,
    entity: EntityOption = None,
    limit: _ShownOption = 100,
    waiting: _WaitingOption = False,
    kept: _KeptOption = False,
    as_json: JsonOption = False,
) -> None:
    """List refused items, each with its reason.

    With --waiting the items that wait for another one, each with what it waits for, by its
    own id where the store is named and the tables have a UUID made of it;
    values of personal columns are masked. With --kept the items that were waived.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.quarantine import describe_entries, describe_kept_items, describe_waiting

    _check_reason(reason)
    if kept and (waiting or reason):
        raise ConfigError("--kept goes with --entity and --limit alone", hint="leave the others away")
    call = Call("quarantine list", as_json=as_json)
    with Migration.open(settings_of(mapping=mapping, source=source, target=target, config=config)) as migration:
        migration.check_entities([entity] if entity else [])
        held: list[dict[str, object]]
        if kept:
            held = [each._asdict() for each in migration.kept(entity=entity, limit=limit + 1)]
        elif waiting:
            held = [each._asdict() for each in migration.waiting(reason=reason, entity=entity, limit=limit + 1)]
        else:
            held = [entry_fields(each) for each in migration.quarantine.entries(reason, entity, limit + 1)]
        shown = held[:limit]
        fields = {
            "count": len(shown),
            "more": len(held) > limit,
            "entries": [] if waiting or kept else shown,
            "waiting": shown if waiting else [],
            "kept": shown if kept else [],
        }
        commands = ("quarantine show KEY", "quarantine replay --all") if fields["entries"] else ()
        hints = [next_command(migration.settings, each, "target") for each in commands]
        envelope = call.envelope(fields, mapping=migration.mapping, next_commands=hints)
    describe = describe_kept_items if kept else describe_waiting if waiting else describe_entries
    call.finish(envelope, describe(envelope))


@app.command(
    epilog=example("kvmigrate quarantine show gift:42 --mapping mapping.yaml --target postgresql://localhost/shop")
)
def show(
    key: _KeyArgument,
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one refused item, its value whole."""
    from kvmigrate.migration import Migration
    from kvmigrate.report.quarantine import describe_entry

    call = Call("quarantine show", as_json=as_json)
    with Migration.open(settings_of(mapping=mapping, target=target, config=config)) as migration:
        entry = migration.quarantine.show(key)
        if entry is None:
            raise _not_there([key])
        fields = {**entry_fields(entry), "payload": migration.payload_line(entry)}
        value = migration.payload_text(entry)
        hints = [next_command(migration.settings, f"quarantine replay {shlex.quote(key)}", "target")]
        envelope = call.envelope(fields, mapping=migration.mapping, next_commands=hints)
    call.finish(envelope, describe_entry(envelope, value))


@app.command(
    epilog=example(
        "kvmigrate quarantine export --mapping mapping.yaml --target postgresql://localhost/shop -o refused.ndjson"
    )
)
def export(
    *,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    reason: _ReasonOption = None,
    entity: EntityOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write refused items as lines, values whole.

    It is NDJSON, as export writes it. It holds a part of the store only: to try these
    items again use replay; a backfill from the file would miss all other items, and
    stops rather than delete their rows.
    """
    from kvmigrate.migration import Migration

    _check_reason(reason)
    call = Call("quarantine export", as_json=as_json)
    with Migration.open(settings_of(mapping=mapping, target=target, config=config)) as migration:
        migration.check_entities([entity] if entity else [])
        with text_output(output) as out:
            count = migration.quarantine.export(out, reason=reason, entity=entity)
        fields = {"exported": count, "output": str(output or "stdout")}
        envelope = call.envelope(fields, mapping=migration.mapping)
    finish = call.finish if output else call.finish_beside_data
    finish(envelope, f"{count:,} quarantined items written to {fields['output']}\n")


@app.command(
    epilog=example(
        "kvmigrate quarantine replay --all --mapping mapping.yaml --source redis://localhost:6379/0"
        " --target postgresql://localhost/shop"
    )
)
def replay(
    keys: _KeysArgument = None,
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    reason: _ReasonOption = None,
    every: _AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try refused items again.

    They are read from the store where one is named, else taken as they were kept. While the mapping is live, their
    keys are marked in the store instead, which must be named: kvmigrate relay tries them.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.quarantine import describe_replay

    if not (keys or reason or every):
        raise typer.BadParameter("name keys, a --reason, or --all")
    if every and (keys or reason):
        raise typer.BadParameter("--all is every item: name no keys and no --reason beside it")
    _check_reason(reason)
    call = Call("quarantine replay", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration, call.progress() as progress:
        if absent := [key for key in keys or () if migration.quarantine.show(key) is None]:
            raise _not_there(absent)
        done = migration.replay(keys=keys or (), reason=reason, every=every, progress=progress)
        again = [next_command(settings, "relay --once", "source", "target")] if done.touched else []
        envelope = call.envelope(done.to_json(), mapping=migration.mapping, next_commands=again)
    call.finish(envelope, describe_replay(envelope))


@app.command(
    epilog=example(
        "kvmigrate quarantine keep --all --why pictures --mapping mapping.yaml --source redis://localhost:6379/0"
        " --target postgresql://localhost/shop"
    )
)
def keep(
    keys: _KeysArgument = None,
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    every: _UnsettledOption = False,
    why: _WhyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Keep refused or waiting items whole, so that the tables may lead without them.

    They have no rows, and are served, written and exported by key. From dualwrite to live.
    Ends with 4 where an item was written meanwhile.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.stage import describe_kept

    if bool(keys) == every:
        raise typer.BadParameter("name keys, or --all")
    if not why:
        raise typer.BadParameter("say --why: it stands in the change log")
    call = Call("quarantine keep", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration, migration.stages() as stages:
        done = stages.keep(keys or (), every=every, why=why)
        if done.unknown:
            raise _not_there(done.unknown)
        again = [next_command(migration.settings, "stage advance --dry-run", "source", "target")]
        fields = {"kept": len(done.kept), "changed": done.changed}
        envelope = call.envelope(fields, mapping=migration.mapping, next_commands=again, ok=not done.changed)
    call.finish(envelope, describe_kept(envelope), exit_code=4 if done.changed else 0)


def _check_reason(reason: str | None) -> None:
    known = [each.value for each in Reason]
    if reason is not None and reason not in known:
        raise typer.BadParameter(f"there is no reason {reason!r}; the reasons are {', '.join(known)}")


def _not_there(keys: Sequence[str]) -> KVMigrateError:
    verb = "is" if len(keys) == 1 else "are"
    return KVMigrateError(f"{', '.join(keys)} {verb} not in quarantine", hint="kvmigrate quarantine list names what is")


def entry_fields(entry: QuarantineEntry) -> dict[str, object]:
    """Return a quarantined item's fields without its value."""
    names = ("key", "entity", "reason", "path", "message", "fingerprint", "run", "payload_kind", "payload_bytes")
    return {**{name: getattr(entry, name) for name in names}, "at": entry.at.isoformat()}
