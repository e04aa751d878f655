"""``kvmigrate flags``: how much of which endpoint shall read the tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvmigrate.cli.call import Call, write_text
from kvmigrate.cli.group import KVMigrateGroup
from kvmigrate.cli.options import (
    ConfigOption,
    FlagsOption,
    JsonOption,
    MappingOption,
    OutputOption,
    SourceOption,
    StateOption,
    TargetOption,
    example,
    settings_of,
)
from kvmigrate.errors import ConfigError

if TYPE_CHECKING:
    from kvmigrate.cli.steered import Steered

_TARGET = "--mapping mapping.yaml --target postgresql://localhost/shop"
EPILOG = example(f"kvmigrate flags show {_TARGET}")
FAILED = 3

app = typer.Typer(cls=KVMigrateGroup, no_args_is_help=True, rich_markup_mode=None)

_EndpointsOption = Annotated[
    list[str] | None, typer.Option("--endpoint", metavar="NAME", help="An endpoint of the service; may be repeated.")
]
_EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name, or its flag; * may end it.")]
_PercentOption = Annotated[
    float | None, typer.Option("--percent", metavar="N", help="How much reads the tables, from 0 to 100.")
]
_ShadowOption = Annotated[
    float | None, typer.Option("--shadow", metavar="N", help="How much is read twice and compared, from 0 to 100.")
]
_StickyOption = Annotated[
    str | None, typer.Option("--sticky", metavar="NAME", help="The property of the request that decides.")
]
_AllowOption = Annotated[
    list[str] | None, typer.Option("--allow", metavar="VALUE", help="Always reads the tables; all of them are named.")
]
_BlockOption = Annotated[
    list[str] | None, typer.Option("--block", metavar="VALUE", help="Never reads the tables; all of them are named.")
]
_WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the history.")]
_OverrideOption = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="NAME", help="A check of the gate that need not pass; needs --why."),
]
_UnleashOption = Annotated[
    bool, typer.Option("--unleash", help="Only print the definitions that an Unleash server imports.")
]
_LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="So many changes, the newest first.")]


@app.callback(epilog=EPILOG)
def flags() -> None:
    """Say how much of which endpoint shall read the tables: a wish, which the stage bounds."""


@app.command(epilog=example(f"kvmigrate flags init --endpoint get.clients.id --sticky client {_TARGET}"))
def init(
    *,
    endpoint: _EndpointsOption = None,
    sticky: _StickyOption = None,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    unleash: _UnleashOption = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a flag at 0 % for each endpoint that has none; those that have one keep it."""
    from kvmigrate.flags.unleash_export import export_text
    from kvmigrate.transform.declaration.mapping_file import load_mapping

    if not endpoint:
        raise ConfigError("no endpoint is named", hint='add --endpoint "GET /clients/{id}", once for each')
    if unleash and as_json:
        raise ConfigError("--unleash prints definitions, and no report", hint="leave --json away")
    if output and not unleash:
        raise ConfigError("--output is for definitions", hint="add --unleash, or name a file with --flags")
    if unleash:
        settings = settings_of(mapping=mapping, config=config)
        text = export_text(load_mapping(settings.need_mapping()).name, endpoint, sticky=sticky or "")
        if output:
            write_text(output, text)
        else:
            typer.echo(text, nl=False)
        return
    call = Call("flags init", as_json=as_json)
    with _steering(call, mapping, target, config, flags_at) as steered:
        made = steered.desk.init(endpoint, sticky=sticky or "")
        fields = {"source": steered.desk.source.name, "made": [each.flag for each in made]}
        steered.finish(fields, steered.typed("flags show"))


