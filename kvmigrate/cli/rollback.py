"""``kvmigrate rollback``: reads back to the store, now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    SourceOption,
    StateOption,
    TargetOption,
    example,
    settings_of,
)

EPILOG = example(
    "kvmigrate rollback --why slow --mapping mapping.yaml --source redis://localhost:6379/0"
    " --target postgresql://localhost/shop"
)
LEFT = 1
HAS_NO_EFFECT = 4

_EndpointOption = Annotated[
    str,
    typer.Option("--endpoint", metavar="NAME", help="Only this, or all that fit: get.clients.*. Default: every one."),
]
_WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the history.")]
_ClearOption = Annotated[bool, typer.Option("--clear", help="Let flags decide again; without --endpoint, everywhere.")]


def rollback(
    *,
    endpoint: _EndpointOption = "*",
    why: _WhyOption = "",
    clear: _ClearOption = False,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send reads back to the store, in every process and at once. No gate, and no flag is touched.

    It is kept in the store, in the target and in the state folder; any one of them suffices, so that it works while
    PostgreSQL does not. Who writes stays as it is: once the tables lead, reads stay there, the command ends with 4, and
    `kvmigrate stage rollback` is meant.
    """
    from kvmigrate.cli.steered import Steered
    from kvmigrate.intent import EVERY, slug_of, unheard_of
    from kvmigrate.reads.verdict import clearing
    from kvmigrate.rollbacks import Kept

    call = Call("rollback", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config, state=state)
    with Steered(call, settings) as steered:
        if clear:
            kept = Kept(steered.rollbacks.clear(endpoint), tables_lead=False, endpoints=frozenset())
        else:
            kept = steered.rollbacks.roll_back(endpoint, why=why)
        done, leads, endpoints = kept
        left = [each for each in done if not each.done]
        said = "may still hold it" if clear else "does not have it"
        fields: dict[str, Any] = {"endpoint": endpoint, "cleared": clear, "places": [each._asdict() for each in done]}
        warnings = [*unheard_of(endpoint, endpoints), *(f"{each.name} {said}: {each.why}" for each in left)]
        fields["tables_lead"] = leads
        if leads:
            steered.finish(fields, steered.typed("stage rollback --yes"), warnings=warnings, exit_code=HAS_NO_EFFECT)
        again = steered.typed(
            clearing(endpoint if endpoint == EVERY else slug_of(endpoint)) if left or not clear else "flags show"
        )
        steered.finish(fields, again, warnings=warnings, exit_code=LEFT if clear and left else 0)
