"""A whole store verified within a budget of keys a second, and gone on with where it was stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kvmigrate.consistency.budget import Budget
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.verify import Part, Progress, Verification

KEEP_S = 10.0
"""What is known is kept so often, in seconds."""

Keep = Callable[[VerifyReport], None]


def run_paced_verify(
    run: Verification, rate: float, stop: threading.Event, keep: Keep, progress: Progress
) -> VerifyReport:
    """Compare what *run* has not compared yet, the store's keys in order, then what only the tables know.

    Args:
        run: Its report may be that of a run that was stopped: it goes on behind `VerifyReport.verified_up_to`.

        rate: Keys a second at most; fewer where the servers become slow.

        stop: Set to end it; the report is then not complete.

        keep: Given the report every few seconds, and at the end of one that was stopped.

        progress: Told how far this is.

    Raises:
        SourceError, TargetError: a side failed. What was kept last can be gone on with.
    """
    budget, kept_at, total = Budget(rate), time.monotonic(), run.source.count()
    after = run.report.verified_up_to
    for part in run.parts(budget.keys, after=after):
        begun_at = time.monotonic()
        run.compare(Part(max(part.after, after), part.keys))
        took_s = time.monotonic() - begun_at
        progress("compare", run.done, total)
        if stop.wait(budget.pause_s(len(part.keys), took_s)):
            run.report.complete = False
            keep(run.finish())
            return run.report
        if time.monotonic() - kept_at >= KEEP_S:
            keep(run.finish())
            kept_at = time.monotonic()
    return run.conclude(progress=progress)