@app.command(epilog=example(f"kvmigrate flags lint {_TARGET}"))
def lint(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that whoever is to read the tables finds them written and backfilled. Ends with 3 where not."""
    call = Call("flags lint", as_json=as_json)
    with _steering(call, mapping, target, config, flags_at, source=source, state=state) as steered:
        found = steered.desk.lint()
        failed = any(each.level == "error" for each in found)
        fields = {"source": steered.desk.source.name, "findings": [each._asdict() for each in found]}
        steered.finish(fields, steered.typed("flags show"), exit_code=FAILED if failed else 0)


@app.command(epilog=example(f"kvmigrate flags show {_TARGET}"))
def show(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each flag: what it asks for, what is done of it, and why."""
    call = Call("flags show", as_json=as_json)
    with _steering(call, mapping, target, config, flags_at, source=source, state=state) as steered:
        view = steered.desk.show()
        fields = {
            "source": view.source,
            "stage": view.stage.value if view.stage else None,
            "endpoints": [
                {
                    "endpoint": each.slug,
                    "intent_pct": each.intent.share / 100,
                    "allowed_pct": each.plan.share / 100,
                    "shadow_pct": each.plan.shadow / 100,
                    "sticky": each.intent.sticky,
                    "group": each.plan.group,
                    "allow": sorted(each.intent.allow),
                    "block": sorted(each.intent.block),
                    "rolled_back": bool(each.back),
                    "why": each.plan.why,
                }
                for each in view.endpoints
            ],
        }
        steered.finish(fields, steered.typed("flags lint"), warnings=view.unread)


@app.command("set", epilog=example(f"kvmigrate flags set get.clients.id --percent 10 --why canary {_TARGET}"))
def set_flag(
    endpoint: _EndpointArgument,
    *,
    percent: _PercentOption = None,
    shadow: _ShadowOption = None,
    sticky: _StickyOption = None,
    allow: _AllowOption = None,
    block: _BlockOption = None,
    why: _WhyOption = "",
    override: _OverrideOption = None,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a flag; every process follows within a second. What the stage does not allow waits for it.

    Ends with 3 where more requests would read the tables and the gate does not pass: see `kvmigrate gate --endpoint`.
    """
    from kvmigrate.flags.document import share_of
    from kvmigrate.intent import unheard_of
    from kvmigrate.stages import overrides_of

    call = Call("flags set", as_json=as_json)
    changes: dict[str, Any] = {}
    if percent is not None:
        changes["share"] = share_of(percent, "--percent")
    if shadow is not None:
        changes["shadow"] = share_of(shadow, "--shadow")
    if sticky is not None:
        changes["sticky"] = sticky
    # One empty value takes all of them out.
    changes |= {name: frozenset(filter(None, each)) for name, each in (("allow", allow), ("block", block)) if each}
    if not changes:
        raise ConfigError("nothing is to be changed", hint="add --percent, --shadow, --sticky, --allow or --block")
    with _steering(call, mapping, target, config, flags_at) as steered:
        warnings: list[str] = []
        gate = steered.gate(overrides_of(override or [], why), warnings)
        said = f"{why} (overridden: {', '.join(override)})" if override else why
        change = steered.desk.set(endpoint, changes, why=said, gate=gate)
        fields = {"source": steered.desk.source.name, "change": change._asdict()}
        warnings += unheard_of(endpoint, steered.desk.endpoints())
        steered.finish(fields, steered.typed("flags show"), warnings=warnings)


@app.command(epilog=example(f"kvmigrate flags history {_TARGET}"))
def history(
    *,
    limit: _LimitOption = 20,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who changed which flag, when, why, from what to what."""
    call = Call("flags history", as_json=as_json)
    with _steering(call, mapping, target, config, flags_at) as steered:
        changes = [each._asdict() for each in steered.desk.history(limit=limit)]
        steered.finish({"source": steered.desk.source.name, "changes": changes}, steered.typed("flags show"))


def _steering(
    call: Call,
    mapping: Path | None,
    target: str | None,
    config: Path | None,
    flags_at: str | None,
    **places: Any,
) -> Steered:
    from kvmigrate.cli.steered import Steered

    return Steered(call, settings_of(mapping=mapping, target=target, config=config, flags=flags_at, **places))
