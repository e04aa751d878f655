"""``kvmigrate sample``: how many keys diverge, at most?"""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.duration import seconds_of
from kvmigrate.cli.options import (
    UNFINISHED,
    ConfigOption,
    EntityOption,
    JsonOption,
    MappingOption,
    SourceOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.cli.signals import ended_by_signals
from kvmigrate.errors import ConfigError, TargetError
from kvmigrate.intent import EVERY, SAMPLER

if TYPE_CHECKING:
    from pathlib import Path

    from kvmigrate.cli.sample_lines import SampleLines
    from kvmigrate.consistency.rounds import Ways
    from kvmigrate.consistency.sample_report import Sampled
    from kvmigrate.migration import Migration
    from kvmigrate.steering import Steering

EPILOG = example(
    "kvmigrate sample --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)
DIVERGENT, INCONCLUSIVE = 5, 4

_SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size", metavar="N", min=1, help="Compare N keys (default: 3000); with --until, N at most (default: 200000)."
    ),
]
_UntilOption = Annotated[
    float | None,
    typer.Option(
        "--until", metavar="PCT", help="Go on until no more than PCT per cent can diverge, or too many do for that."
    ),
]
_ConfidenceOption = Annotated[
    float, typer.Option("--confidence", metavar="SHARE", help="How often a bound may be trusted (default: 0.95).")
]
_SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", min=0, help="Draw the keys that this seed draws, as a report says.")
]
_RateOption = Annotated[
    float | None, typer.Option("--rate", metavar="N", min=0.01, help="Compare at most N keys a second.")
]
_ForOption = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="TIME",
        help="Go on for so long, such as 90s, 10m, 2h or ever, in rounds of --size keys (20000), at --rate (50).",
    ),
]
_HealthOption = Annotated[
    str | None,
    typer.Option(
        "--health", metavar="HOST:PORT", help="With --for: answer /health and /metrics there; a port alone is local."
    ),
]
_RollbackOption = Annotated[
    float | None,
    typer.Option(
        "--rollback-above",
        metavar="PCT",
        min=0.0,
        max=100.0,
        help="With --for: send all reads back to the store once more than PCT per cent diverge for sure.",
    ),
]
_DemoteOption = Annotated[
    float | None,
    typer.Option(
        "--demote-above",
        metavar="PCT",
        min=0.0,
        max=100.0,
        help="With --for: send back endpoints once more than PCT per cent of an entity that they read diverge.",
    ),
]
_ShowValuesOption = Annotated[
    bool, typer.Option("--show-values", help="Show the values that differ, but for personal columns.")
]


def sample(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    size: _SizeOption = None,
    until: _UntilOption = None,
    confidence: _ConfidenceOption = 0.95,
    seed: _SeedOption = None,
    rate: _RateOption = None,
    for_: _ForOption = None,
    health: _HealthOption = None,
    rollback_above: _RollbackOption = None,
    demote_above: _DemoteOption = None,
    entity: EntityOption = None,
    show_values: _ShowValuesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare keys drawn by chance, both ways, and say how many can diverge at most.

    It changes no data, and keeps what it found as evidence for the gate. Both sides may be written meanwhile. Ends with
    5 if a key diverges, with 4 if nothing could be compared or --until was not reached. With --for it goes on, slower
    where the servers become slow, until SIGTERM or Ctrl-C at the latest; begun again it goes on where it was.
    """
    from kvmigrate.cli.health import address_of
    from kvmigrate.cli.sample_lines import Alarm, EndpointAlarm, SampleLines
    from kvmigrate.consistency.rounds import RATE, ROUND_KEYS, Ways
    from kvmigrate.consistency.sample import MOST, SIZE, Wanted
    from kvmigrate.migration import Migration
    from kvmigrate.report.sample import describe_sample
    from kvmigrate.steering import Steering

    call = Call("sample", as_json=as_json)
    _check(until, confidence)
    seconds = seconds_of(for_) if for_ else None
    address = address_of(health) if health else None
    if (health or rollback_above is not None or demote_above is not None) and not for_:
        raise ConfigError(
            "--health, --rollback-above and --demote-above belong to a sampler that goes on", hint="add --for TIME"
        )
    if for_ and (until is not None or seed is not None or show_values):
        raise ConfigError(
            "--for goes with --size, --rate, --confidence and --entity alone", hint="leave the others away"
        )
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    wanted = Wanted(size or (SIZE if until is None else MOST), until, rate)
    unmended = 0
    with Migration.open(settings) as migration:
        with call.progress() as progress:
            if for_:
                ways = Ways(size or ROUND_KEYS, rate or RATE, seconds)
                with Steering(settings, migration.mapping.name, SAMPLER) as desk:
                    roll_back = partial(_roll_back, desk, settings.state)
                    alarm = None if rollback_above is None else Alarm(rollback_above, partial(roll_back, EVERY))
                    single = None if demote_above is None else EndpointAlarm(demote_above, desk, roll_back)
                    lines = SampleLines(migration.mapping.name, alarm, single)
                    done = _go_on(migration, ways, confidence, entity, lines, address)
                    unmended = lines.unmended
            else:
                done = migration.sample(
                    wanted, seed=seed, confidence=confidence, entity=entity, show_values=show_values, progress=progress
                )
        fields = done.report.to_json()
        is_short = until is not None and fields["upper_pct"] > until
        is_divergent = fields["divergent"] or unmended
        code = DIVERGENT if is_divergent else INCONCLUSIVE if is_short or not fields["n"] else 0
        warnings = [UNFINISHED] if done.unfinished else []
        if unmended > fields["divergent"]:
            warnings.append(f"keys found divergent, in this round or before, and not mended: {unmended}")
        if done.unkept:
            warnings.append(f"the gate will not know of this sample: {done.unkept}")
        commands = ["backfill"] if done.unfinished else ["verify"] if code else []
        envelope = call.envelope(
            {"source": migration.source_name, "target": migration.target_name, **fields},
            mapping=migration.mapping,
            warnings=warnings,
            next_commands=[next_command(settings, each, "source", "target") for each in commands],
            ok=code == 0,
        )
    call.finish(envelope, describe_sample(envelope), exit_code=code)


def _roll_back(desk: Steering, state: Path | None, slug: str, why: str) -> bool:
    """Return whether reads stay with the tables all the same."""
    done, tables_lead, _ = desk.roll_back(slug, why=why)
    # The folder of this machine tells no process of another one.
    if not any(each.done for each in done if each.name not in {"the state folder", str(state)}):
        raise TargetError("neither the store nor the target has the rollback", hint="it is tried again")
    return tables_lead


def _go_on(
    migration: Migration,
    ways: Ways,
    confidence: float,
    entity: str | None,
    lines: SampleLines,
    address: tuple[str, int] | None,
) -> Sampled:
    """Sample until the time is over or a signal comes; say on stderr how it stands."""
    from kvmigrate.cli.health import http_server
    from kvmigrate.consistency.sample_report import Sampled

    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals(stop))
        sampling = stack.enter_context(migration.sampling(confidence=confidence, entity=entity))
        if address is not None:
            port = stack.enter_context(http_server(address, lines.answer))
            sys.stderr.write(f"health: http://{address[0]}:{port}/health\n")
        return Sampled(sampling.run(ways, stop, lines), "", sampling.unfinished)


def _check(until: float | None, confidence: float) -> None:
    if until is not None and not 0 < until < 100:
        raise ConfigError(f"--until {until:g} is no share of keys", hint="in per cent, such as --until 0.1")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"--confidence {confidence:g} is none", hint="between 0.5 and 1, such as --confidence 0.95")
