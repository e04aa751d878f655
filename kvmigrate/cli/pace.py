"""The options that say how fast a backfill goes, and ``backfill --pause`` and its like, which change one that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from kvmigrate.cli.call import Call
from kvmigrate.errors import ConfigError

if TYPE_CHECKING:
    from kvmigrate.backfill.budget import Budget
    from kvmigrate.backfill.pace import Knobs
    from kvmigrate.migration import Migration
    from kvmigrate.target.retune import RunState

_NONE = "none"

_CHANGES_WITH = {
    *("mapping", "source", "target", "config", "as_json"),
    *("rate", "max_lag", "max_active", "pause", "unpause", "retune"),
}
"""What may be typed beside ``--pause`` and its like."""


def _limit(text: str) -> float | str:
    """Return a positive number, or the word that lifts a limit."""
    if text == _NONE:
        return text
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise typer.BadParameter(f"{text!r} is neither a number above 0 nor {_NONE!r}")
    return number


def _count(text: str) -> int | str:
    """Return a number of sessions, or the word that lifts a limit."""
    if text == _NONE:
        return text
    if not (text.isascii() and text.isdecimal()):
        raise typer.BadParameter(f"{text!r} is neither a whole number nor {_NONE!r}")
    return int(text)


RateOption = Annotated[
    Any, typer.Option("--rate", metavar="N", parser=_limit, help="At most so many keys a second. 'none' lifts it.")
]
MaxLagOption = Annotated[
    Any,
    typer.Option(
        "--max-lag",
        metavar="S",
        parser=_limit,
        help="Wait while a standby of the target is over S seconds behind.",
    ),
]
MaxActiveOption = Annotated[
    Any,
    typer.Option(
        "--max-active", metavar="N", parser=_count, help="Wait while more than N other sessions are at work there."
    ),
]
MaxQuarantinedOption = Annotated[
    str | None,
    typer.Option("--max-quarantined", metavar="N|P%", help="Give up when more items, or more of 100, are quarantined."),
]
PauseOption = Annotated[bool, typer.Option("--pause", help="Pause the backfill of this mapping that runs now.")]
UnpauseOption = Annotated[bool, typer.Option("--unpause", help="Let it go on.")]
RetuneOption = Annotated[bool, typer.Option("--retune", help="Change its --rate, --max-lag or --max-active.")]


def limits(rate: Any, max_lag: Any, max_active: Any) -> dict[str, Any]:
    """Return the knobs that were typed; ``None`` lifts a limit."""
    typed = {"rate": rate, "max_lag_s": max_lag, "max_active": max_active}
    return {name: None if value == _NONE else value for name, value in typed.items() if value is not None}


def check_preview(typed: dict[str, Any], budget: Budget | None) -> None:
    """Refuse limits for a run that writes nothing. Raises `ConfigError`."""
    if typed or budget:
        raise ConfigError("--dry-run writes nothing, so it has no pace and no budget", hint="leave the limits away")


def first_knobs(typed: dict[str, Any]) -> Knobs:
    """Return the knobs that a backfill begins with."""
    from kvmigrate.backfill.pace import Knobs

    return Knobs(**typed)


def budget_of(text: str | None) -> Budget | None:
    """Return the error budget that was typed. Raises `ConfigError`."""
    from kvmigrate.backfill.budget import Budget

    return None if text is None else Budget.parse(text)


def changes_of(
    context: typer.Context, typed: dict[str, Any], *, pause: bool, unpause: bool, retune: bool
) -> dict[str, Any] | None:
    """Return what is to be changed of the backfill that runs; ``None`` where one is to be begun.

    Raises:
        ConfigError: the options contradict each other.
    """
    asked = [name for name, is_set in (("--pause", pause), ("--unpause", unpause), ("--retune", retune)) if is_set]
    if not asked:
        return None
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)}: one at a time", hint="kvmigrate backfill --help")
    if retune and not typed:
        raise ConfigError("--retune changes nothing", hint="say what: --rate N, --max-lag S, --max-active N")
    begins = [each for each in context.command.params if each.name not in _CHANGES_WITH and _is_typed(context, each)]
    if begins:
        names = ", ".join(each.opts[0] for each in begins)
        raise ConfigError(f"{asked[0]} begins nothing, and {names} is for a beginning", hint="leave it away")
    return {**typed, **({} if retune else {"paused": pause})}


def _is_typed(context: typer.Context, parameter: Any) -> bool:
    source = context.get_parameter_source(parameter.name)
    return source is not None and source.name == "COMMANDLINE"


def change(call: Call, migration: Migration, changes: dict[str, Any]) -> NoReturn:
    """Change the backfill that runs, say how it stands, and end."""
    found = migration.retune(changes)
    knobs = {name: found.knobs.get(name) for name in ("rate", "max_lag_s", "max_active")}
    knobs["paused"] = bool(found.knobs.get("paused"))
    fields = {"state": found.state, "reason": found.reason, "knobs": knobs}
    call.finish(call.envelope(fields, mapping=migration.mapping, run_id=found.run), _text(found, knobs))


def _text(found: RunState, knobs: dict[str, Any]) -> str:
    state = f"{found.state}: {found.reason}" if found.reason else found.state
    if knobs["paused"] and found.state == "running":
        state = "running: it pauses before its next page"
    limits = [
        f"at most {knobs['rate']:,g} keys/s" if knobs["rate"] is not None else "",
        f"standbys at most {knobs['max_lag_s']:,g} s behind" if knobs["max_lag_s"] is not None else "",
        f"at most {knobs['max_active']:,} other sessions at work" if knobs["max_active"] is not None else "",
    ]
    return f"run {found.run} is {state}\nlimits: {', '.join(filter(None, limits)) or 'none'}\n"
