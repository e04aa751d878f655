"""``kvmigrate erase``: an item leaves both sides, and all that is kept of it."""

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
EPILOG = example(f"kvmigrate erase client:2 --why request-17 --yes {_SIDES}")
INCONCLUSIVE = 4

_KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Which item.", show_default=False)]
_WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the change log; needed.")]


def erase(
    key: _KeyArgument,
    *,
    why: _WhyOption = "",
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete an item from the store and the tables, and take out all that quarantine, evidence and reports know of it.

    Ends with 3 if the store holds it and is not written by kvmigrate now: delete it there first. Ends with 4 if a side
    holds it still: something writes it, or a side has not followed yet. Then type it again.
    """
    from kvmigrate.migration import Migration
    from kvmigrate.report.erase import describe_erase

    call = Call("erase", as_json=as_json)
    if not why:
        raise ConfigError("erase needs a reason", hint="add --why TEXT: it stands in the change log, without the key")
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    _ask(key, yes=yes)
    with Migration.open(settings) as migration:
        done = migration.erase(key, why=why)
        again = f'erase {key} --why "{why}"'
        envelope = call.envelope(
            {
                "source": migration.source_name,
                "target": migration.target_name,
                "key": done.key,
                "entity": done.entity,
                "was_in_store": done.was_in_store,
                "is_gone": done.is_gone,
                "traces": dict(done.traces),
            },
            mapping=migration.mapping,
            next_commands=[] if done.is_gone else [next_command(settings, again, "source", "target")],
            ok=done.is_gone,
        )
    call.finish(envelope, describe_erase(envelope), exit_code=0 if done.is_gone else INCONCLUSIVE)


def _ask(key: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("erase asks, and there is no terminal to ask on", hint="add --yes")
    typer.confirm(f"Erase {key!r} from both sides? Nothing brings it back.", abort=True, err=True)
