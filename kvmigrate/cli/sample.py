"""``kvmigrate sample``: how many keys diverge, at most?"""

from __future__ import annotations

import sys
import threading
import time
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
from kvmigrate.errors import ConfigError

if TYPE_CHECKING:
    from kvmigrate.consistency.rounds import Rounds, Ways
    from kvmigrate.consistency.sample_report import Sampled, SampleReport
    from kvmigrate.migration import Migration

EPILOG = example(
    "kvmigrate sample --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)
DIVERGENT, INCONCLUSIVE = 5, 4
LINE_S = 10.0
"""Between two lines of a sampler that goes on, where nothing but numbers changes."""

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
_ShowValuesOption = Annotated[
    bool, typer.Option("--show-values", help="Show the values that differ; they may be personal.")
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
    entity: EntityOption = None,
    show_values: _ShowValuesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare keys drawn by chance, both ways, and say how many can diverge at most.

    It changes no data, and keeps what it found as evidence for the gate. Both sides may be written meanwhile. Ends with
    5 if a key diverges, with 4 if nothing could be compared or --until was not reached. With --for it goes on, slower
    where the servers become slow, until SIGTERM or Ctrl-C at the latest; begun again it goes on where it was.
    """
    from kvmigrate.consistency.rounds import RATE, ROUND_KEYS, Ways
    from kvmigrate.consistency.sample import MOST, SIZE, Wanted
    from kvmigrate.migration import Migration
    from kvmigrate.report.sample import describe_sample

    call = Call("sample", as_json=as_json)
    _check(until, confidence)
    seconds = seconds_of(for_) if for_ else None
    if for_ and (until is not None or seed is not None or show_values):
        raise ConfigError(
            "--for goes with --size, --rate, --confidence and --entity alone", hint="leave the others away"
        )
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    wanted = Wanted(size or (SIZE if until is None else MOST), until, rate)
    with Migration.open(settings) as migration:
        with call.progress() as progress:
            if for_:
                ways = Ways(size or ROUND_KEYS, rate or RATE, seconds)
                done = _go_on(migration, ways, confidence, entity, call)
            else:
                done = migration.sample(
                    wanted, seed=seed, confidence=confidence, entity=entity, show_values=show_values, progress=progress
                )
        fields = done.report.to_json()
        is_short = until is not None and fields["upper_pct"] > until
        code = DIVERGENT if fields["divergent"] else INCONCLUSIVE if is_short or not fields["n"] else 0
        warnings = [UNFINISHED] if done.unfinished else []
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


def _go_on(migration: Migration, ways: Ways, confidence: float, entity: str | None, call: Call) -> Sampled:
    """Sample until the time is over or a signal comes; say on stderr how it stands."""
    from kvmigrate.consistency.sample_report import Sampled

    stop = threading.Event()
    with ended_by_signals(stop), migration.sampling(confidence=confidence, entity=entity) as sampling:
        report, unfinished = sampling.run(ways, stop, _Lines(as_json=call.as_json)), sampling.unfinished
    return Sampled(report, "", unfinished)


class _Lines:
    """Prints how a sampler stands: when a key was found, when it waits, else now and then."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._state: tuple[object, ...] = ()
        self._printed_at = time.monotonic()

    def __call__(self, report: SampleReport, rounds: Rounds) -> None:
        total = report.total
        state, now = (total.divergent, rounds.ended, rounds.waits), time.monotonic()
        if state == self._state and now - self._printed_at < LINE_S:
            return
        self._state, self._printed_at = state, now
        upper_pct = 100 * report.bounds(total).upper
        words = f"{total.n} compared, {total.divergent} divergent, at most {upper_pct:.3g} %"
        if rounds.share < 1:
            words += f"; slowed down to {rounds.share:.0%} of its budget"
        if rounds.waits:
            words += f"; waiting: {rounds.waits}"
        sys.stderr.write(f"round {rounds.ended + 1}: {words}\n")


def _check(until: float | None, confidence: float) -> None:
    if until is not None and not 0 < until < 100:
        raise ConfigError(f"--until {until:g} is no share of keys", hint="in per cent, such as --until 0.1")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"--confidence {confidence:g} is none", hint="between 0.5 and 1, such as --confidence 0.95")
