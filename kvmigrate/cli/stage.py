"""``kvmigrate stage``: where a migration stands, and the moves from stage to stage."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.group import KVMigrateGroup
from kvmigrate.cli.options import (
    ConfigOption,
    DivergenceOption,
    JsonOption,
    MappingOption,
    ReplicasOption,
    SamplesOption,
    SourceOption,
    TargetOption,
    YesOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.errors import ConfigError
from kvmigrate.model import Fence, Stage

if TYPE_CHECKING:
    from kvmigrate.cutover.controller import Moved
    from kvmigrate.cutover.gate import GateReport
    from kvmigrate.migration import Migration
    from kvmigrate.stages import Stages, StageState

_SIDES = "--mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop"
EPILOG = example(f"kvmigrate stage show {_SIDES}")
REFUSED = 3
INCONCLUSIVE = 4

app = typer.Typer(cls=KVMigrateGroup, no_args_is_help=True, rich_markup_mode=None)

_ToOption = Annotated[
    Stage | None,
    typer.Option("--to", metavar="STAGE", help="The stage that is wanted: nothing is done where it is reached."),
]
_WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the change log.")]
_OverrideOption = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="NAME", help="A check of the gate that need not pass; needs --why."),
]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what the gate still wants.")]
_ConfirmOption = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The mapping's name, typed: into complete only with it."),
]
_ForceOption = Annotated[
    bool, typer.Option("--force", help="Open the store although the tables cannot be drained; with --accept-loss.")
]
_AcceptOption = Annotated[bool, typer.Option("--accept-loss", help="Newest table writes may be lost.")]

_VerifiedOption = Annotated[
    str,
    typer.Option("--verified-at", metavar="TIME", help="When the backup is from: 2026-03-01T04:00Z, or 2h."),
]


@app.callback(epilog=EPILOG)
def stage() -> None:
    """Say who writes: see the stage of a migration, and move it."""


@app.command(epilog=EPILOG)
def show(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show stage, authority and epoch, what is under way, and what is not settled yet."""
    from kvmigrate.migration import Migration
    from kvmigrate.report.stage import describe_stage

    call = Call("stage show", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration, migration.stages() as stages:
        state = stages.show()
        warnings = [f"the store was not read: {state.unread}"] if state.unread else []
        commands = [_typed(migration, "stage advance --dry-run")]
        if state.refusal:
            warnings.append(f"everything stays owed: {state.refusal}")
            commands = [_typed(migration, "backfill --accept-deletes")]
        envelope = call.envelope(
            _state_fields(state, migration.mapping.fingerprint),
            mapping=migration.mapping,
            warnings=warnings,
            next_commands=commands,
        )
    call.finish(envelope, describe_stage(envelope))


@app.command(epilog=example(f"kvmigrate stage advance {_SIDES} --dry-run", f"kvmigrate stage advance {_SIDES} --yes"))
def advance(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    to: _ToOption = None,
    override: _OverrideOption = None,
    why: _WhyOption = "",
    replicas: ReplicasOption = None,
    max_divergence: DivergenceOption = None,
    min_samples: SamplesOption = None,
    dry_run: _DryRunOption = False,
    yes: YesOption = False,
    confirm: _ConfirmOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go one stage forward, if its gate says so, or go on with a move that was cut short.

    off, dualwrite, shadow, live: the store leads. rampdown, complete: the tables do.
    Ends with 3 where the gate refuses, or where a flip was given up and the store is open as before.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.stages import overrides_of

    call = Call("stage advance", as_json=as_json)
    overrides = overrides_of(override or [], why)
    settings = settings_of(
        mapping=mapping,
        source=source,
        target=target,
        config=config,
        replicas=replicas,
        max_divergence=max_divergence,
        min_samples=min_samples,
    )
    with Migration.open(settings) as migration, migration.stages() as stages:
        if dry_run:
            _finish_gate(call, migration, stages.gate(to, overrides))
        wanted = _reached_or_asked(migration, stages, to, yes=yes, confirm=confirm)
        if wanted is not None:
            report = stages.gate(wanted, overrides)
            if report is not None and report.verdict != "pass":
                _finish_gate(call, migration, report)
        moved = stages.advance(to, why=why, overrides=overrides)
        again = [_typed(migration, "stage show")]
        if moved.after is Stage.DUALWRITE:
            again = [_typed(migration, "backfill"), _typed(migration, "relay")]
        _finish_move(call, migration, moved, again)


@app.command(epilog=example(f"kvmigrate stage rollback {_SIDES} --to off --yes"))
def rollback(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    to: _ToOption = None,
    why: _WhyOption = "",
    force: _ForceOption = False,
    accept_loss: _AcceptOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go one stage back, write authority included; no gate. A flip that was cut short is given up.

    With --force --accept-loss the store is opened even where the database is lost, and the keys are named whose
    newest writes it may lack.
    """
    from kvmigrate.migration import Migration

    call = Call("stage rollback", as_json=as_json)
    if force != accept_loss:
        raise ConfigError("--force and --accept-loss go together", hint="without both nothing can be lost")
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration, migration.stages() as stages:
        _ask(f"Roll {migration.mapping.name!r} back{f' to {to}' if to else ''}?", "rollback", yes=yes)
        if force:
            _finish_forced(call, migration, stages, why)
        moved = stages.rollback(to, why=why)
        _finish_move(call, migration, moved, [_typed(migration, "stage show")])


@app.command(epilog=example(f"kvmigrate stage backup {_SIDES} --verified-at 2026-03-01T04:00Z --why restored-on-db7"))
def backup(
    *,
    verified_at: _VerifiedOption,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    why: _WhyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record that a backup of the target was restored and looked at: the gate into rampdown asks how old it is.

    kvmigrate makes no backup and reads none: it believes you.
    """
    from kvmigrate.cli.duration import moment_of
    from kvmigrate.migration import Migration
    from kvmigrate.report.stage import describe_backup

    call = Call("stage backup", as_json=as_json)
    if not why:
        raise ConfigError("stage backup needs a reason", hint="add --why TEXT: where it was restored, who looked at it")
    now = datetime.now(UTC)
    at = moment_of(verified_at, now=now)
    if at is None:
        raise ConfigError(f"--verified-at {verified_at} is no time", hint="such as 2026-03-01T04:00Z, or 2h")
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration, migration.stages() as stages:
        stages.backup_verified(at, why=why)
        fields = {"at": at.astimezone(UTC).isoformat(), "why": why}
        again = [_typed(migration, "gate")]
        envelope = call.envelope(fields, mapping=migration.mapping, next_commands=again)
    call.finish(envelope, describe_backup(envelope))


def _reached_or_asked(
    migration: Migration, stages: Stages, to: Stage | None, *, yes: bool, confirm: str | None
) -> Stage | None:
    """Ask whether to move; return the stage whose gate counts, ``None`` where there is nothing to pass."""
    from kvmigrate.errors import SchemaError

    try:
        state = stages.show()
    except SchemaError:
        return to or Stage.DUALWRITE
    if to is state.control.stage or state.control.phase:
        return None
    report = stages.gate(to, {})
    wanted = Stage(report.to) if report is not None else None
    name = migration.mapping.name
    if wanted is Stage.COMPLETE and confirm != name:
        if confirm is not None or not sys.stdin.isatty():
            raise ConfigError(
                f"into complete the store of {name!r} is written no more: that is to be typed",
                hint=f"add --confirm {name}",
            )
        if typer.prompt(f"The store is written no more. Type {name} to go on", err=True) != name:
            raise typer.Abort
    elif wanted is Stage.RAMPDOWN:
        _ask(f"Let the tables of {name!r} lead?", "advance", yes=yes)
    return wanted


def _ask(question: str, command: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"stage {command} asks, and there is no terminal to ask on", hint="add --yes")
    typer.confirm(question, abort=True, err=True)


def _typed(migration: Migration, command: str) -> str:
    return next_command(migration.settings, command, "source", "target")


def _finish_gate(call: Call, migration: Migration, report: GateReport | None) -> NoReturn:
    from kvmigrate.report.stage import describe_gate

    if report is None:
        raise ConfigError("complete is the last stage", hint="kvmigrate stage show")
    passed = report.verdict == "pass"
    code = 0 if passed else REFUSED if report.verdict == "fail" else INCONCLUSIVE
    commands = [_typed(migration, "stage advance")] if passed else []
    envelope = call.envelope(
        {"gate": report.to_json(), **_no_move()}, mapping=migration.mapping, next_commands=commands, ok=passed
    )
    call.finish(envelope, describe_gate(envelope), exit_code=code)


def _finish_move(call: Call, migration: Migration, moved: Moved, commands: list[str]) -> NoReturn:
    from kvmigrate.report.stage import describe_move

    fields = {
        "before": moved.before.value,
        "stage": moved.after.value,
        "authority": moved.authority.value,
        "epoch": moved.epoch,
        "stall_ms": moved.stall_ms,
        "steps": list(moved.steps),
        "mended": [each.value for each in moved.mended],
    }
    if call.command == "stage advance":
        fields["gate"] = None
    envelope = call.envelope(fields, mapping=migration.mapping, next_commands=commands)
    call.finish(envelope, describe_move(envelope))


def _finish_forced(call: Call, migration: Migration, stages: Stages, why: str) -> NoReturn:
    from kvmigrate.report.stage import describe_forced

    forced = stages.force(why=why)
    fields = {"forced": True, "epoch": forced.epoch, "keys": list(forced.keys), "exact": forced.is_exact}
    warnings = [] if forced.is_exact else ["the database did not answer: stop whatever writes its tables"]
    envelope = call.envelope(
        fields,
        mapping=migration.mapping,
        warnings=warnings,
        next_commands=[_typed(migration, "relay"), _typed(migration, "stage show")],
    )
    call.finish(envelope, describe_forced(envelope))


def _no_move() -> dict[str, Any]:
    return dict.fromkeys(("before", "stage", "authority", "epoch", "stall_ms"), None) | {"steps": [], "mended": []}


def _alike(fences: Mapping[str, Fence | None]) -> dict[Fence | None, tuple[str, int]]:
    """Return each different fence with the first of its shards, and how many they are: of a cluster, thousands."""
    found: dict[Fence | None, tuple[str, int]] = {}
    for shard, fence in fences.items():
        first, count = found.get(fence, (shard, 0))
        found[fence] = first, count + 1
    return found


def _state_fields(state: StageState, mapping: str) -> Mapping[str, Any]:
    control = state.control
    return {
        "stage": control.stage.value,
        "authority": control.authority.value,
        "epoch": control.epoch,
        "phase": control.phase,
        "backfilled": control.is_backfilled,
        "fences": [
            {
                "shard": shard,
                "shards": count,
                "epoch": None if fence is None else fence.epoch,
                "authority": None if fence is None else fence.authority.value,
                "log": None if fence is None else int(fence.log),
            }
            for fence, (shard, count) in _alike(state.fences).items()
        ],
        "marks": state.marks,
        "waiting": state.waiting,
        "quarantined": state.quarantined,
        "kept": state.kept,
        "owed": state.owed,
        "owes_all": state.owes_all,
        "refusal": state.refusal,
        "processes": [
            {
                "id": each.id,
                "kind": each.kind,
                "adapter_version": each.adapter_version,
                "epoch_seen": each.epoch_seen,
                "stage_seen": each.stage_seen,
                "live_seen": each.live_seen,
                "heartbeat_age_s": round(each.age_s, 1),
                "same_mapping": each.mapping == mapping if each.mapping else None,
            }
            for each in state.processes
        ],
        "commands": [each.to_json() for each in state.commands],
    }
