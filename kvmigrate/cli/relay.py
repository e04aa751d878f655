"""``kvmigrate relay``: what is marked in the store into the tables, and what the tables owe back into the store."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    ReplicasOption,
    SourceOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.cli.signals import ended_by_signals
from kvmigrate.errors import ConfigError

if TYPE_CHECKING:
    from kvmigrate.dualwrite.readings import Readings
    from kvmigrate.dualwrite.relay import Relay
    from kvmigrate.migration import Migration

EPILOG = example(
    "kvmigrate relay --mapping mapping.yaml --source redis://localhost:6379/0"
    " --target postgresql://localhost/shop --once"
)
NOT_DRAINED = 4
LINE_S = 10.0
"""Between two lines for people, where nothing but numbers changes."""

_OnceOption = Annotated[
    bool, typer.Option("--once", help="Bring both sides to where they are now, and end: 4 where marks are left.")
]
_SecondsOption = Annotated[
    float, typer.Option("--seconds", metavar="N", min=0.1, help="With --once: for so long at most.")
]
_HealthOption = Annotated[
    str | None,
    typer.Option("--health", metavar="HOST:PORT", help="Answer /health and /metrics there; a port alone is local."),
]
_FollowOption = Annotated[bool, typer.Option("--follow", help="Print a line every second, with --json an object.")]


def relay(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    once: _OnceOption = False,
    seconds: _SecondsOption = 600.0,
    health: _HealthOption = None,
    replicas: ReplicasOption = None,
    follow: _FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring to the tables what the store has marked, until it is stopped.

    Run at least one of it from dualwrite to rampdown. Any number may run: one of them leads, and does besides what
    one should do alone. Servers that are lost are waited for. SIGTERM and Ctrl-C end it when the batch under way is
    in, with 0.
    """
    from kvmigrate.cli.health import address_of, health_server
    from kvmigrate.migration import Migration

    call = Call("relay", as_json=as_json)
    if once and (follow or health):
        raise ConfigError("--once ends by itself: there is nothing to follow or to probe", hint="leave --once away")
    address = address_of(health) if health else None
    settings = settings_of(mapping=mapping, source=source, target=target, config=config, replicas=replicas)
    with Migration.open(settings) as migration:
        stop = threading.Event()
        made = migration.relay(stop)
        migration.check_relayed()
        with ended_by_signals(stop):
            if once:
                _drain(call, migration, made, seconds)
            with ExitStack() as stack:
                if address is not None:
                    port = stack.enter_context(health_server(address, made.readings, migration.mapping.name))
                    sys.stderr.write(f"health: http://{address[0]}:{port}/health\n")
                last = made.run(_Lines(follow=follow, as_json=as_json))
        call.finish(_envelope(call, migration, last), f"stopped: {last.line()}\n")


def _drain(call: Call, migration: Migration, made: Relay, seconds: float) -> None:
    readings, drained = made.drain(seconds=seconds)
    is_done = not drained.left
    again = next_command(migration.settings, "relay", "source", "target")
    envelope = _envelope(call, migration, readings, ok=is_done, left=drained.left, again=[] if is_done else [again])
    told = "drained" if is_done else f"{drained.left} marks are left"
    call.finish(envelope, f"{told}: {readings.line()}\n", exit_code=0 if is_done else NOT_DRAINED)


def _envelope(
    call: Call,
    migration: Migration,
    readings: Readings,
    *,
    ok: bool = True,
    left: int = 0,
    again: Sequence[str] = (),
) -> dict[str, Any]:
    warnings = [f"{key}: {why}" for key, why in readings.stuck.items()]
    warnings += [f"the index {name} is not maintained: {why}" for name, why in readings.pointers.items()]
    if readings.owes_all:
        warnings.append("marks were lost, and not everything is compared again yet")
    fields = {**readings.to_json(), "left": left}
    return call.envelope(fields, mapping=migration.mapping, warnings=warnings, next_commands=again, ok=ok)


class _Lines:
    """Prints readings: each second where they are followed, else when something but a number changed."""

    def __init__(self, *, follow: bool, as_json: bool) -> None:
        self._follow, self._as_json = follow, as_json
        self._state: tuple[object, ...] = ()
        self._printed_at = 0.0

    def __call__(self, readings: Readings) -> None:
        if self._follow:
            out = json.dumps({"event": "relay", **readings.to_json()}) if self._as_json else readings.line()
            sys.stdout.write(out + "\n")
            sys.stdout.flush()
            return
        state = (
            readings.stage,
            readings.authority,
            readings.epoch,
            readings.held,
            readings.last_error,
            readings.leader,
        )
        now = time.monotonic()
        moves = bool(readings.marks or readings.owed) and now - self._printed_at >= LINE_S
        is_known = bool(readings.stage or readings.last_error)
        if is_known and (state != self._state or moves):
            sys.stderr.write(readings.line() + "\n")
            sys.stderr.flush()
            self._state, self._printed_at = state, now
