"""How far a run is: one stream of events, shown as a bar on a terminal, as lines elsewhere, as NDJSON beside JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kvmigrate.backfill.pace import State
from kvmigrate.backfill.progress import Event
from kvmigrate.config import is_ci

_PAUSE_S = 1.0

_MINUTE_S, _HOUR_S = 60, 3600


class _Display(Protocol):
    """One way to show events."""

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


class ProgressLine:
    """Shows progress on *out*. Call it with events, from any thread. A context manager.

    Args:
        as_json: A JSON object a line.
    """

    def __init__(self, out: TextIO, *, as_json: bool = False) -> None:
        self._display: _Display
        if as_json:
            self._display = _Lines(out, json_line)
        elif out.isatty() and not is_ci():
            self._display = _Bar(out)
        else:
            self._display = _Lines(out, text_line)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._display.show(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()


def text_line(event: Event) -> str:
    """Return an event as a line for people."""
    of = f" of {event.total:,}" if event.total is not None else ""
    parts = [f"{event.phase}: {event.done:,}{of}", *_measures(event)]
    return "  ".join(parts) + _standing(event)


def json_line(event: Event) -> str:
    """Return an event as a JSON object."""
    # Every member, also where it says nothing: readers should not have to know the defaults.
    knobs = {name: getattr(event.knobs, name) for name in event.knobs.__struct_fields__}
    return msgspec.json.encode({**msgspec.to_builtins(event), "knobs": knobs}).decode()


class _Lines:
    """At most a line a second; and one at once when the state is a new one."""

    def __init__(self, out: TextIO, line: Callable[[Event], str]) -> None:
        self._out, self._line = out, line
        self._printed_at = time.monotonic()
        self._state = State.RUNNING

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if now - self._printed_at < _PAUSE_S and event.state is self._state:
            return
        self._printed_at, self._state = now, event.state
        self._out.write(self._line(event) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Do nothing: every line is out."""


class _Bar:
    """A bar per phase, with rate, time to the end and what it waits for."""

    def __init__(self, out: TextIO) -> None:
        self._bar = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[measures]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[standing]}", markup=False),
            console=Console(file=out),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bar.start()

    def show(self, event: Event) -> None:
        measures, standing = "  ".join(_measures(event)), _standing(event)
        task = self._tasks.get(event.phase)
        if task is None:
            task = self._bar.add_task(event.phase, total=event.total, measures=measures, standing=standing)
            self._tasks[event.phase] = task
        # A store that grows meanwhile: the bar must not pass its end.
        total = max(event.total, event.done) if event.total is not None else None
        self._bar.update(task, completed=event.done, total=total, measures=measures, standing=standing)

    def close(self) -> None:
        self._bar.stop()


def _measures(event: Event) -> list[str]:
    rate = [f"{event.per_second:,.0f}/s"] if event.per_second else []
    return rate + ([f"{_duration(event.eta_s)} left"] if event.eta_s else [])


def _standing(event: Event) -> str:
    if event.state is State.RUNNING:
        return ""
    return f"  {event.state}: {event.reason}" if event.reason else f"  {event.state}"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"
