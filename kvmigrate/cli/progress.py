"""How far a run is: a bar on a terminal, at most one line a second elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kvmigrate.config import is_ci

_PAUSE_S = 1.0


class ProgressLine:
    """Shows progress on *out*. Call it with a phase and counts; from any thread."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        live = out.isatty() and not is_ci()
        self._bar = _bar(out) if live else None
        self._tasks: dict[str, TaskID] = {}
        self._printed_at = time.monotonic()

    def __call__(self, phase: str, done: int, total: int | None, per_second: float = 0.0) -> None:
        """Show that *done* of *total* is done, and how many there are a second."""
        rate = f"{per_second:,.0f}/s" if per_second else ""
        if self._bar is not None:
            if phase not in self._tasks:
                self._tasks[phase] = self._bar.add_task(phase, total=total, rate=rate)
            # A store that grows meanwhile: the bar must not pass its end.
            shown_total = max(total, done) if total is not None else None
            self._bar.update(self._tasks[phase], completed=done, total=shown_total, rate=rate)
            return
        now = time.monotonic()
        if now - self._printed_at >= _PAUSE_S:
            self._printed_at = now
            of = f" of {total:,}" if total is not None else ""
            self._out.write(f"{phase}: {done:,}{of}{'  ' + rate if rate else ''}\n")
            self._out.flush()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(out: TextIO) -> Progress:
    return Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=Console(file=out),
        transient=True,
    )
