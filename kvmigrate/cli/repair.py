"""``kvmigrate repair``: single items, made right from the side that leads."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    SourceOption,
    TargetOption,
    YesOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.errors import ConfigError

_SIDES = "--mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop"
EPILOG = example(f"kvmigrate repair --all {_SIDES} --dry-run", f"kvmigrate repair client:1 {_SIDES} --yes")
DIVERGENT, INCONCLUSIVE = 5, 4

_CAUSES = (
    "missing_row extra_row stale changed type null_missing order number timezone extra_field child_count moved"
).split()

_KeysArgument = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Which items.", show_default=False)]
_CauseOption = Annotated[
    list[str] | None,
    typer.Option("--cause", metavar="NAME", help="Only items with a difference of this kind; may be repeated."),
]
_AllOption = Annotated[bool, typer.Option("--all", help="Whatever a verification of everything finds.")]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def repair(
    *,
    keys: _KeysArgument = None,
    every: _AllOption = False,
    cause: _CauseOption = None,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    dry_run: _DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make items agree that diverge, from the side that leads; a newer write always wins.

    Ends with 5 if something still diverges (or would be repaired), with 4 if something is not settled yet.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.repair import describe_repair

    call = Call("repair", as_json=as_json)
    _check(keys or [], cause or [], every=every)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    with Migration.open(settings) as migration, migration.repairs() as repairs:
        if not dry_run:
            _ask(repairs.direction, yes=yes)
        report = repairs.run(keys or [], causes=cause or [], dry_run=dry_run)
        fields = report.to_json()
        code = DIVERGENT if report.left else INCONCLUSIVE if fields["pending"] else 0
        commands = ["repair --all"] if fields["would_repair"] else ["verify"] if code or fields["repaired"] else []
        envelope = call.envelope(
            {"source": migration.source_name, "target": migration.target_name, **fields},
            mapping=migration.mapping,
            next_commands=[next_command(settings, each, "source", "target") for each in commands],
            ok=code == 0,
        )
    call.finish(envelope, describe_repair(envelope), exit_code=code)


def _check(keys: list[str], causes: list[str], *, every: bool) -> None:
    if not keys and not causes and not every:
        raise ConfigError("repair what?", hint="name keys, or say --cause NAME, or --all; --dry-run changes nothing")
    if every and keys:
        raise ConfigError("--all and single keys contradict each other", hint="leave one of them away")
    if unknown := [each for each in causes if each not in _CAUSES]:
        raise ConfigError(f"there is no cause {', '.join(map(repr, unknown))}", hint=f"there are {', '.join(_CAUSES)}")


def _ask(direction: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("repair asks, and there is no terminal to ask on", hint="add --yes, or --dry-run first")
    typer.confirm(f"Repair {direction}?", abort=True, err=True)
