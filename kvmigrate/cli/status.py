"""``kvmigrate status``: what became of the reads, in all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    FlagsOption,
    JsonOption,
    MappingOption,
    SourceOption,
    StateOption,
    TargetOption,
    example,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmigrate.reads.totals import Totals
    from kvmigrate.steering import EndpointView

EPILOG = example("kvmigrate status --mapping mapping.yaml --target postgresql://localhost/shop")


def status(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show for each endpoint what its flag asks for, what is given, and what all processes counted.

    Processes say what they counted every five seconds, and when they end.
    """
    from kvmigrate.cli.steered import Steered
    from kvmigrate.errors import TargetError
    from kvmigrate.reads.totals import Totals

    call = Call("status", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config, flags=flags_at, state=state)
    with Steered(call, settings) as steered:
        view, counted = steered.desk.status()
        every = list(counted.values())
        requests = sum(each.requests for each in every)
        share = round(100 * sum(each.on_tables for each in every) / requests, 2) if requests else None
        fields: dict[str, Any] = {
            "stage": view.stage.value if view.stage else None,
            "reads_on_tables_pct": share,
            "endpoints": [
                _endpoint(each, counted.get(each.slug) or Totals(), steered.typed) for each in view.endpoints
            ],
        }
        warnings = list(view.unread)
        try:
            fields["commands"] = [each.to_json() for each in steered.desk.commands()]
        except TargetError as exc:
            fields["commands"] = []
            warnings.append(f"commands that will not work once the tables lead are not known: {exc}")
        again = [each["next"] for each in fields["endpoints"] if each["next"]] or [steered.typed("flags show")]
        steered.finish(fields, *dict.fromkeys(again), warnings=warnings)


def _endpoint(view: EndpointView, counted: Totals, typed: Callable[[str], str]) -> dict[str, Any]:
    from kvmigrate.reads.verdict import verdict_of

    found = verdict_of(view.slug, view.intent, view.plan, counted, back=view.back, by=view.back_by)
    return {
        "endpoint": view.slug,
        "intent_pct": view.intent.share / 100,
        "allowed_pct": view.plan.share / 100,
        **counted.to_json(),
        "demoted_in": sum(counted.demoted.values()),
        "rolled_back": bool(view.back),
        "why": view.plan.why,
        "verdict": found.word,
        "reason": found.reason,
        "next": typed(found.next) if found.next else "",
    }
